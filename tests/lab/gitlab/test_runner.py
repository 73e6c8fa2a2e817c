"""The simulated runner against the lab's GitLab: real processes, a real shell."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lab.gitlab.store import Artifact, State, Variable
from lab.runnersim.runtime import config, executors
from lab.runnersim.runtime.job import expand
from lab.runnersim.runtime.trace import Masker
from tests.lab.gitlab.conftest import PROJECT, Gitlab, StartRunner, program_file, write_config
from tests.support.deadlines import until

SECRET = "correct-horse-battery"


def test_a_job_runs_and_its_trace_and_end_arrive(gitlab: Gitlab, start_runner: StartRunner) -> None:
    start_runner(gitlab.runner())
    variables = (
        Variable("NAME", "world"), Variable("GREETING", "hello $NAME"), Variable("RAW", "$NAME", raw=True),
        Variable("KUBECONFIG", "secret file", file=True),
    )  # fmt: skip
    job = gitlab.queue(
        'echo "$GREETING, $RAW"', 'cat "$KUBECONFIG"; read -r line || echo no-input',
        after_script=('echo "after: $CI_JOB_STATUS"',), variables=variables,
    )  # fmt: skip
    assert gitlab.ended(job).state == State.SUCCESS
    trace = gitlab.store.trace(job.id).decode()
    for expected in (
        "hello world, $NAME",
        "secret file",
        "no-input",
        "after: success",
        "section_start:",
        "Job succeeded",
    ):
        assert expected in trace, trace


def test_a_failing_script_ends_with_its_exit_code(gitlab: Gitlab, start_runner: StartRunner) -> None:
    start_runner(gitlab.runner())
    job = gitlab.queue("false | true", "echo not reached", after_script=('echo "after: $CI_JOB_STATUS"',))
    ended = gitlab.ended(job)
    assert (ended.state, ended.failure_reason, ended.exit_code) == (State.FAILED, "script_failure", 1)
    trace = gitlab.store.trace(job.id).decode()
    assert "\nnot reached" not in trace and "after: failed" in trace


def test_a_masked_secret_is_in_no_trace_artifact_or_process_list(gitlab: Gitlab, start_runner: StartRunner) -> None:
    start_runner(gitlab.runner())
    job = gitlab.queue(
        'printf "%s" "${TOKEN:0:9}"; sleep 0.2; printf "%s\\n" "${TOKEN:9}"; echo "$TOKEN $CI_JOB_TOKEN glrt-abc"',
        "for command in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$command; done >processes 2>/dev/null || true",
        variables=(Variable("TOKEN", SECRET, masked=True),), artifacts=(Artifact(paths=("processes",)),),
    )  # fmt: skip
    ended = gitlab.ended(job)
    assert ended.state == State.SUCCESS, gitlab.store.trace(job.id).decode()
    trace = gitlab.store.trace(job.id).decode()
    assert SECRET not in trace and job.token not in trace and "glrt-abc" not in trace
    assert trace.count("[MASKED]") == 5, trace
    archive = gitlab.store.artifact(job.id)
    assert archive is not None
    processes = zipfile.ZipFile(archive).read("processes").decode(errors="replace")
    assert "gitlab-runner" in processes and SECRET not in processes and job.token not in processes


def test_artifacts_reach_the_next_job_and_links_outside_do_not(gitlab: Gitlab, start_runner: StartRunner) -> None:
    start_runner(gitlab.runner())
    made = gitlab.queue(
        "mkdir -p out/a && echo one >out/a/file && ln -s /etc out/outside && printf '<x/>' >report.xml",
        artifacts=(Artifact(paths=("out/", "missing/*"), reports={"junit": "report.xml"}),),
    )
    gitlab.ended(made)
    archive = gitlab.store.artifact(made.id)
    assert archive is not None
    assert sorted(zipfile.ZipFile(archive).namelist()) == ["out/a/file", "out/outside"]
    assert gitlab.store.artifact(made.id, "junit") is not None
    used = gitlab.queue("rm -rf out.old; cat out/a/file; readlink out/outside", dependencies=(made.id,))
    assert gitlab.ended(used).state == State.SUCCESS, gitlab.store.trace(used.id).decode()
    assert "\none\n/etc\n" in gitlab.store.trace(used.id).decode()


def test_sources_come_from_the_projects_repository(gitlab: Gitlab, start_runner: StartRunner, tmp_path: Path) -> None:
    work, bare = tmp_path / "work", tmp_path / "bare.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(work)]
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", work], check=True)
    (work / "file").write_text("from git\n")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=one"], check=True)
    sha = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", "clone", "--quiet", "--bare", work, bare], check=True)
    subprocess.run(["git", "-C", bare, "update-server-info"], check=True)
    gitlab.store.put_project(PROJECT, str(bare))
    start_runner(gitlab.runner())
    job = gitlab.queue("cat file", "grep -c Basic .git/config || true", sha=sha)
    assert gitlab.ended(job).state == State.SUCCESS, gitlab.store.trace(job.id).decode()
    assert "\nfrom git\n" in gitlab.store.trace(job.id).decode()
    assert gitlab.http.get(f"{gitlab.url}/{PROJECT}.git/HEAD").status_code == 401
    assert (
        gitlab.http.get(f"{gitlab.url}/{PROJECT}.git/HEAD", auth=("gitlab-ci-token", job.token)).status_code == 401
    ), "the job has ended"


def test_cancel_ends_the_script_and_runs_after_script(gitlab: Gitlab, start_runner: StartRunner) -> None:
    start_runner(gitlab.runner())
    job = gitlab.queue(
        "trap 'echo ended in order; exit 1' TERM", "echo started", "sleep 300 & wait", "echo not reached",
        after_script=('echo "after: $CI_JOB_STATUS"',),
    )  # fmt: skip
    until(lambda: b"\nstarted" in gitlab.store.trace(job.id), 30)
    gitlab.store.cancel(job.id)
    assert gitlab.ended(job).state == State.CANCELED
    trace = gitlab.store.trace(job.id).decode()
    assert "ended in order" in trace and "after: canceled" in trace and "\nnot reached" not in trace


def test_a_job_past_its_timeout_is_ended_by_the_runner(gitlab: Gitlab, start_runner: StartRunner) -> None:
    start_runner(gitlab.runner())
    job = gitlab.queue("exec sleep 300", timeout_seconds=1)
    ended = gitlab.ended(job)
    assert (ended.state, ended.failure_reason) == (State.FAILED, "job_execution_timeout")


def test_a_killed_runner_loses_its_job_by_timeout(gitlab: Gitlab, start_runner: StartRunner) -> None:
    process = start_runner(gitlab.runner())
    job = gitlab.queue("echo started", "sleep 300", timeout_seconds=3600)
    until(lambda: b"\nstarted" in gitlab.store.trace(job.id), 30)
    process.kill()
    gitlab.clock.seconds += 601
    ended = gitlab.ended(job)
    assert (ended.state, ended.failure_reason) == (State.FAILED, "stuck_or_timeout_failure")


def test_nothing_is_lost_while_gitlab_is_away(gitlab: Gitlab, start_runner: StartRunner, tmp_path: Path) -> None:
    start_runner(gitlab.runner())
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    job = gitlab.queue(
        f"echo before; touch {started}; while [ ! -e {proceed} ]; do sleep 0.1; done", "echo after", "exit 7"
    )
    until(started.exists, 30)
    gitlab.stop()
    proceed.touch()
    gitlab.clock.seconds += 30
    until(lambda: "couldn't execute request" in (tmp_path / "probe" / "log").read_text(), 30)
    gitlab.start()
    ended = gitlab.ended(job)
    assert (ended.state, ended.exit_code) == (State.FAILED, 7)
    assert "\nbefore\n" in gitlab.store.trace(job.id).decode() and "\nafter\n" in gitlab.store.trace(job.id).decode()


def test_sigquit_drains(gitlab: Gitlab, start_runner: StartRunner, tmp_path: Path) -> None:
    process = start_runner(gitlab.runner(), concurrent=1)
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    job = gitlab.queue(f"touch {started}; while [ ! -e {proceed} ]; do sleep 0.1; done")
    until(started.exists, 30)
    process.signal(signal.SIGQUIT)
    until(lambda: "graceful shutdown" in process.log, 30)
    later = gitlab.queue("true")
    assert process.process.poll() is None
    proceed.touch()
    assert gitlab.ended(job).state == State.SUCCESS
    assert process.process.wait(30) == 0
    assert gitlab.store.job(later.id).state == State.PENDING


def test_sigterm_fails_the_jobs(gitlab: Gitlab, start_runner: StartRunner) -> None:
    process = start_runner(gitlab.runner())
    job = gitlab.queue("echo started", "exec sleep 300")
    until(lambda: b"\nstarted" in gitlab.store.trace(job.id), 30)
    process.signal(signal.SIGTERM)
    assert gitlab.ended(job).failure_reason == "runner_system_failure"
    assert process.process.wait(30) == 0


def test_config_is_reloaded_without_ending_jobs(gitlab: Gitlab, start_runner: StartRunner, tmp_path: Path) -> None:
    first, second = gitlab.runner(tags=("first",)), gitlab.runner(tags=("second",))
    process = start_runner(first)
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    job = gitlab.queue(f"touch {started}; while [ ! -e {proceed} ]; do sleep 0.1; done", tags=("first",))
    until(started.exists, 30)
    write_config(process.folder / "config.toml", gitlab.url, second.token, "second")
    assert gitlab.ended(gitlab.queue("true", tags=("second",))).state == State.SUCCESS
    (process.folder / "config.toml").write_text("concurrent =")
    until(lambda: "Failed to load config" in process.log, 30)
    assert gitlab.ended(gitlab.queue("true", tags=("second",))).state == State.SUCCESS, "the former configuration stays"
    proceed.touch()
    assert gitlab.ended(job).state == State.SUCCESS


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = program_file(folder)
    options = ["--config", str(folder / "config.toml")] if words[0] != "--version" else []
    return subprocess.run([sys.executable, program, *words, *options], capture_output=True, text=True, check=False)


def test_verify_list_unregister_and_version(gitlab: Gitlab, tmp_path: Path) -> None:
    runner = gitlab.runner()
    write_config(tmp_path / "config.toml", gitlab.url, runner.token, "build")
    assert "19.3.0-simulation" in command(tmp_path, "--version").stdout
    shown = command(tmp_path, "list").stderr
    assert "build" in shown and "Executor=shell" in shown and runner.token not in shown
    verified = command(tmp_path, "verify")
    assert verified.returncode == 0 and "is valid" in verified.stderr
    system_id = (tmp_path / ".runner_system_id").read_text()
    assert [manager.system_id for manager in gitlab.store.managers(runner.id)] == [system_id]
    assert command(tmp_path, "unregister", "--all-runners").returncode == 0
    assert gitlab.store.managers(runner.id) == []
    assert config.read(tmp_path / "config.toml").runners == ()
    assert (tmp_path / "config.toml").stat().st_mode & 0o777 == 0o600
    write_config(tmp_path / "config.toml", gitlab.url, "glrt-other", "build")
    verified = command(tmp_path, "verify")
    assert verified.returncode == 1 and "is removed" in verified.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurrency = 2", "'concurrency' of [top level] is not implemented"),
        ('[[runners]]\nurl = "u"\ntoken = "t"\nexecutor = "kubernetes"', "executor 'kubernetes' is not implemented"),
        ('[[runners]]\nurl = "u"\nexecutor = "shell"', "a runner has no token"),
        ("[[runners]]\n[runners.docker]\nprivilegd = true", "'privilegd' of [runners.docker] is not implemented"),
        ("concurrent =", "cannot be read"),
    ],
)
def test_a_faulty_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(config.ConfigError) as error:
        config.read(path)
    assert message in str(error.value)


def masked(masker: Masker, *parts: str) -> str:
    return b"".join([*(masker.feed(part.encode()) for part in parts), masker.feed(b"", final=True)]).decode()


def test_secrets_are_masked_over_the_borders_of_parts() -> None:
    assert masked(Masker(["abcdefgh"]), "x abc", "def", "gh y") == "x [MASKED] y"
    assert masked(Masker(["abcdefgh"]), *"x abcdefgabcdefgh") == "x abcdefg[MASKED]"
    assert masked(Masker(["abcdefgh", "abcdefghij"]), "abcdefghij") == "[MASKED]"
    assert masked(Masker([], ["glrt-"]), "a glr", "t-abc", "def b") == "a [MASKED] b"
    assert Masker(["abcdefgh"]).feed(b"ready\n") == b"ready\n", "what cannot be a secret is not held back"


def test_references_are_expanded() -> None:
    def variables(**values: str) -> dict[str, Any]:
        return {key: {"key": key, "value": value} for key, value in values.items()}

    assert expand(variables(A="$B-${C}", B="b", C="$A")) == {"A": "b-", "B": "b", "C": "b-"}
    assert expand({"A": {"value": "$B", "raw": True}, "B": {"value": "b"}})["A"] == "$B"


@pytest.mark.parametrize(
    ("image", "glob", "expected"),
    [
        ("debian:13", "debian:*", True),
        ("registry/a/b:1", "registry/*", False),
        ("registry/a/b:1", "registry/**", True),
        ("debianX13", "debian.13", False),
    ],
)
def test_images_match_globs(image: str, glob: str, expected: bool) -> None:
    assert executors.matches(image, glob) is expected


def test_the_container_gets_every_restriction(tmp_path: Path) -> None:
    docker = {
        "host": "unix:///run/podman/podman.sock", "image": "debian:13", "cap_drop": ["ALL"], "memory": "1g",
        "cpus": "1",
        "security_opt": ["no-new-privileges:true"], "network_mode": "build", "user": "1000:1000", "volumes": ["/cache"],
    }  # fmt: skip
    runner = config.RunnerConfig("build", "https://g", "glrt-abc", "docker", {"docker": docker})
    container = executors.Container(runner, "", tmp_path, {"id": 7, "job_info": {"project_id": 1}, "image": None})
    words = container.command
    for expected in ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=1g", "--cpus=1", "--network=build",
                     "--user=1000:1000", "--pull=never"):  # fmt: skip
        assert expected in words, words
    assert words[:3] == ["podman", "--url", "unix:///run/podman/podman.sock"] and "--privileged" not in words
    assert not [word for word in words if "docker.sock" in word or word == "--volume=/cache"]


def test_packages_have_the_official_layout(tmp_path: Path) -> None:
    from lab.runnersim import package

    runner, helper = package.build("19.3.0", tmp_path)
    assert [path.name for path in (runner, helper)] == [
        "gitlab-runner_19.3.0-1_amd64.deb",
        "gitlab-runner-helper-images_19.3.0-1_all.deb",
    ]
    listed = subprocess.run(["dpkg-deb", "--contents", runner], check=True, capture_output=True, text=True).stdout
    assert "./usr/bin/gitlab-runner" in listed
    with zipfile.ZipFile(io.BytesIO(package.program("19.3.0"))) as archive:
        assert "gitlab_runner/main.py" in archive.namelist()
    fingerprint = package.prepare(tmp_path / "served", tmp_path / "gpg")
    stamp = (tmp_path / "served/debian/dists/trixie/InRelease").stat().st_mtime_ns
    assert package.prepare(tmp_path / "served", tmp_path / "gpg") == fingerprint
    assert (tmp_path / "served/debian/dists/trixie/InRelease").stat().st_mtime_ns == stamp, "nothing is signed again"
