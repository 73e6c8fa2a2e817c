"""The benchmark of restores: how much it fills, what it reads, and that it does not fill a disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.bench import restore
from lab.settings import Settings


def test_the_database_is_filled_up_to_its_size() -> None:
    assert restore.missing_rows(400_000_000, 1) * restore.ROW_BYTES == pytest.approx(600_000_000, rel=1e-5)
    assert restore.missing_rows(1_100_000_000, 1) == 0


def test_the_newest_backup_is_what_a_restore_moves() -> None:
    sizes = [{"info": {"repository": {"size": size}}} for size in (9, 7)]
    assert restore.moved_bytes(json.dumps([{"backup": sizes}])) == 7


def test_the_figures_name_their_size() -> None:
    report = {"bytes": 1_000_000_000, "rto_seconds": 40.0, "fetch_seconds": 20.0}
    found = {figure.name: (figure.value, figure.unit) for figure in restore.figures(report, 500_000_000, 1)}
    assert found == {
        "restore of 1 GB, until the database accepts connections": (40.0, "s"),
        "restore of 1 GB, bytes from the bucket": (500.0, "MB"),
        "restore of 1 GB, data per second": (50.0, "MB/s"),
    }


def test_the_volume_grows_only_if_it_is_smaller(tmp_path: Path) -> None:
    inventory = tmp_path / "lab"
    inventory.mkdir()
    volumes = {"provision_volumes": [{"name": "data", "size_gb": 10}]}
    hosts = {"all": {"children": {"postgresql": {"vars": volumes}}}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    played: list[tuple[str, int]] = []

    def play(playbook: str, used: Path) -> None:
        used_hosts: dict[str, Any] = yaml.safe_load((used / "hosts.yml").read_text())
        (volume,) = used_hosts["all"]["children"]["postgresql"]["vars"]["provision_volumes"]
        assert used.name == "lab", "the folder has the environment's name"
        played.append((playbook, volume["size_gb"]))

    restore.grow_volume(inventory, play, 8)
    assert played == []
    restore.grow_volume(inventory, play, 35)
    assert played == [("playbooks/provision.yml", 35), ("playbooks/postgresql.yml", 35)]


def test_a_size_that_the_disk_cannot_hold_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = replace(Settings("bench", 7), state_root=tmp_path)
    huge = 10**6
    assert list(restore.restores(settings, tmp_path, lambda *_: pytest.fail("a play was run"), [huge])) == []
    assert f"the restore of {huge} GB is not measured" in capsys.readouterr().err
