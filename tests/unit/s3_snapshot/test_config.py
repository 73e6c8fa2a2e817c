"""The files of a host that are saved while programs write them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import waiting
from slipway_snapshot import config
from slipway_snapshot.config import SnapshotError
from slipway_snapshot.run import Run

from tests.unit.s3_snapshot.test_restore import Memory, bucket_of


@pytest.fixture
def store() -> Memory:
    return Memory(**{"prod-backup": {}})


@pytest.fixture
def run(store: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(config, "encryption", lambda recipient: [["cat"]])
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: None)
    (tmp_path / "files").mkdir()
    options = {"paths": [str(tmp_path / "files")], "keep": 7}
    return Run("config", "prod", "server-1", "10.0.0.1", "age1x", options, bucket_of(store, "prod-backup"))


def tar(exit_codes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tar that ends with each of these in turn, and at the end with the last; the path of its log."""
    log, program = tmp_path / "log", tmp_path / "bin/tar"
    program.parent.mkdir()
    cases = "\n".join(f"{number}) exit {code};;" for number, code in enumerate(exit_codes, start=1))
    program.write_text(
        f"#!/bin/sh\necho run >> {shlex.quote(str(log))}\necho content\necho tar: a: file changed as we read it >&2\n"
        f"case $(wc -l < {shlex.quote(str(log))}) in\n{cases}\nesac\nexit {exit_codes[-1]}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return log


def test_files_that_change_meanwhile_are_saved_again(
    run: Run, store: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tar([1, 1, 0], tmp_path, monkeypatch)
    config.execute(run)
    assert log.read_text() == "run\n" * 3
    assert run.newest is not None and store.buckets["prod-backup"][run.newest.object] == b"content\n"


def test_another_failure_ends_the_run_at_once(
    run: Run, store: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tar([2], tmp_path, monkeypatch)
    with pytest.raises(SnapshotError, match=r"tar failed \(2\): tar: a: file changed as we read it"):
        config.execute(run)
    assert log.read_text() == "run\n" and store.buckets["prod-backup"] == {}
