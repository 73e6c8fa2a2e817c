"""A cluster of three hosts, read from one of them, and a client with access to one pool."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.deadlines import until
from tests.support.inventory import Inventory

EXPECTED = {"AUTH_INSECURE_CLIENT_KEY_TYPE", "AUTH_INSECURE_KEYS_ALLOWED", "AUTH_INSECURE_KEYS_CREATABLE"}


@dataclass(frozen=True)
class Cluster:
    """The cluster, read on the host of its first monitor."""

    host: Host
    hosts: list[str]
    fsid: str

    @property
    def monitor(self) -> str:
        return f"ceph-{self.fsid}-mon-{self.hosts[0]}"

    def query(self, command: str) -> Any:
        """Output of a command in the monitor's container, with the monitor's key."""
        with self.host.sudo():
            return json.loads(
                self.host.check_output(
                    f"podman exec {self.monitor} ceph --connect-timeout 20 --format json --name mon. "
                    f"--keyring /var/lib/ceph/mon/ceph-{self.hosts[0]}/keyring {command}"
                )
            )

    def wait_for(self, command: str, condition: Callable[[Any], bool]) -> Any:
        """The first output for which the condition holds: transient warnings clear by themselves."""
        return until(lambda: self.query(command), 120, condition, pause=2)

    def journal(self) -> str:
        with self.host.sudo():
            return str(self.host.check_output(f"journalctl -u 'ceph-{self.fsid}@*' -n 40 --no-pager"))


@pytest.fixture(scope="module")
def cluster(inventory: Inventory) -> Cluster:
    hosts = inventory.group("ceph")
    return Cluster(inventory.host(hosts[0]), hosts, inventory.settings["ceph_fsid"])


def test_the_cluster_is_healthy_and_no_other_warning_is_muted(cluster: Cluster) -> None:
    health = cluster.wait_for("health detail", lambda health: health["status"] == "HEALTH_OK")
    assert {mute["code"] for mute in health["mutes"]} == EXPECTED


def test_three_monitors_and_two_managers_run_on_their_hosts(cluster: Cluster) -> None:
    status = cluster.wait_for("status", lambda status: status["mgrmap"]["num_standbys"] == 1)
    assert sorted(status["quorum_names"]) == cluster.hosts
    daemons = [daemon for daemon in cluster.query("orch ps") if daemon["daemon_type"] in ("mon", "mgr")]
    placed = sorted((daemon["daemon_type"], daemon["hostname"]) for daemon in daemons)
    assert placed == [("mgr", name) for name in cluster.hosts[:2]] + [("mon", name) for name in cluster.hosts]


def test_every_host_has_an_osd_that_is_up_and_in(cluster: Cluster) -> None:
    tree = cluster.query("osd tree")
    up = {
        node["id"]
        for node in tree["nodes"]
        if node["type"] == "osd" and node["status"] == "up" and node["reweight"] > 0
    }
    hosts = {node["name"]: node["children"] for node in tree["nodes"] if node["type"] == "host"}
    assert sorted(hosts) == cluster.hosts
    assert all(len(children) == 1 and set(children) <= up for children in hosts.values())


def test_traffic_is_encrypted_and_clients_are_authenticated(cluster: Cluster) -> None:
    config = {(entry["section"], entry["name"]): entry["value"] for entry in cluster.query("config dump")}
    for mode in ("cluster", "service", "client", "mon_cluster", "mon_service", "mon_client"):
        assert config["global", f"ms_{mode}_mode"] == "secure"
    assert config["mon", "auth_allow_insecure_global_id_reclaim"] == "false"


def test_keys_have_the_declared_types(cluster: Cluster, inventory: Inventory) -> None:
    monmap = cluster.query("mon dump")
    assert {cipher["name"] for cipher in monmap["auth_allowed_ciphers"]} == {"aes", "aes256k"}
    assert monmap["auth_preferred_cipher"]["name"] == monmap["auth_service_cipher"]["name"] == "aes256k"
    keys = {entry["entity"]: entry["key"] for entry in cluster.query("auth ls")["auth_dump"]}
    # The first bytes of a key are its type: AQ is aes, Ag is aes256k.
    assert {entity for entity, key in keys.items() if key.startswith("AQ")} == {
        f"client.{name}" for name in inventory.settings["ceph_clients"]
    }
    assert keys["client.admin"].startswith("Ag")


def rados(cluster: Cluster, monitor: str, keyring: str, command: str) -> Any:
    """rados in a container with only the client's key and the address of a monitor."""
    host = cluster.host
    with host.sudo():
        image = host.check_output(f"podman inspect --format '{{{{.ImageName}}}}' {cluster.monitor}")
        inner = f"cat >/tmp/k && rados --name client.trial --keyring /tmp/k -m {monitor}:3300 {command}"
        return host.run(
            "printf '%%s' %s | podman run --rm -i --net=host --entrypoint sh %s -c %s", keyring, image, inner
        )


@pytest.mark.scenario("tests/platform/test_ceph_csi.py tests the clients of the site")
def test_a_client_has_access_to_its_pool_only(cluster: Cluster, inventory: Inventory) -> None:
    keyring = Path(inventory.settings["platform_state_dir"], "ceph/ceph.client.trial.keyring").read_text()
    monitor = inventory.address(cluster.hosts[0])
    written = rados(cluster, monitor, keyring, "--pool trial put hello /etc/hostname")
    assert written.rc == 0, written.stderr + cluster.journal()
    assert rados(cluster, monitor, keyring, "--pool trial get hello -").stdout.strip()
    assert rados(cluster, monitor, keyring, "--pool .mgr ls").rc != 0
    assert rados(cluster, monitor, keyring, "--pool trial rm hello").rc == 0


def test_metrics_are_exported(cluster: Cluster, inventory: Inventory) -> None:
    def metrics() -> str:
        """Metrics of the active manager; a standby exports none."""
        active = str(cluster.query("mgr dump")["active_name"]).split(".")[0]
        url = f"http://{inventory.address(active)}:9283/metrics"
        return str(cluster.host.run(f"curl --silent --max-time 30 {url}").stdout)

    until(metrics, 60, lambda shown: "ceph_health_status" in shown)
