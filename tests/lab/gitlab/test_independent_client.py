"""An independent runner, gitlab-python-runner, against the lab's GitLab."""

from __future__ import annotations

import zipfile
from pathlib import Path

from GitlabPyRunner.runner import Runner
from GitlabPyRunner.trace import TraceProxy

from lab.gitlab.store import Artifact, State
from tests.lab.gitlab.conftest import Gitlab


def test_it_runs_a_job_from_request_to_artifact(gitlab: Gitlab, tmp_path: Path) -> None:
    client = Runner(gitlab.url, gitlab.runner().token)
    assert client.poll() is None
    queued = gitlab.queue("make", artifacts=(Artifact(paths=("out",)),))
    job = client.poll()
    assert (job["id"], job["steps"][0]["script"]) == (queued.id, ["make"])
    trace = TraceProxy(client, job)
    trace.write("first ", flush=True)
    trace.write("second\n", flush=True)
    archive = tmp_path / "artifacts.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("out", "content")
    client.upload(trace, job, str(archive))
    trace.flush()
    client.success(job)
    assert gitlab.store.job(queued.id).state == State.SUCCESS
    assert b"first second\n" in gitlab.store.trace(queued.id)
    following = gitlab.queue("use", dependencies=(queued.id,))
    job = client.poll()
    assert job["id"] == following.id
    client.get_dependencies(TraceProxy(client, job), job, str(tmp_path / "build"))
    assert (tmp_path / "build/out").read_text() == "content"
    client.failed(job)
    assert gitlab.store.job(following.id).state == State.FAILED


def test_it_unregisters(gitlab: Gitlab) -> None:
    client = Runner(gitlab.url, gitlab.runner().token)
    client.unregister()
    assert gitlab.store.runners() == []
