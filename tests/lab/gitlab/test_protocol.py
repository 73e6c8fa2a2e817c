"""The runner's half of GitLab's API, as a client sees it."""

from __future__ import annotations

import threading
import zlib
from typing import Any

import pytest

from lab.gitlab.store import Artifact, GitlabError, Job, NotFound, Runner, State, Store, Variable
from tests.lab.gitlab.conftest import PROJECT, Gitlab


@pytest.fixture
def runner(gitlab: Gitlab) -> Runner:
    return gitlab.runner(tags=("build",))


def report(gitlab: Gitlab, job: dict[str, Any], state: str = "success", **fields: Any) -> Any:
    return gitlab.call("PUT", f"/jobs/{job['id']}", {"token": job["token"], "state": state, **fields})


def append(gitlab: Gitlab, job: dict[str, Any], start: int, content: bytes) -> Any:
    headers = {"Content_Range": f"{start}-{start + len(content) - 1}", "JOB_TOKEN": job["token"]}
    return gitlab.call("PATCH", f"/jobs/{job['id']}/trace", content, **headers)


def taken(gitlab: Gitlab, runner: Runner, *script: str, **fields: Any) -> dict[str, Any]:
    gitlab.queue(*(script or ("true",)), **fields)
    answer = gitlab.request(runner, cancel_gracefully=True)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_verify_names_the_runner_and_records_its_contact(gitlab: Gitlab, runner: Runner) -> None:
    shown = gitlab.operate("GET", f"/runners/{runner.id}").json()
    assert (shown["status"], shown["online"], shown["contacted_at"]) == ("never_contacted", False, None)
    body = {"token": runner.token, "system_id": "s_1", "info": {"version": "19.3.0"}}
    answer = gitlab.call("POST", "/runners/verify", body)
    assert answer.status_code == 200
    assert answer.json() == {"id": runner.id, "token": runner.token, "token_expires_at": None}
    shown = gitlab.operate("GET", f"/runners/{runner.id}").json()
    assert (shown["online"], shown["version"], shown["contacted_at"]) == (True, "19.3.0", "2027-01-15T08:00:00.000Z")
    gitlab.clock.seconds += 7201
    assert gitlab.operate("GET", f"/runners/{runner.id}").json()["status"] == "offline"


def test_unknown_tokens_are_forbidden(gitlab: Gitlab, runner: Runner) -> None:
    for path in ("/runners/verify", "/jobs/request"):
        assert gitlab.call("POST", path, {"token": "glrt-other", "system_id": "s_1"}).status_code == 403
        assert gitlab.call("POST", path, {}).json() == {"message": "token is missing"}
    assert gitlab.call("GET", f"/runners/{runner.id}").status_code == 401
    assert gitlab.call("POST", "/user/runners", {"runner_type": "instance_type"}).status_code == 401
    job = taken(gitlab, runner)
    assert report(gitlab, {**job, "token": "glcbt-other"}).status_code == 403
    assert append(gitlab, {**job, "token": "glcbt-other"}, 0, b"x").status_code == 403


def test_a_runner_is_created_shown_and_deleted(gitlab: Gitlab) -> None:
    body = {
        "runner_type": "instance_type", "description": "deploy", "tag_list": ["deploy"], "run_untagged": False,
        "locked": True, "access_level": "ref_protected", "maximum_timeout": 7200,
    }  # fmt: skip
    created = gitlab.operate("POST", "/user/runners", body)
    assert created.status_code == 201
    assert created.json()["token"].startswith("glrt-")
    id = created.json()["id"]
    shown = gitlab.operate("GET", f"/runners/{id}").json()
    assert "token" not in shown, "a token is shown once"
    assert {key: shown[key] for key in body} == body
    assert gitlab.operate("DELETE", f"/runners/{id}").status_code == 204
    assert gitlab.operate("GET", f"/runners/{id}").status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "runner_type is missing"),
        ({"runner_type": "group_type", "group_id": 1}, "runner_type does not have a valid value"),
        ({"runner_type": "project_type"}, "project_id is required for project_type, and only then"),
        ({"runner_type": "instance_type", "access_level": "all"}, "access_level does not have a valid value"),
        ({"runner_type": "instance_type", "maximum_timeout": 5}, "maximum_timeout needs to be at least 10 minutes"),
        (
            {"runner_type": "instance_type", "run_untagged": False},
            "Tags list can not be empty when runner is not allowed to pick untagged jobs",
        ),
        ({"runner_type": "instance_type", "tags": "a"}, "tags: not supported by the simulation"),
    ],
)
def test_a_faulty_runner_is_rejected(gitlab: Gitlab, body: dict[str, Any], message: str) -> None:
    answer = gitlab.operate("POST", "/user/runners", body)
    assert (answer.status_code, answer.json()) == (400, {"message": message})
    assert gitlab.store.runners() == []


def test_what_is_not_implemented_is_refused(gitlab: Gitlab) -> None:
    for method, path in (("GET", "/runners/router/discovery"), ("POST", "/runners"), ("GET", "/projects/1/issues")):
        assert gitlab.operate(method, path).status_code == 501


def test_no_job_echoes_the_last_update(gitlab: Gitlab, runner: Runner) -> None:
    answer = gitlab.call("POST", "/jobs/request", {"token": runner.token, "system_id": "s_1", "last_update": "abc"})
    assert (answer.status_code, answer.headers["X-GitLab-Last-Update"]) == (204, "abc")


def test_the_job_has_the_shape_that_runners_read(gitlab: Gitlab, runner: Runner) -> None:
    secret = Variable("PASSWORD", "correct horse", masked=True, raw=True)
    artifact = Artifact(paths=("out/",), name="result", reports={"junit": "report.xml"})
    job = taken(
        gitlab, runner, "make", tags=("build",), image="debian:13", variables=(secret,), artifacts=(artifact,),
        after_script=("clean",), timeout_seconds=600, sha="a" * 40, ref="feature/One",
    )  # fmt: skip
    assert (job["job_info"]["stage"], job["job_info"]["project_name"]) == ("test", "slipway")
    assert [step["name"] for step in job["steps"]] == ["script", "after_script"]
    assert job["steps"][0] == {
        "name": "script", "script": ["make"], "timeout": 600, "when": "on_success", "allow_failure": False,
    }  # fmt: skip
    assert job["image"]["name"] == "debian:13"
    assert job["runner_info"]["timeout"] == 600
    variables = {variable["key"]: variable for variable in job["variables"]}
    assert variables["PASSWORD"] == {
        "key": "PASSWORD", "value": "correct horse", "public": False, "masked": True, "file": False, "raw": True,
    }  # fmt: skip
    assert variables["CI_COMMIT_REF_SLUG"]["value"] == "feature-one"
    assert variables["CI_JOB_TOKEN"]["masked"] and variables["CI_JOB_TOKEN"]["value"] == job["token"]
    assert variables["GIT_STRATEGY"]["value"] == "none", "the project has no repository"
    kinds = [(upload["artifact_type"], upload["artifact_format"], upload["when"]) for upload in job["artifacts"]]
    assert kinds == [("archive", "zip", "on_success"), ("junit", "gzip", "always")]


@pytest.mark.parametrize(
    ("runner_fields", "job_fields", "suits"),
    [
        ({"tags": ("deploy",)}, {"tags": ("deploy",)}, True),
        ({"tags": ("build",)}, {"tags": ("deploy",)}, False),
        ({"tags": ("build", "arm")}, {"tags": ("build",)}, True),
        ({"tags": ("build",)}, {"tags": ("build", "arm")}, False),
        ({"tags": ("build",), "run_untagged": False}, {}, False),
        ({"access_level": "ref_protected"}, {"ref_protected": False}, False),
        ({"access_level": "ref_protected"}, {"ref_protected": True}, True),
        ({"paused": True}, {}, False),
        ({"runner_type": "project_type", "project_id": 1}, {}, False),
    ],
)
def test_only_suitable_runners_get_a_job(
    gitlab: Gitlab, runner_fields: dict[str, Any], job_fields: dict[str, Any], suits: bool
) -> None:
    gitlab.queue("true", **job_fields)
    assert (gitlab.request(gitlab.runner(**runner_fields)).status_code == 201) is suits


def test_a_job_without_a_commit_gets_no_sources(gitlab: Gitlab, runner: Runner) -> None:
    gitlab.store.put_project(PROJECT, "/srv/repository.git")
    for sha, strategies in (("", ["none"]), ("a" * 40, [])):
        gitlab.queue("true", sha=sha)
        body = gitlab.request(runner).json()
        found = [variable["value"] for variable in body["variables"] if variable["key"] == "GIT_STRATEGY"]
        assert found == strategies


def test_two_runners_never_get_one_job(gitlab: Gitlab) -> None:
    queued = {gitlab.queue("true").id for _ in range(30)}
    runners = [gitlab.runner() for _ in range(4)]
    got: list[int] = []

    def take_all(runner: Runner) -> None:
        while (answer := gitlab.request(runner)).status_code == 201:
            got.append(answer.json()["id"])

    threads = [threading.Thread(target=take_all, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == sorted(queued)


def test_one_job_at_a_time_in_a_resource_group(gitlab: Gitlab, runner: Runner) -> None:
    first = taken(gitlab, runner, resource_group="prod")
    waiting = gitlab.queue("true", resource_group="prod")
    other = gitlab.queue("true", resource_group="stage")
    assert gitlab.request(runner).json()["id"] == other.id
    assert gitlab.request(runner).status_code == 204
    assert report(gitlab, first).status_code == 200
    assert gitlab.request(runner).json()["id"] == waiting.id


def test_the_trace_grows_by_ranges(gitlab: Gitlab, runner: Runner) -> None:
    job = taken(gitlab, runner)
    answer = append(gitlab, job, 0, b"hello ")
    assert (answer.status_code, answer.headers["Range"], answer.headers["Job-Status"]) == (202, "0-6", "running")
    assert answer.headers["X-GitLab-Trace-Update-Interval"] == "3"
    for start in (0, 9):
        answer = append(gitlab, job, start, b"world")
        assert (answer.status_code, answer.headers["Range"]) == (416, "0-6")
    assert append(gitlab, job, 6, b"world").headers["Range"] == "0-11"
    assert gitlab.store.trace(job["id"]) == b"hello world"
    headers = {"JOB_TOKEN": job["token"]}
    assert gitlab.call("PATCH", f"/jobs/{job['id']}/trace", b"x", **headers).status_code == 400


def test_the_end_is_accepted_then_completed(gitlab: Gitlab, runner: Runner) -> None:
    job = taken(gitlab, runner)
    append(gitlab, job, 0, b"hello")
    output = {"checksum": f"crc32:{zlib.crc32(b'hello'):08x}", "bytesize": 5}
    assert report(gitlab, job, "running").status_code == 200
    assert report(gitlab, job, "failed", output=output, exit_code=3, failure_reason="script_failure").status_code == 202
    assert gitlab.store.job(job["id"]).state == State.RUNNING
    assert report(gitlab, job, "failed", output=output, exit_code=3, failure_reason="script_failure").status_code == 200
    ended = gitlab.store.job(job["id"])
    assert (ended.state, ended.failure_reason, ended.exit_code) == (State.FAILED, "script_failure", 3)
    assert report(gitlab, job).status_code == 403
    assert append(gitlab, job, 5, b"late").status_code == 403
    assert gitlab.store.trace(job["id"]) == b"hello"


def test_an_incomplete_trace_is_sent_again(gitlab: Gitlab, runner: Runner) -> None:
    job = taken(gitlab, runner)
    append(gitlab, job, 0, b"hellO")
    output = {"checksum": f"crc32:{zlib.crc32(b'hello'):08x}", "bytesize": 5}
    assert report(gitlab, job, output=output).status_code == 412
    assert append(gitlab, job, 0, b"hello").status_code == 202
    assert [report(gitlab, job, output=output).status_code for _ in range(2)] == [202, 200]


def test_a_cancelled_job_ends_in_order_or_at_once(gitlab: Gitlab, runner: Runner) -> None:
    job = taken(gitlab, runner)
    gitlab.store.cancel(job["id"])
    assert append(gitlab, job, 0, b"x").headers["Job-Status"] == "canceling"
    assert report(gitlab, job, "failed").status_code == 200
    assert gitlab.store.job(job["id"]).state == State.CANCELED
    other = gitlab.queue("true")
    assert gitlab.request(runner).json()["id"] == other.id
    assert gitlab.store.cancel(other.id).state == State.CANCELED, "its runner cannot end it in order"
    answer = append(gitlab, {"id": other.id, "token": other.token}, 0, b"x")
    assert (answer.status_code, answer.headers["Job-Status"]) == (403, "canceled")
    waiting = gitlab.queue("true")
    assert gitlab.store.cancel(waiting.id).state == State.CANCELED
    assert gitlab.request(runner).status_code == 204


def test_a_job_fails_after_its_timeout_or_without_its_runner(gitlab: Gitlab, runner: Runner) -> None:
    late = taken(gitlab, runner, timeout_seconds=900)
    gitlab.clock.seconds += 500
    append(gitlab, late, 0, b"x")
    silent = taken(gitlab, runner, timeout_seconds=3600)
    gitlab.clock.seconds += 500
    gitlab.store.expire()
    assert gitlab.store.job(late["id"]).failure_reason == "job_execution_timeout"
    assert gitlab.store.job(silent["id"]).state == State.RUNNING
    gitlab.clock.seconds += 101
    assert append(gitlab, silent, 0, b"x").status_code == 403
    assert gitlab.store.job(silent["id"]).failure_reason == "stuck_or_timeout_failure"


def test_artifacts_are_uploaded_and_downloaded_with_the_jobs_token(gitlab: Gitlab, runner: Runner) -> None:
    job = taken(gitlab, runner)
    headers = {"JOB-TOKEN": job["token"]}
    url = f"{gitlab.url}/api/v4/jobs/{job['id']}/artifacts"
    assert gitlab.http.get(url, headers=headers).status_code == 404
    content = b"PK\r\n--not a boundary\r\n\0\xff"
    answer = gitlab.http.post(
        url, headers=headers, files={"file": ("out.zip", content)}, data={"artifact_type": "archive"}
    )
    assert answer.status_code == 201
    assert gitlab.http.get(url, headers=headers).content == content
    assert gitlab.http.get(url, headers={"JOB-TOKEN": "glcbt-other"}).status_code == 403
    fields = {"artifact_type": "junit", "artifact_format": "gzip"}
    assert gitlab.http.post(url, headers=headers, files={"file": ("r.gz", b"gz")}, data=fields).status_code == 201
    path = gitlab.store.artifact(job["id"], "junit")
    assert path is not None and path.read_bytes() == b"gz"
    fields = {"artifact_type": "../x", "artifact_format": "gzip"}
    assert gitlab.http.post(url, headers=headers, files={"file": ("r.gz", b"gz")}, data=fields).status_code == 400
    assert gitlab.http.post(url, headers=headers, data={"file": "x"}).status_code == 400, "not multipart"
    following = gitlab.queue("true", dependencies=(job["id"],))
    dependency = gitlab.request(runner).json()["dependencies"]
    assert dependency == [
        {
            "id": job["id"], "name": "probe", "token": job["token"],
            "artifacts_file": {"filename": "out.zip", "size": len(content)},
        }
    ]  # fmt: skip
    assert following.dependencies == (job["id"],)


def test_deleting_a_runner_fails_its_jobs(gitlab: Gitlab, runner: Runner) -> None:
    job = taken(gitlab, runner)
    assert gitlab.call("DELETE", "/runners", {"token": runner.token}).status_code == 204
    assert gitlab.store.job(job["id"]).failure_reason == "runner_system_failure"
    assert gitlab.request(runner).status_code == 403


def test_a_manager_is_removed_alone(gitlab: Gitlab, runner: Runner) -> None:
    for system_id in ("s_1", "s_2"):
        gitlab.request(runner, system_id)
    body = {"token": runner.token, "system_id": "s_1"}
    assert gitlab.call("DELETE", "/runners/managers", body).status_code == 204
    assert gitlab.call("DELETE", "/runners/managers", body).status_code == 404
    listed = gitlab.operate("GET", f"/runners/{runner.id}/managers").json()
    assert [manager["system_id"] for manager in listed] == ["s_2"]


def test_everything_survives_a_restart(gitlab: Gitlab, runner: Runner) -> None:
    job = taken(gitlab, runner)
    append(gitlab, job, 0, b"hello")
    again = Store(gitlab.store._folder, gitlab.clock)
    try:
        assert again.jobs() == gitlab.store.jobs()
        assert again.runners() == [runner]
        assert again.trace(job["id"]) == b"hello"
        assert again.new_id() > job["id"]
    finally:
        again.close()


def test_the_store_rejects_what_no_engine_may_do(gitlab: Gitlab, runner: Runner) -> None:
    job = gitlab.queue("true", state=State.CREATED)
    assert gitlab.request(runner).status_code == 204, "a created job waits for the engine"
    assert gitlab.store.advance(job.id, State.PENDING, dependencies=(1,)).dependencies == (1,)
    with pytest.raises(GitlabError, match="cannot change from pending to running"):
        gitlab.store.advance(job.id, State.RUNNING)
    with pytest.raises(GitlabError, match="cannot be queued as success"):
        gitlab.queue("true", state=State.SUCCESS)
    with pytest.raises(NotFound, match="project 'other'"):
        gitlab.store.queue(Job(name="a", script=("true",), project="other"))
    assert [job.project for job in gitlab.store.jobs(0)] == [PROJECT]
