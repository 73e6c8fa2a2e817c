"""Which OSDs are created, which are started, and what is still unmet."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_osd_plan as plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph_osd_plan import Wanted

PATH = "/dev/disk/by-id/scsi-0HC_Volume_"
ACTIVATE, APPLY = ("cephadm", "osd", "activate", "one"), ("orch", "apply")


def disk(volume: int, verdict: str = "empty", number: int | None = None, device: str = "/dev/sdb") -> dict[str, Any]:
    uuid = None if number is None else f"uuid-{number}"
    return {"path": f"{PATH}{volume}", "device": device, "verdict": verdict, "osd_id": number, "osd_uuid": uuid}


def osd(number: int, *states: str, host: str = "one", devices: str = "sdb", out: bool = False) -> dict[str, Any]:
    return {"number": number, "states": states, "host": host, "devices": devices, "out": out}


def view(*osds: dict[str, Any], specs: tuple[Any, ...] = (), daemons: dict[int, str] | None = None) -> dict[str, Any]:
    """Answers of a cluster in Ceph's format, through the parser."""
    return plan.parse_osds(
        {
            "osds": [
                {
                    "osd": one["number"],
                    "uuid": f"uuid-{one['number']}",
                    "up": int("up" in one["states"]),
                    "in": int(not one["out"]),
                    "state": ["exists", *one["states"]],
                }
                for one in osds
            ]
        },
        [
            {
                "id": one["number"],
                "hostname": one["host"],
                "devices": one["devices"],
                "bluestore_bdev_dev_node": "/dev/" + one["devices"],
            }
            for one in osds
            if "up" in one["states"]
        ],
        {"nodes": [{"type": "host", "name": one["host"], "children": [one["number"]]} for one in osds]},
        list(specs),
        [
            {"daemon_name": f"osd.{number}", "hostname": "one", "status_desc": status}
            for number, status in (daemons or {}).items()
        ],
    )


def wanted(*disks: dict[str, Any], method: str = "raw", **more: Any) -> Wanted:
    return Wanted({"one": list(disks)}, method=method, **more)


def kept(*disks: dict[str, Any], method: str = "raw") -> dict[str, Any]:
    """The spec as the orchestrator exports it."""
    paths = [{"path": one["path"]} for one in disks]
    inner = {"data_devices": {"paths": paths}, "filter_logic": "AND", "objectstore": "bluestore"}
    return {
        "service_type": "osd",
        "service_id": "one",
        "service_name": "osd.one",
        "placement": {"hosts": ["one"]},
        "unmanaged": True,
        "spec": inner | ({"method": "raw"} if method == "raw" else {}),
    }


def test_an_osd_is_created_on_each_empty_disk_and_on_no_other() -> None:
    steps = plan.creation_steps(view(osd(0, "up")), wanted(disk(1, "osd", 0), disk(2)))
    assert [step.command for step in steps] == [APPLY]
    assert steps[0].summary == "create OSDs on scsi-0HC_Volume_2 of one"
    spec = json.loads(steps[0].input or "")
    assert spec["service_id"] == "one"
    assert spec["placement"] == {"hosts": ["one"]}
    assert spec["spec"]["data_devices"] == {"paths": [f"{PATH}1", f"{PATH}2"]}
    assert spec["spec"]["method"] == "raw"
    assert "unmanaged" not in spec


def test_all_hosts_are_in_one_command() -> None:
    steps = plan.creation_steps(
        view(), Wanted({"one": [disk(1)], "two": [disk(2)], "none": []}, method="lvm", encrypted=True)
    )
    assert [step.command for step in steps] == [APPLY]
    specs = [json.loads(text) for text in (steps[0].input or "").split("---\n")]
    assert [spec["service_id"] for spec in specs] == ["one", "two"]
    assert all(spec["spec"]["encrypted"] is True and spec["spec"]["method"] == "lvm" for spec in specs)


def test_a_disk_to_wipe_gets_an_osd() -> None:
    assert plan.creation_steps(view(), wanted(disk(1, "wipe")))[0].command == APPLY


def test_no_step_without_drift() -> None:
    disks = disk(1, "osd", 0), disk(2, "osd", 1)
    for method in ("raw", "lvm"):
        seen = view(osd(0, "up"), osd(1, "up"), specs=(kept(*disks, method=method),))
        assert plan.creation_steps(seen, wanted(*disks, method=method)) == []
        assert plan.unmanage_steps(seen, wanted(*disks, method=method)) == []
        assert plan.unmet(seen, wanted(*disks, method=method)) == []


def test_a_missing_daemon_is_redeployed_and_a_stopped_one_started() -> None:
    steps = plan.creation_steps(
        view(osd(0), osd(1), osd(2), daemons={1: "stopped"}),
        wanted(disk(1, "osd", 0), disk(2, "osd", 1), disk(3, "osd", 2)),
    )
    assert [step.command for step in steps] == [ACTIVATE, ("orch", "daemon", "restart", "osd.1")]
    assert steps[0].summary == "redeploy the daemons of osd.0, osd.2 of one"


def test_a_destroyed_osd_is_purged_where_cephadm_cannot_reuse_its_id() -> None:
    seen = view(osd(0, "destroyed"), osd(1, "destroyed", host="two"), osd(2, "up"))
    steps = plan.creation_steps(seen, wanted(disk(7)))
    assert [step.command[:3] for step in steps] == [("osd", "purge", "0"), APPLY[:3]]
    assert [step.command for step in plan.creation_steps(seen, wanted(disk(7), method="lvm"))] == [APPLY]
    assert plan.creation_steps(seen, wanted(disk(7, "osd", 2))) == []


@pytest.mark.parametrize(
    "have",
    [
        (),
        ({**kept(disk(1, "osd", 0)), "unmanaged": False},),
        (kept(disk(1, "osd", 0), disk(2, "osd", 3)),),
    ],
)
def test_afterwards_the_services_are_unmanaged(have: tuple[Any, ...]) -> None:
    steps = plan.unmanage_steps(view(osd(0, "up"), specs=have), wanted(disk(1, "osd", 0)))
    assert [step.command for step in steps] == [APPLY]
    assert json.loads(steps[0].input or "")["unmanaged"] is True


def test_a_service_that_uses_every_disk_is_a_fault() -> None:
    greedy = {"service_type": "osd", "service_id": "all-available-devices", "spec": {"data_devices": {"all": True}}}
    found = plan.faults(view(specs=(greedy,)), wanted(disk(1)))
    assert found[0].startswith("osd.all-available-devices: this service creates an OSD on every available disk")
    assert plan.faults(view(specs=({**greedy, "unmanaged": True},)), wanted(disk(1))) == []


def test_only_logical_volumes_are_encrypted() -> None:
    found = plan.faults(view(), wanted(disk(1), encrypted=True))
    assert "cephadm encrypts logical volumes only" in found[0]
    assert plan.faults(view(), wanted(disk(1), method="lvm", encrypted=True)) == []


def test_a_copy_of_a_disk_that_runs_elsewhere_is_a_fault() -> None:
    found = plan.faults(view(osd(0, "up", host="two")), wanted(disk(1, "osd", 0)))
    assert "which runs on two; one of the two disks is a copy" in found[0]


UNMET = {
    "not made": (view(), disk(1), "scsi-0HC_Volume_1 of one is not an OSD yet"),
    "made elsewhere": (view(osd(0, "up", host="two")), disk(1), "is not an OSD yet"),
    "made of another disk": (view(osd(0, "up", devices="sdc")), disk(1), "is not an OSD yet"),
    "unknown": (view(), disk(1, "osd", 4), "osd.4 (scsi-0HC_Volume_1 of one) is not in the OSD map"),
    "down": (view(osd(0), daemons={0: "error"}), disk(1, "osd", 0), "is down (error)"),
    "no daemon": (view(osd(0)), disk(1, "osd", 0), "is down (without a daemon)"),
    "out": (view(osd(0, "up", out=True)), disk(1, "osd", 0), "is out; `ceph osd in 0`"),
    "made and out": (view(osd(0, "up", out=True)), disk(1), "is out"),
}


@pytest.mark.parametrize("case", UNMET)
def test_unmet_requirements(case: str) -> None:
    seen, one, message = UNMET[case]
    found = plan.unmet(seen, wanted(one))
    assert len(found) == 1
    assert message in found[0]


def test_a_new_osd_is_identified_by_its_disk() -> None:
    assert plan.unmet(view(osd(5, "up", devices="sdb")), wanted(disk(1))) == []
    assert plan.unmet(view(osd(5, "up", devices="loop7")), wanted(disk(1, device="/dev/loop7"))) == []
