"""Findings of verify about the storage cluster, from the results of each host."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.slipway.platform.plugins.filter.verify import storage_findings

from tests.static.repository import REPOSITORY

AGAIN = "Correct that and run playbooks/verify.yml for all hosts."
GATEWAYS: dict[str, Any] = {"__verify_gateway_probe": {"findings": []}}
EXPECTED = ["AUTH_INSECURE_KEYS_ALLOWED"]


@pytest.mark.parametrize(
    ("seen", "findings"),
    [
        ({"status": {"muted": EXPECTED}}, []),
        (
            {"status": {"muted": [*EXPECTED, "OSD_DOWN"]}},
            ["the Ceph health warning OSD_DOWN is muted, but not declared in verify_storage_expected_warnings"],
        ),
        ({"status": {"muted": []}, "unmet": ["1 of 3 OSDs are down"]}, ["seen from a, 1 of 3 OSDs are down"]),
        ({"unreachable": True}, ["a cannot be reached by SSH"]),
        ({"status": {}, "unmet": ["no monitor answers"], "failed": True}, ["seen from a, no monitor answers"]),
        ({"msg": "no daemon runs here"}, [f"a: a check has no result (no daemon runs here). {AGAIN}"]),
        ({"status": {"muted": []}, "failed": True, "msg": "boom"}, [f"a: a check has no result (boom). {AGAIN}"]),
        ({"status": {"health": "HEALTH_OK"}}, [f"a: a check has no result (it was not part of this run). {AGAIN}"]),
        ({"skipped": True}, [f"a: a check has no result (it was not part of this run). {AGAIN}"]),
        (None, [f"a: a check has no result (it was not part of this run). {AGAIN}"]),
    ],
)
def test_findings(seen: dict[str, Any] | None, findings: list[str]) -> None:
    hostvars = {"a": GATEWAYS | ({"__verify_storage_status": seen} if seen is not None else {})}
    assert storage_findings(hostvars, ["a"], EXPECTED) == findings


def test_a_host_without_a_result_is_a_finding() -> None:
    assert storage_findings({}, ["a"], EXPECTED) == [f"a: a check has no result (it was not part of this run). {AGAIN}"]


@pytest.mark.parametrize(
    ("probed", "findings"),
    [
        ({"findings": ["https://rgw.test/ does not answer"]}, ["https://rgw.test/ does not answer"]),
        ({"failed": True, "msg": "no python"}, [f"a: a check has no result (no python). {AGAIN}"]),
        (None, [f"a: a check has no result (it was not part of this run). {AGAIN}"]),
    ],
)
def test_findings_of_gateways(probed: dict[str, Any] | None, findings: list[str]) -> None:
    hostvars = {"a": {"__verify_storage_status": {"status": {"muted": []}}, "__verify_gateway_probe": probed}}
    assert storage_findings(hostvars, ["a"], EXPECTED) == findings


@pytest.mark.parametrize(("host", "verified"), [("ceph-1", True), ("store-1", True), ("server-1", False)])
def test_the_storage_of_the_platform_and_of_its_backups_is_verified(host: str, verified: bool) -> None:
    groups = {"rke2_server": ["server-1"], "ceph": ["ceph-1"], "object_storage": ["store-1"]}
    loader = DataLoader()
    playbook = str(REPOSITORY / "playbooks/verify.yml")
    (collect, _) = loader.load_from_file(playbook, trusted_as_template=True)
    known = {"inventory_hostname": host, "groups": groups | {"all": ["server-1", "ceph-1", "store-1"]}, "hostvars": {}}
    services = Templar(loader, variables=collect["vars"] | known).template(collect["vars"]["services"])
    assert ("storage" in services) == verified


@pytest.mark.parametrize(("hosts", "monitors"), [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3)])
def test_a_result_is_expected_of_hosts_with_a_monitor(hosts: int, monitors: int) -> None:
    names = [f"store-{number}" for number in range(hosts)]
    loader = DataLoader()
    variables = loader.load_from_file(str(REPOSITORY / "roles/verify/vars/main.yml"), trusted_as_template=True)
    known = {"verify_storage_addresses": dict.fromkeys(names, ""), "verify_object_storage_hosts": names}
    templar = Templar(loader, variables=known)
    for part in ("storage", "object_storage"):
        assert templar.template(variables[f"__verify_{part}_monitors"]) == names[:monitors]
