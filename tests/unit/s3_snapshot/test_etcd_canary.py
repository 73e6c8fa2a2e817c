"""The canary that the servers write into the cluster before each snapshot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils import rke2_read, waiting
from slipway_snapshot import etcd
from slipway_snapshot.etcd import SnapshotError

Answer = tuple[int, str] | Exception
PRESENT, ABSENT, CREATED, EXISTS = (200, "{}"), (404, ""), (201, "{}"), (409, "already exists")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the requests."""
    (tmp_path / "rke2").mkdir()
    (tmp_path / "rke2/rke2.yaml").write_text("")
    monkeypatch.setattr(rke2_read, "ETC", tmp_path)
    names = ("server", "certificate-authority", "client-certificate", "client-key")
    monkeypatch.setattr(rke2_read, "parse_kubeconfig", lambda text: dict.fromkeys(names, ""))
    monkeypatch.setattr(rke2_read, "tls_context", lambda *files: None)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
    return []


def answer(answers: list[Answer], calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The API answers each request with the next of these, and at the end with the last."""

    def request(*words: Any, body: dict[str, Any], method: str = "POST") -> tuple[int, str]:
        calls.append(method)
        given = answers[min(len(calls), len(answers)) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(rke2_read, "request", request)


@pytest.mark.parametrize(
    ("answers", "methods"),
    [
        ([PRESENT], ["PUT"]),
        ([ABSENT, CREATED], ["PUT", "POST"]),
        ([ABSENT, EXISTS, PRESENT], ["PUT", "POST", "PUT"]),
        ([(503, "leader changed"), PRESENT], ["PUT", "PUT"]),
        ([TimeoutError("timed out"), PRESENT], ["PUT", "PUT"]),
    ],
    ids=["present", "absent", "another server creates it", "no leader", "busy"],
)
def test_the_canary_is_written(
    answers: list[Answer], methods: list[str], calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(answers, calls, monkeypatch)
    etcd.write_canary(0)
    assert calls == methods


@pytest.mark.parametrize(
    ("answers", "message", "most"),
    [
        ([(403, "forbidden")], "was rejected by the Kubernetes API: 403 forbidden", 1),
        ([ConnectionRefusedError("refused")], "cannot be written to the Kubernetes API: refused after", 10),
    ],
    ids=["permanent", "passing"],
)
def test_a_canary_that_cannot_be_written_fails_the_run(
    answers: list[Answer], message: str, most: int, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(answers, calls, monkeypatch)
    with pytest.raises(SnapshotError, match=message):
        etcd.write_canary(0)
    assert len(calls) <= most
