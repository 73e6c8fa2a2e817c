"""Restore drills: the programs that they use, and the canary that they read."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.snapshot_bucket import SnapshotError
from slipway_snapshot import drill, etcd, state

NOW = 1_800_000_000


def process(processes: Path, number: int, program: str, *beside: str) -> None:
    folder = processes / str(number)
    (folder / "root/usr/local/bin").mkdir(parents=True)
    (folder / "exe").symlink_to(program)
    for name in beside:
        (folder / "root/usr/local/bin" / name).touch()


def test_the_programs_are_those_of_the_running_etcd(tmp_path: Path) -> None:
    process(tmp_path, 1, "/usr/local/bin/kubelet")
    process(tmp_path, 2, "/usr/local/bin/etcd", "etcd", "etcdctl", "other")
    folder = tmp_path / "2/root/usr/local/bin"
    assert drill.etcd_programs(tmp_path) == {"etcd": folder / "etcd", "etcdctl": folder / "etcdctl"}


def test_without_a_running_etcd_there_is_no_drill(tmp_path: Path) -> None:
    process(tmp_path, 1, "/usr/local/bin/kubelet")
    with pytest.raises(SnapshotError, match="no etcd runs on this host"):
        drill.etcd_programs(tmp_path)


@pytest.mark.parametrize(("names", "used"), [(("etcdctl",), "etcdctl"), (("etcdctl", "etcdutl"), "etcdutl")])
def test_the_program_that_restores_depends_on_the_version(names: tuple[str, ...], used: str) -> None:
    programs = {name: Path("/bin") / name for name in names}
    assert drill.restore_command(programs, Path("/s"), Path("/d"))[0] == f"/bin/{used}"


def test_a_client_of_etcd_is_required() -> None:
    with pytest.raises(SnapshotError, match="etcdctl or etcdutl is missing"):
        drill.restore_command({"etcdutl": Path("/bin/etcdutl")}, Path("/s"), Path("/d"))


@pytest.mark.parametrize(
    ("content", "time"),
    [
        ('{"data":{"written":"2026-11-30T21:41:28Z"}}', "2026-11-30T21:41:28Z"),
        ("k8s\0\n\x07written\x12\x142026-11-30T21:41:28Z\x1a", "2026-11-30T21:41:28Z"),
        ("k8s\0", None),
    ],
    ids=["JSON", "binary", "none"],
)
def test_the_time_of_the_canary(content: str, time: str | None) -> None:
    assert etcd.canary_time(content) == time


def test_a_value_of_etcd_need_not_be_utf_8() -> None:
    """Kubernetes stores protobuf; a length of 77 bytes and more has a byte that UTF-8 does not allow there."""
    output = drill.require(["printf", r"k8s\0\n\315\001\n\007written\022\0242026-11-30T21:41:28Z\032"])
    assert etcd.canary_time(output) == "2026-11-30T21:41:28Z"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"running": NOW - 60}, None),
        ({"running": NOW - 2 * state.DAY}, "ended without a result"),
        ({"running": NOW - 60, "began": NOW - 5 * state.DAY, "ok": True, "good": NOW - 5 * state.DAY}, None),
    ],
    ids=["the first one runs", "killed", "another one runs"],
)
def test_a_drill_that_was_killed_is_a_finding(result: dict[str, object], words: str | None) -> None:
    found = state.drill_findings("etcd", 30, result, NOW, NOW)
    assert (found == []) if words is None else (words in found[0])
