"""Which OSDs are made, which are brought back, and what is waited for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import ceph_osd_plan as plan
from ansible_collections.slipway.platform.plugins.module_utils.ceph_osd_plan import Wanted

PATH = "/dev/disk/by-id/scsi-0HC_Volume_"
ACTIVATE, APPLY = ("cephadm", "osd", "activate", "one"), ("orch", "apply")


def disk(volume: int, verdict: str = "blank", number: int | None = None, device: str = "/dev/sdb") -> dict[str, Any]:
    uuid = None if number is None else f"uuid-{number}"
    return {"path": f"{PATH}{volume}", "device": device, "verdict": verdict, "osd_id": number, "osd_uuid": uuid}


def osd(number: int, *states: str, host: str = "one", devices: str = "sdb", out: bool = False) -> dict[str, Any]:
    return {"number": number, "states": states, "host": host, "devices": devices, "out": out}


def view(*osds: dict[str, Any], specs: tuple[Any, ...] = (), daemons: dict[int, str] | None = None) -> dict[str, Any]:
    """A cluster's answers as Ceph words them, through the reader."""
    return plan.view_of(
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


def test_an_osd_is_made_of_each_blank_disk_and_of_no_other() -> None:
    steps = plan.creation(view(osd(0, "up")), wanted(disk(1, "osd", 0), disk(2)))
    assert [step.command for step in steps] == [APPLY]
    assert steps[0].sentence == "make an OSD of scsi-0HC_Volume_2 on one"
    spec = json.loads(steps[0].input or "")
    assert spec["service_id"] == "one"
    assert spec["placement"] == {"hosts": ["one"]}
    assert spec["spec"]["data_devices"] == {"paths": [f"{PATH}1", f"{PATH}2"]}
    assert spec["spec"]["method"] == "raw"
    assert "unmanaged" not in spec


def test_all_hosts_are_told_at_once() -> None:
    steps = plan.creation(
        view(), Wanted({"one": [disk(1)], "two": [disk(2)], "none": []}, method="lvm", encrypted=True)
    )
    assert [step.command for step in steps] == [APPLY]
    specs = [json.loads(text) for text in (steps[0].input or "").split("---\n")]
    assert [spec["service_id"] for spec in specs] == ["one", "two"]
    assert all(spec["spec"]["encrypted"] is True and spec["spec"]["method"] == "lvm" for spec in specs)


def test_what_would_be_blanked_would_be_made() -> None:
    assert plan.creation(view(), wanted(disk(1, "wipe")))[0].command == APPLY


def test_nothing_is_done_when_all_is_well() -> None:
    disks = disk(1, "osd", 0), disk(2, "osd", 1)
    for method in ("raw", "lvm"):
        seen = view(osd(0, "up"), osd(1, "up"), specs=(kept(*disks, method=method),))
        assert plan.creation(seen, wanted(*disks, method=method)) == []
        assert plan.settling(seen, wanted(*disks, method=method)) == []
        assert plan.unmet(seen, wanted(*disks, method=method)) == []


def test_an_osd_without_a_daemon_gets_one_and_a_stopped_one_is_started() -> None:
    steps = plan.creation(
        view(osd(0), osd(1), osd(2), daemons={1: "stopped"}),
        wanted(disk(1, "osd", 0), disk(2, "osd", 1), disk(3, "osd", 2)),
    )
    assert [step.command for step in steps] == [ACTIVATE, ("orch", "daemon", "restart", "osd.1")]
    assert steps[0].sentence == "give osd.0, osd.2 of one a daemon again"


def test_a_destroyed_osd_gives_way_to_its_successor_where_cephadm_cannot_hand_on_its_number() -> None:
    seen = view(osd(0, "destroyed"), osd(1, "destroyed", host="two"), osd(2, "up"))
    steps = plan.creation(seen, wanted(disk(7)))
    assert [step.command[:3] for step in steps] == [("osd", "purge", "0"), APPLY[:3]]
    assert [step.command for step in plan.creation(seen, wanted(disk(7), method="lvm"))] == [APPLY]
    assert plan.creation(seen, wanted(disk(7, "osd", 2))) == []


@pytest.mark.parametrize(
    "have",
    [
        (),
        ({**kept(disk(1, "osd", 0)), "unmanaged": False},),
        (kept(disk(1, "osd", 0), disk(2, "osd", 3)),),
    ],
)
def test_afterwards_cephadm_leaves_the_disks_alone(have: tuple[Any, ...]) -> None:
    steps = plan.settling(view(osd(0, "up"), specs=have), wanted(disk(1, "osd", 0)))
    assert [step.command for step in steps] == [APPLY]
    assert json.loads(steps[0].input or "")["unmanaged"] is True


def test_a_service_that_takes_every_disk_stops_the_run() -> None:
    greedy = {"service_type": "osd", "service_id": "all-available-devices", "spec": {"data_devices": {"all": True}}}
    found = plan.faults(view(specs=(greedy,)), wanted(disk(1)))
    assert found[0].startswith("The service osd.all-available-devices makes an OSD of every disk")
    assert plan.faults(view(specs=({**greedy, "unmanaged": True},)), wanted(disk(1))) == []


def test_only_logical_volumes_are_encrypted() -> None:
    found = plan.faults(view(), wanted(disk(1), encrypted=True))
    assert "cephadm encrypts logical volumes only" in found[0]
    assert plan.faults(view(), wanted(disk(1), method="lvm", encrypted=True)) == []


def test_a_copy_of_a_disk_that_runs_elsewhere_stops_the_run() -> None:
    found = plan.faults(view(osd(0, "up", host="two")), wanted(disk(1, "osd", 0)))
    assert "which runs on two: one of the two disks is a copy" in found[0]


UNMET = {
    "not made": (view(), disk(1), "scsi-0HC_Volume_1 of one is no OSD yet"),
    "made elsewhere": (view(osd(0, "up", host="two")), disk(1), "is no OSD yet"),
    "made of another disk": (view(osd(0, "up", devices="sdc")), disk(1), "is no OSD yet"),
    "unknown": (view(), disk(1, "osd", 4), "osd.4 (scsi-0HC_Volume_1 of one) is not known to the cluster"),
    "down": (view(osd(0), daemons={0: "error"}), disk(1, "osd", 0), "is down (error)"),
    "no daemon": (view(osd(0)), disk(1, "osd", 0), "is down (without a daemon)"),
    "out": (view(osd(0, "up", out=True)), disk(1, "osd", 0), "is out: somebody set it so, and `ceph osd in 0`"),
    "made and out": (view(osd(0, "up", out=True)), disk(1), "is out"),
}


@pytest.mark.parametrize("case", UNMET)
def test_what_is_waited_for(case: str) -> None:
    seen, one, sentence = UNMET[case]
    found = plan.unmet(seen, wanted(one))
    assert len(found) == 1
    assert sentence in found[0]


def test_a_new_osd_is_known_by_its_disk() -> None:
    assert plan.unmet(view(osd(5, "up", devices="sdb")), wanted(disk(1))) == []
    assert plan.unmet(view(osd(5, "up", devices="loop7")), wanted(disk(1, device="/dev/loop7"))) == []
