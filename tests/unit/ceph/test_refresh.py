"""A warning that lasts until cephadm reads the hosts again is not waited for a minute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.modules import ceph_cluster


class Exited(Exception):
    pass


class Cluster:
    """Has the warning until a refresh is requested."""

    def __init__(self, warning: str) -> None:
        self.warnings = {warning: "2 stray daemon(s) not managed by cephadm"}
        self.commands: list[list[str]] = []

    def run(self, command: list[str]) -> None:
        self.commands.append(command)
        self.warnings = {}


@pytest.mark.parametrize("warning", sorted(ceph_cluster.UNTIL_REFRESH))
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_warning_of_an_old_reading_requests_a_new_one(
    warning: str, check_mode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster: Any = Cluster(warning)
    ended: list[str] = []

    def exit_json(**_: Any) -> None:
        ended.append("healthy")

    def fail_json(**_: Any) -> None:
        ended.append("failed")
        raise Exited

    module: Any = SimpleNamespace(
        check_mode=check_mode,
        params={"fsid": "f", "version": "20.2.4", "timeout_seconds": 0 if check_mode else 5},
        exit_json=exit_json,
        fail_json=fail_json,
    )
    monkeypatch.setattr(ceph_cluster, "read_status", lambda found: {"warnings": found.warnings})
    monkeypatch.setattr(ceph_cluster, "unmet", lambda status, *_: list(status["warnings"]))
    monkeypatch.setattr(ceph_cluster, "POLL_SECONDS", 0.0)
    try:
        ceph_cluster.verify(module, cluster, SimpleNamespace())  # type: ignore[arg-type]
    except Exited:
        assert check_mode
    assert ended == ["failed" if check_mode else "healthy"]
    assert cluster.commands[:1] == ([] if check_mode else [["orch", "ps", "--refresh"]])
