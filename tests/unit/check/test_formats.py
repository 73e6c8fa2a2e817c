"""Formats of options: what the programs that read a value accept and reject."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.environment.formats import FORMATS
from ansible_collections.slipway.platform.plugins.module_utils.environment.structures import (
    ETCD_TYPES,
    KUBELET_TYPES,
    STRUCTURES,
)

GOOD: dict[str, list[str]] = {
    "address": ["10.0.0.1", "2001:db8::1"],
    "api_url": ["https://api.hetzner.cloud/v1", "http://127.0.0.1:8080/v1"],
    "apiserver_argument": ["v=4", "event-ttl=2h0m0s", "feature-gates=A=true,B=false"],
    "bucket": ["example-com-backup", "abc"],
    "calendar": [
        *("daily", "Sun 01:00", "Mon..Sat 01:00", "07,13,19:00", "Sun *-*-01..07 05:00", "*:0/15", "*-*-* 04:00:00"),
        *("Mon,Wed..Fri 3:30", "*-02~01 03:00 UTC", "Sat", "2027-01-01 00:00 Europe/Berlin", "*-1/3-01 00:00:00"),
    ],
    "ceph_image": [f"quay.io/ceph/ceph@sha256:{'0' * 64}", "registry:5000/ceph/ceph:v20.2.4-20260818"],
    "ceph_pool": ["kubernetes", "cephfs.kubernetes.data", "rbd_1"],
    "cidr": ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32"],
    "command_options": ["-F 1", "-4 -s", "-x"],
    "containerd_config": ["[plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n"],
    "cron": ["0 */6 * * *", "*/5 0-5,20 1 jan-mar mon", "@daily", "0 0 ? * 0"],
    "debian_version": ["1.22.1-9+deb12u10", "1:2.3~rc1-1"],
    "dns_name": ["cluster.local", "a-b.example.museum"],
    "https_url": ["https://fsn1.your-objectstorage.com", "https://s3.example.net:9000"],
    "listen_address": ["0.0.0.0", "[::]", "10.40.1.10"],
    "node_label": [
        *("example.com/disk=ssd", "disk=ssd", "node.kubernetes.io/pool=a", "topology.kubernetes.io/zone=fsn1", "a="),
    ],
    "node_taint": ["dedicated=ci:NoSchedule", "node-role.kubernetes.io/x:NoExecute"],
    "path": [".state", "inventories/prod/.state", "/srv/with a space/x"],
    "platform_domain": ["example.com", f"{'a' * 60}.{'b' * 60}.com", "a.example.com"],
    "principal": ["writer", "arn:aws:iam:::user/p123:ABC", "arn:aws:iam::tenant:user/writer"],
    "registry": ["docker.io", "registry.example.com:5000/mirror"],
    "served_name": ["*.apps.example.com", "rancher.example.com", f"{'a' * 63}.example.com"],
    "time": ["00:00", "23:59"],
    "url": ["http://deb.debian.org/debian", "https://10.0.0.1:8443/x"],
}
BAD: dict[str, list[str]] = {
    "api_url": [
        "https://api.hetzner.cloud",
        "ftp://x/v1",
        "https:///v1",
        "https://a b/v1",
        "https://u:p@example.com/v1",
    ],
    "apiserver_argument": ["v", "--v=4", "v=", "=4"],
    "bucket": ["ab", "Backup", "a..b", "10.0.0.1", "-a-", "a" * 64],
    "calendar": ["6", "Sunday 25:00", "Funday", "13-40", "*:60", "Sun..", "daily 01:00", "*-13-01", "0 */6 * * *"],
    "ceph_image": ["quay.io/ceph/ceph:v20", "quay.io/ceph/ceph", "quay.io/ceph/ceph@sha256:0"],
    "ceph_pool": [".rgw", "a b", "a/b", "a@b"],
    "cidr": ["198.51.100.7", "10.0.0.1/24", "0.0.0.0/33"],
    "cron": [
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "5-1 * * * *",
        "*/0 * * * *",
    ],
    "containerd_config": ["[plugins", "version = 2", "restrict_oom_score_adj: true"],
    "dns_name": ["example", "ex_ample.com", f"{'a' * 64}.com", "example.com.", ".".join(["a" * 60] * 5) + ".com"],
    "https_url": ["http://s3.example.net", "https://"],
    "listen_address": ["::", "[10.0.0.1]", "localhost"],
    "node_label": ["node-role.kubernetes.io/worker=true", "a.k8s.io/b=c", "disk", "-a=b", f"a={'b' * 64}"],
    "node_taint": ["dedicated=ci", "dedicated=ci:Never"],
    "path": ["../x", "a/../b", "x\ny", " x", "x/" + "y" * 256],
    "platform_domain": [".".join(["a" * 60] * 4) + ".com"],
    "principal": ["../x", "arn:aws:s3:::x", "a b"],
    "registry": ["https://docker.io", "docker.io:"],
    "served_name": ["a.*.com", "*", f"{'a' * 60}.{'b' * 60}.com"],
    "time": ["24:00", "4:00", "04:60"],
    "url": ["deb.debian.org/debian", "https://example.com/?a=b", "https://exa_mple.com"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GOOD.items() for text in texts])
def test_a_format_accepts_what_the_program_accepts(name: str, text: str) -> None:
    assert FORMATS[name](text) is None


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_format_rejects_what_the_program_rejects(name: str, text: str) -> None:
    problem = FORMATS[name](text)
    assert problem is not None
    assert problem[0] and problem[1].endswith((".", "?", "…."))


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("kubelet_config", {"maxPods": 200, "evictionHard": {"memory.available": "5%"}}, None),
        ("kubelet_config", {"authentication": {"anonymous": {"enabled": False}}, "failCgroupV1": False}, None),
        (
            "kubelet_config",
            {"shutdownGracePeriod": "1m30s", "systemReserved": {"memory": "512Mi", "cpu": "250m"}},
            None,
        ),
        ("kubelet_config", {"maxPods": "200"}, ".maxPods"),
        ("kubelet_config", {"maxPod": 200}, ".maxPod"),
        ("kubelet_config", {"authentication": {"anonymus": {}}}, ".authentication.anonymus"),
        ("kubelet_config", {"shutdownGracePeriod": 30}, ".shutdownGracePeriod"),
        ("kubelet_config", {"systemReserved": {"memory": "512 MB"}}, ".systemReserved.memory"),
        ("kubelet_config", {"maxPods": None}, ".maxPods"),
        ("kubelet_config", {"featureGates": {"A": "true"}}, ".featureGates"),
        ("etcd_arguments", ["heartbeat-interval=100", "election-timeout=1000", "quota-backend-bytes=8589934592"], None),
        ("etcd_arguments", ["election-timeout=1000"], ""),
        ("etcd_arguments", ["heartbeat-interval=250", "election-timeout=1000"], ""),
        ("etcd_arguments", ["heartbeat-interval=20000", "election-timeout=100000"], ""),
        ("etcd_arguments", ["hearbeat-interval=100"], "[0]"),
        ("etcd_arguments", ["max-wals=many"], "[0]"),
        ("etcd_arguments", ["data-dir=/tmp"], "[0]"),
        ("postgresql_settings", {"work_mem": "64MB", "jit": "off", "pg_stat_statements.max": 1000}, None),
        ("postgresql_settings", {"wrok_mem": "64MB"}, ".wrok_mem"),
        ("postgresql_settings", {"jit": False}, ".jit"),
        ("postgresql_settings", {"work_mem": "1MB\nfsync = off"}, ".work_mem"),
        ("audit_rules", [{"level": "Metadata", "omitStages": ["RequestReceived"]}], None),
        ("audit_rules", [{"level": "All"}], "[0].level"),
        ("audit_rules", [{"level": "None", "verb": ["get"]}], "[0].verb"),
        ("audit_rules", [{"level": "None", "verbs": "get"}], "[0].verbs"),
        ("ceph_config", {"global": {"osd_pool_default_pg_num": 8}, "client.rgw.s3": {"rgw_gc_max_objs": 1}}, None),
        ("ceph_config", {"osds": {"a_b_c": 1}}, ".osds"),
        ("ceph_config", {"osd": {"osd_max_backfills": [1]}}, ".osd.osd_max_backfills"),
        ("ceph_caps", {"mon": "allow r", "osd": "profile rbd pool=kubernetes namespace=prod"}, None),
        ("ceph_caps", {"mon": "everything"}, ".mon"),
        ("host_addresses", {"rgw.example.com": ["10.40.1.51", "10.40.1.52"], "x.example.com": "10.40.1.1"}, None),
        ("host_addresses", {"rgw.example.com": ["10.40.1"]}, ".rgw.example.com"),
        (
            "registries",
            {"mirrors": {"docker.io": {"endpoint": ["https://m.example.com"]}}, "configs": {"a:5000": {}}},
            None,
        ),
        ("registries", {"mirror": {}}, ".mirror"),
        ("registries", {"configs": {"docker.io": {"password": "x"}}}, ".configs.docker.io"),
        ("sysctls", {"net.ipv4.tcp_syncookies": 1, "vm.swappiness": "10"}, None),
        ("sysctls", {"swappiness": 1}, ".swappiness"),
    ],
)
def test_structures(name: str, value: Any, where: str | None) -> None:
    found = [path for path, _, _ in STRUCTURES[name](value)]
    assert found == ([] if where is None else [where])


def test_the_tables_of_fields_are_complete() -> None:
    assert len(KUBELET_TYPES) > 120 and KUBELET_TYPES["memorySwap.swapBehavior"] == "text"
    assert len(ETCD_TYPES) > 50 and ETCD_TYPES["heartbeat-interval"] == "int"
