"""The program of the helm job's container, with a helm that only records how it was called."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.kubernetes import helm_job

HELM = """#!/bin/sh
echo "$*" >> "$CALLS"
[ "$1" = status ] || exit 0
[ -n "$STATUS" ] || { echo "Error: release: not found" >&2; exit 1; }
echo "{\\"info\\": {\\"status\\": \\"$STATUS\\"}, \\"version\\": 3}"
"""

Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the job with variables of helm-controller; returns helm's calls but the first, which reads the status."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/helm").write_text(HELM)
    (tmp_path / "bin/helm").chmod(0o755)
    for name in ("CONFIG", "CONTENT", "AUTHORITIES", "AUTH", "TEMPORARY"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(helm_job, name, tmp_path / name)
    monkeypatch.setattr(helm_job, "TERMINATION_LOG", tmp_path / "termination-log")
    (tmp_path / "CONFIG/values-0.yaml").write_text("{}")
    calls = tmp_path / "calls"

    def _run(*words: str, status: str = "", **variables: str) -> list[str]:
        given = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls), "STATUS": status, "NAME": "x",
            "TARGET_NAMESPACE": "n", "CHART": "x/chart", "REPO": "https://charts.example.com", **variables,
        }  # fmt: skip
        for key, value in given.items():
            monkeypatch.setenv(key, value)
        helm_job.main(words or ("install", "--namespace", "n", "--version", "1.0.0"))
        return [line.replace(str(tmp_path), "") for line in calls.read_text().splitlines()[1:]]

    return _run


def test_a_release_is_installed_from_its_repository(run: Run) -> None:
    assert run(CONFIG_HASH="ABC", TIMEOUT="5m") == [
        "repo add x https://charts.example.com",
        "install --namespace n --version 1.0.0 x x/chart --timeout 5m --labels "
        "helmcharts.helm.cattle.io/configHash=ABC --values /CONFIG/values-0.yaml",
    ]


def test_a_deployed_release_is_upgraded(run: Run) -> None:
    assert run(status="deployed")[-1] == (
        "upgrade --namespace n --version 1.0.0 x x/chart --values /CONFIG/values-0.yaml"
    )


def test_the_certificate_authority_of_the_repository_is_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "CONFIG/ca-file.pem").write_text("PEM")
    assert [line for line in run() if "--ca-file /TEMPORARY/ca-file.pem" in line] == run()[-2:]


def test_an_archive_needs_no_repository(run: Run, tmp_path: Path) -> None:
    (tmp_path / "CONTENT/x.tgz.base64").write_text(base64.b64encode(b"archive").decode())
    (call,) = run()
    assert "/TEMPORARY/x.tgz" in call and (tmp_path / "TEMPORARY/x.tgz").read_bytes() == b"archive"


@pytest.mark.parametrize(
    ("policy", "verbs"), [("retry", ["upgrade"]), ("reinstall", ["uninstall", "install"]), ("abort", [])]
)
def test_a_failed_release_follows_the_failure_policy(run: Run, policy: str, verbs: list[str]) -> None:
    calls = run(status="failed", FAILURE_POLICY=policy)
    assert [line.split()[0] for line in calls if not line.startswith("repo")] == verbs


def test_another_revision_than_expected_is_left_alone(run: Run) -> None:
    assert run(status="deployed", EXPECTED_RELEASE_REVISION="2") == []


def test_an_interrupted_upgrade_is_marked_as_failed_and_retried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    release = base64.b64encode(gzip.compress(json.dumps({"info": {"status": "pending-upgrade"}}).encode())).decode()
    stored = {
        "metadata": {"labels": {"status": "pending-upgrade"}},
        "data": {"release": base64.b64encode(release.encode()).decode()},
    }
    written = {}

    def call(method: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        written[method] = (path, body)
        return json.loads(json.dumps(stored))  # type: ignore[no-any-return]

    monkeypatch.setattr(helm_job, "call", call)
    assert run(status="pending-upgrade")[-1].startswith("upgrade")
    path, body = written["PUT"]
    assert path == "/api/v1/namespaces/n/secrets/sh.helm.release.v1.x.v3" and body is not None
    assert body["metadata"] == {"labels": {"status": "failed"}}
    inner = base64.b64decode(base64.b64decode(body["data"]["release"]))  # type: ignore[index,call-overload]
    assert json.loads(gzip.decompress(inner)) == {"info": {"status": "failed"}}


def test_a_failing_helm_ends_the_job(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bin/helm").write_text(HELM.replace("exit 0", "exit 3", 1))
    with pytest.raises(subprocess.CalledProcessError):
        run(status="deployed")


def test_delete_uninstalls_a_release(run: Run) -> None:
    assert run("delete", status="deployed") == ["uninstall x --namespace n --wait"]
    assert run("delete")[-1].startswith("status")
