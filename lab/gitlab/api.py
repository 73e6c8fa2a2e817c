"""The half of GitLab's API v4 that runners use, and what creates and shows runners. Other endpoints are refused.

Runners authenticate by their token (`glrt-…`), jobs by theirs (`JOB-TOKEN`), operators by a personal access token
(`PRIVATE-TOKEN`). Repositories are served by git's dumb HTTP protocol to the tokens of running jobs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from lab.gitlab import repository
from lab.gitlab.store import FINAL, Artifact, Job, Manager, NotFound, Runner, State, Store, Variable

VERSION = "19.3.0-simulation"
API = "/api/v4"
TRACE_INTERVAL_SECONDS = 3
ONLINE_SECONDS = 7200.0
"""GitLab calls a runner online if it had contact in the last two hours."""
TICK_SECONDS = 1.0

log = logging.getLogger("lab.gitlab")


class Refused(Exception):
    """The error response to a request; its message goes to the client."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


@dataclass(frozen=True, slots=True)
class Call:
    """One request with its body."""

    store: Store
    url: str
    operator_token: str
    request: Request
    data: bytes

    def body(self, required: tuple[str, ...] = ()) -> dict[str, Any]:
        try:
            if self.request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
                body: Any = dict(parse_qsl(self.data.decode()))
            else:
                body = json.loads(self.data or b"{}")
        except ValueError:
            raise Refused(400, "400 Bad Request: the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "400 Bad Request: the body is not a JSON object")
        if missing := [name for name in required if not body.get(name)]:
            raise Refused(400, ", ".join(f"{name} is missing" for name in missing))
        return body

    def require_operator(self) -> None:
        header = self.request.headers.get("private-token", "")
        if not secrets.compare_digest(header, self.operator_token):
            raise Refused(401, "401 Unauthorized")

    def runner(self, body: Mapping[str, Any]) -> Runner:
        runner = self.store.runner_by_token(str(body.get("token", "")))
        if runner is None:
            raise Refused(403, "403 Forbidden - the runner's token is not valid")
        return runner

    def named_runner(self) -> Runner:
        try:
            return self.store.runner(self.number())
        except NotFound:
            raise Refused(404, "404 Runner Not Found") from None

    def number(self) -> int:
        return int(self.request.path_params["id"])

    def job(self, token: str) -> Job:
        try:
            return self.store.running(self.number(), token)
        except NotFound:
            raise Refused(403, "403 Forbidden") from None

    def running_job(self, token: str) -> Job:
        """The job of a report; a job that has ended makes its runner abort."""
        job = self.job(token)
        if job.state != State.RUNNING:
            raise Refused(403, f"403 Forbidden - the job is {job.state}", {"Job-Status": job.state})
        return job

    def job_token(self) -> str:
        return self.request.headers.get("job-token", "")


# Runners


def verify(call: Call) -> Response:
    body = call.body(("token",))
    runner = call.runner(body)
    if system_id := str(body.get("system_id") or ""):
        call.store.contact(runner, system_id, body.get("info") or {})
    return JSONResponse({"id": runner.id, "token": runner.token, "token_expires_at": None})


def delete_runner_by_token(call: Call) -> Response:
    call.store.delete_runner(call.runner(call.body(("token",))).id)
    return Response(status_code=204)


def delete_manager(call: Call) -> Response:
    body = call.body(("token", "system_id"))
    try:
        call.store.delete_manager(call.runner(body), str(body["system_id"]))
    except NotFound:
        raise Refused(404, "404 Runner Manager Not Found") from None
    return Response(status_code=204)


CREATE_FIELDS = frozenset(
    {
        "runner_type",
        "group_id",
        "project_id",
        "description",
        "paused",
        "locked",
        "run_untagged",
        "tag_list",
        "access_level",
        "maximum_timeout",
    }
)
UPDATE_FIELDS = CREATE_FIELDS - {"runner_type", "group_id", "project_id"}
TYPES = ("instance_type", "project_type")


def create_runner(call: Call) -> Response:
    call.require_operator()
    body = call.body(("runner_type",))
    if unknown := sorted(set(body) - CREATE_FIELDS):
        raise Refused(400, f"{', '.join(unknown)}: not supported by the simulation")
    if body["runner_type"] not in TYPES:
        raise Refused(400, "runner_type does not have a valid value")
    if (body["runner_type"] == "project_type") != (body.get("project_id") is not None):
        raise Refused(400, "project_id is required for project_type, and only then")
    access = body.get("access_level", "not_protected")
    if access not in ("not_protected", "ref_protected"):
        raise Refused(400, "access_level does not have a valid value")
    timeout = body.get("maximum_timeout")
    if timeout is not None and (not isinstance(timeout, int) or timeout < 600):
        raise Refused(400, "maximum_timeout needs to be at least 10 minutes")
    tags = _words(body.get("tag_list", []))
    untagged = body.get("run_untagged", True)
    if not tags and not untagged:
        raise Refused(400, "Tags list can not be empty when runner is not allowed to pick untagged jobs")
    runner = call.store.create_runner(
        description=str(body.get("description") or ""),
        runner_type=body["runner_type"],
        project_id=body.get("project_id"),
        tags=tags,
        run_untagged=bool(untagged),
        locked=bool(body.get("locked", False)),
        access_level=access,
        maximum_timeout=timeout,
        paused=bool(body.get("paused", False)),
    )
    return JSONResponse({"id": runner.id, "token": runner.token, "token_expires_at": None}, 201)


def _words(value: Any) -> tuple[str, ...]:
    """A list, or the words of a text between commas: GitLab accepts both."""
    items = value.split(",") if isinstance(value, str) else value
    return tuple(str(item).strip() for item in items if str(item).strip())


def list_runners(call: Call) -> Response:
    call.require_operator()
    page, size = (
        int(call.request.query_params.get(name, default)) for name, default in (("page", 1), ("per_page", 20))
    )
    rows = call.store.runners()[(page - 1) * size : page * size]
    return JSONResponse([_summary(call.store, runner) for runner in rows])


def show_runner(call: Call) -> Response:
    call.require_operator()
    runner = call.named_runner()
    newest = _newest(call.store, runner)
    return JSONResponse(
        {
            **_summary(call.store, runner),
            "tag_list": list(runner.tags),
            "run_untagged": runner.run_untagged,
            "locked": runner.locked,
            "access_level": runner.access_level,
            "maximum_timeout": runner.maximum_timeout,
            "contacted_at": _time(newest.contacted_at) if newest else None,
            "version": newest.version if newest else None,
        }
    )


def update_runner(call: Call) -> Response:
    call.require_operator()
    runner, body = call.named_runner(), call.body()
    if unknown := sorted(set(body) - UPDATE_FIELDS):
        raise Refused(400, f"{', '.join(unknown)}: not supported by the simulation")
    fields = {("tags" if name == "tag_list" else name): value for name, value in body.items()}
    if "tags" in fields:
        fields["tags"] = _words(fields["tags"])
    call.store.change_runner(runner.id, **fields)
    return show_runner(call)


def delete_runner(call: Call) -> Response:
    call.require_operator()
    call.store.delete_runner(call.named_runner().id)
    return Response(status_code=204)


def list_managers(call: Call) -> Response:
    call.require_operator()
    return JSONResponse(
        [
            {
                "system_id": manager.system_id,
                "version": manager.version,
                "contacted_at": _time(manager.contacted_at),
                "status": _status(call.store, manager),
            }
            for manager in call.store.managers(call.named_runner().id)
        ]
    )


def show_version(call: Call) -> Response:
    call.require_operator()
    return JSONResponse({"version": VERSION, "revision": "simulation"})


def _summary(store: Store, runner: Runner) -> dict[str, Any]:
    newest = _newest(store, runner)
    status = _status(store, newest) if newest else "never_contacted"
    return {
        "id": runner.id,
        "description": runner.description,
        "runner_type": runner.runner_type,
        "paused": runner.paused,
        "active": not runner.paused,
        "online": status == "online",
        "status": status,
    }


def _newest(store: Store, runner: Runner) -> Manager | None:
    return max(store.managers(runner.id), key=lambda manager: manager.contacted_at, default=None)


def _status(store: Store, manager: Manager) -> str:
    return "online" if store.now() - manager.contacted_at < ONLINE_SECONDS else "offline"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Jobs


def request_job(call: Call) -> Response:
    body = call.body(("token",))
    runner = call.runner(body)
    system_id, info = str(body.get("system_id") or ""), body.get("info") or {}
    call.store.contact(runner, system_id, info)
    features = info.get("features") or {}
    job = call.store.request(runner, system_id, graceful_cancel=bool(features.get("cancel_gracefully")))
    if job is None:
        # The runner sends it back with its next request; GitLab holds requests with an old value.
        return Response(status_code=204, headers={"X-GitLab-Last-Update": str(body.get("last_update") or "0")})
    log.info("job %d (%s) → runner %d", job.id, job.name, runner.id)
    return JSONResponse(job_response(call, job, runner), 201)


def job_response(call: Call, job: Job, runner: Runner) -> dict[str, Any]:
    project = call.store.project(job.project)
    variables = [*predefined(call.url, job, runner, project.id, project.repository), *job.variables]
    return {
        "id": job.id,
        "token": job.token,
        "allow_git_fetch": True,
        "job_info": {
            "id": job.id,
            "name": job.name,
            "stage": job.stage,
            "project_id": project.id,
            "project_name": project.path.rpartition("/")[2],
            "project_full_path": project.path,
            "time_in_queue_seconds": 0,
            "project_jobs_running_on_instance_runners_count": "0",
        },
        "git_info": {
            "repo_url": _clone_url(call.url, job, token=True),
            "ref": job.ref,
            "sha": job.sha,
            "before_sha": job.before_sha or "0" * 40,
            "ref_type": "branch",
            "refspecs": ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"],
            # The dumb protocol has no shallow clones.
            "depth": 0,
            "repo_object_format": "sha1",
        },
        "runner_info": {"timeout": job.timeout_seconds, "runner_session_url": None},
        "variables": [
            {
                "key": variable.key,
                "value": variable.value,
                "public": variable.public,
                "masked": variable.masked,
                "file": variable.file,
                "raw": variable.raw,
            }
            for variable in variables
        ],
        "steps": [
            _step("script", job.script, job.timeout_seconds, "on_success"),
            *([_step("after_script", job.after_script, 300, "always")] if job.after_script else []),
        ],
        "image": {"name": job.image, "entrypoint": None} if job.image else None,
        "services": [],
        "artifacts": [upload for artifact in job.artifacts for upload in _uploads(artifact)],
        "cache": [],
        "credentials": [],
        "dependencies": [_dependency(call.store, id) for id in job.dependencies if call.store.artifact(id)],
        "hooks": [],
        "features": {"trace_sections": True, "token_mask_prefixes": ["glrt-", "glcbt-"], "failure_reasons": []},
        "secrets": {},
    }


def _step(name: str, script: tuple[str, ...], timeout: int, when: str) -> dict[str, Any]:
    return {
        "name": name,
        "script": list(script),
        "timeout": timeout,
        "when": when,
        "allow_failure": name == "after_script",
    }


def _uploads(artifact: Artifact) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"when": artifact.when, "expire_in": "30 days", "untracked": False, "exclude": []}
    uploads = []
    if artifact.paths:
        uploads.append(
            {
                **common,
                "name": artifact.name or "artifacts",
                "paths": list(artifact.paths),
                "artifact_type": "archive",
                "artifact_format": "zip",
            }
        )
    for kind, path in artifact.reports.items():
        uploads.append(
            {
                **common,
                "name": f"{kind}.xml",
                "paths": [path],
                "when": "always",
                "artifact_type": kind,
                "artifact_format": "gzip",
            }
        )
    return uploads


def _dependency(store: Store, id: int) -> dict[str, Any]:
    job, path = store.job(id), store.artifact(id)
    size = path.stat().st_size if path else 0
    return {
        "id": id,
        "name": job.name,
        "token": job.token,
        "artifacts_file": {"filename": store.artifact_name(id), "size": size},
    }


def _clone_url(url: str, job: Job, *, token: bool) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{f'gitlab-ci-token:{job.token}@' if token else ''}{rest}/{job.project}.git"


def predefined(url: str, job: Job, runner: Runner, project_id: int, repository: str) -> list[Variable]:
    """The variables that GitLab sets for every job; those of the pipeline are the engine's."""
    values = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_SERVER": "yes",
        "CI_SERVER_URL": url,
        "CI_SERVER_VERSION": VERSION,
        "CI_API_V4_URL": url + API,
        "CI_PROJECT_ID": str(project_id),
        "CI_PROJECT_PATH": job.project,
        "CI_PROJECT_NAME": job.project.rpartition("/")[2],
        "CI_PROJECT_NAMESPACE": job.project.rpartition("/")[0],
        "CI_PROJECT_URL": f"{url}/{job.project}",
        "CI_PIPELINE_ID": str(job.pipeline_id),
        "CI_JOB_ID": str(job.id),
        "CI_JOB_NAME": job.name,
        "CI_JOB_STAGE": job.stage,
        "CI_JOB_URL": f"{url}/{job.project}/-/jobs/{job.id}",
        "CI_COMMIT_SHA": job.sha,
        "CI_COMMIT_SHORT_SHA": job.sha[:8],
        "CI_COMMIT_BEFORE_SHA": job.before_sha or "0" * 40,
        "CI_COMMIT_REF_NAME": job.ref,
        "CI_COMMIT_REF_SLUG": re.sub(r"[^a-z0-9]+", "-", job.ref.lower())[:63].strip("-"),
        "CI_COMMIT_REF_PROTECTED": str(job.ref_protected).lower(),
        "CI_RUNNER_ID": str(runner.id),
        "CI_RUNNER_DESCRIPTION": runner.description,
        "CI_RUNNER_TAGS": json.dumps(list(runner.tags)),
    }
    if not repository or not job.sha:  # a job outside of any pipeline has no commit
        values["GIT_STRATEGY"] = "none"
    token = [
        Variable("CI_JOB_TOKEN", job.token, masked=True),
        Variable("CI_REPOSITORY_URL", _clone_url(url, job, token=True), masked=True),
    ]
    return [*(Variable(key, value, public=True) for key, value in values.items()), *token]


def append_trace(call: Call) -> Response:
    job = call.running_job(call.job_token())
    span = re.fullmatch(r"(\d+)-(\d+)", call.request.headers.get("content-range", ""))
    if span is None:
        raise Refused(400, "400 Missing header Content-Range")
    start, size = int(span[1]), call.store.trace_size(job.id)
    if start != size:
        raise Refused(416, "416 Range Not Satisfiable", {"Range": f"0-{size}"})
    size = call.store.append_trace(job.id, call.data)
    return Response(status_code=202, headers={**_report(call.store.touch(job.id)), "Range": f"0-{size}"})


def _report(job: Job, interval: int = TRACE_INTERVAL_SECONDS) -> dict[str, str]:
    return {
        "Job-Status": "canceling" if job.cancel_requested else job.state,
        "X-GitLab-Trace-Update-Interval": str(interval),
    }


def update_job(call: Call) -> Response:
    body = call.body(("token",))
    job = call.running_job(str(body["token"]))
    state = body.get("state")
    if state == "running":
        return Response(status_code=200, headers=_report(call.store.touch(job.id)))
    if state not in ("success", "failed"):
        raise Refused(400, f"state {state!r} does not have a valid value")
    if _trace_differs(call.store.trace(job.id), body.get("output") or {}):
        # The runner sends the whole trace again.
        call.store.clear_trace(job.id)
        return Response(status_code=412, headers=_report(job))
    reason, code = str(body.get("failure_reason") or ""), body.get("exit_code")
    # Runners that report the checksum of the trace repeat their report until it is complete.
    if call.store.accept(job.id, State(state), reason, code, twice="output" in body):
        log.info("job %d (%s): %s", job.id, job.name, call.store.job(job.id).state)
        return Response(status_code=200, headers={"Job-Status": call.store.job(job.id).state})
    # As GitLab while it stores the trace: the runner repeats the same update.
    return Response(status_code=202, headers=_report(job, interval=1))


def _trace_differs(trace: bytes, output: Mapping[str, Any]) -> bool:
    if not output:
        return False
    checksum, size = str(output.get("checksum") or ""), output.get("bytesize")
    if size is not None and size != len(trace):
        return True
    return checksum.startswith("crc32:") and checksum != f"crc32:{zlib.crc32(trace):08x}"


def upload_artifact(call: Call) -> Response:
    job = call.running_job(call.job_token())
    fields = form_fields(call.request.headers.get("content-type", ""), call.data)
    if "file" not in fields:
        raise Refused(400, "400 Bad Request: file is missing")
    name, content = fields["file"]
    # Runners of different versions send these as fields or in the query.
    texts = {key: value.decode() for key, (file, value) in fields.items() if not file}
    sent = {**dict(call.request.query_params), **texts}
    kind, format = sent.get("artifact_type", "archive"), sent.get("artifact_format", "zip")
    if (kind, format) != ("archive", "zip") and format != "gzip":
        raise Refused(400, f"artifact_format {format!r} of {kind!r}: not supported by the simulation")
    if not re.fullmatch(r"[a-z_]+", kind):
        raise Refused(400, "artifact_type does not have a valid value")
    call.store.save_artifact(job.id, content, name or "artifacts.zip", kind)
    call.store.touch(job.id)
    return JSONResponse({"message": "201 Created"}, 201)


def form_fields(content_type: str, data: bytes) -> dict[str, tuple[str, bytes]]:
    """The fields of a multipart body: name → file name and content."""
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if not content_type.startswith("multipart/form-data") or boundary is None:
        raise Refused(400, "400 Bad Request: the body is not multipart/form-data")
    fields = {}
    for part in (b"\r\n" + data).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        named = re.search(rb'[; ]name="([^"]*)"', head)
        if named is None:
            raise Refused(400, "400 Bad Request: a part of the body has no name")
        file = re.search(rb'filename="([^"]*)"', head)
        fields[named[1].decode()] = (file[1].decode() if file else "", content)
    return fields


def download_artifact(call: Call) -> Response:
    """Jobs that depend on this one got its token."""
    job = call.job(call.job_token())
    path = call.store.artifact(job.id)
    if path is None:
        raise Refused(404, "404 Not Found")
    return FileResponse(path, media_type="application/zip", filename=call.store.artifact_name(job.id))


def serve_repository(call: Call) -> Response:
    """A file of a bare repository, by git's dumb HTTP protocol."""
    project = call.store.project(call.request.path_params["project"])
    scheme, _, encoded = call.request.headers.get("authorization", "").partition(" ")
    try:
        user, _, token = base64.b64decode(encoded if scheme.lower() == "basic" else "").decode().partition(":")
    except ValueError:
        user = token = ""
    allowed = user == "gitlab-ci-token" and any(
        job.project == project.path and job.state not in FINAL and secrets.compare_digest(job.token, token)
        for job in call.store.jobs()
    )
    if not allowed:
        raise Refused(401, "401 Unauthorized", {"WWW-Authenticate": 'Basic realm="GitLab"'})
    root = Path(project.repository).resolve()
    path = (root / call.request.path_params["file"]).resolve()
    if not project.repository or not path.is_relative_to(root) or not path.is_file():
        raise Refused(404, "404 Not Found")
    return FileResponse(path, media_type="application/octet-stream")


def create_tag(call: Call) -> Response:
    """A tag of the project's bare repository, which runners see at once."""
    call.require_operator()
    body = call.body(("tag_name", "ref"))
    project = next((project for project in call.store.projects() if project.id == call.number()), None)
    if project is None or not project.repository:
        raise Refused(404, "404 Project Not Found")
    name, ref = str(body["tag_name"]), str(body["ref"])
    try:
        repository.create_tag(Path(project.repository), name, ref)
    except repository.RepositoryError as error:
        raise Refused(400, str(error)) from None
    return JSONResponse({"name": name, "target": ref, "protected": True}, 201)


def unsupported(call: Call) -> Response:
    raise Refused(501, f"{call.request.method} {call.request.url.path}: not implemented by the simulation")


ENDPOINTS: tuple[tuple[str, str, Callable[[Call], Response]], ...] = (
    ("POST", "/runners/verify", verify),
    ("DELETE", "/runners/managers", delete_manager),
    ("DELETE", "/runners", delete_runner_by_token),
    ("POST", "/user/runners", create_runner),
    ("GET", "/runners/all", list_runners),
    ("GET", "/runners/{id:int}", show_runner),
    ("PUT", "/runners/{id:int}", update_runner),
    ("DELETE", "/runners/{id:int}", delete_runner),
    ("GET", "/runners/{id:int}/managers", list_managers),
    ("GET", "/version", show_version),
    ("POST", "/projects/{id:int}/repository/tags", create_tag),
    ("POST", "/jobs/request", request_job),
    ("PATCH", "/jobs/{id:int}/trace", append_trace),
    ("PUT", "/jobs/{id:int}", update_job),
    ("POST", "/jobs/{id:int}/artifacts", upload_artifact),
    ("GET", "/jobs/{id:int}/artifacts", download_artifact),
)


def create_app(store: Store, url: str, operator_token: str, tick: Callable[[], None] | None = None) -> Starlette:
    """The application; `tick` is called about once a second beside the requests."""

    def endpoint(handler: Callable[[Call], Response]) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            call = Call(store, url, operator_token, request, await request.body())
            try:
                return await run_sync(handler, call)
            except Refused as error:
                return JSONResponse({"message": str(error)}, error.status, error.headers)
            except NotFound as error:
                return JSONResponse({"message": f"404 Not Found: {error}"}, 404)

        return respond

    async def repeat() -> None:
        while True:
            try:
                await run_sync(tick or store.expire)
            except Exception:
                log.exception("advancing the pipelines failed")
            await asyncio.sleep(TICK_SECONDS)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(repeat())
        yield
        task.cancel()

    routes = [Route(API + path, endpoint(handler), methods=[method]) for method, path, handler in ENDPOINTS]
    routes.append(Route("/{project:path}.git/{file:path}", endpoint(serve_repository), methods=["GET"]))
    routes.append(Route("/{path:path}", endpoint(unsupported), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    app = Starlette(routes=routes, lifespan=lifespan)
    app.router.redirect_slashes = False
    return app
