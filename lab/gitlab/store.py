"""Projects, runners and jobs of the lab's GitLab, in SQLite; traces and artifacts are files beside the database.

Every public method is one transaction, so a request is answered only after its changes are on disk. The rules about
jobs that GitLab's coordinator holds are here: which runner may take which job, one job per resource group at a time,
and when a job that its runner abandoned fails.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from threading import RLock
from typing import Any

from pydantic import TypeAdapter

Clock = Callable[[], float]
"""Seconds since the epoch."""

FIRST_ID = 1000
LOST_SECONDS = 600.0
"""A running job without a sign of its runner for this long fails: a runner sends one every few seconds."""


class GitlabError(Exception):
    """One sentence for the client or the operator."""


class NotFound(GitlabError):
    """The object does not exist, or the token does not give access to it."""


class State(StrEnum):
    CREATED = "created"
    """Waits for earlier jobs; the engine makes it pending."""
    MANUAL = "manual"
    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"
    SKIPPED = "skipped"


FINAL = frozenset({State.SUCCESS, State.FAILED, State.CANCELED, State.SKIPPED})
ADVANCES: Mapping[State, frozenset[State]] = {
    State.CREATED: frozenset({State.PENDING, State.MANUAL, State.SKIPPED, State.CANCELED}),
    State.MANUAL: frozenset({State.PENDING, State.SKIPPED, State.CANCELED}),
    State.PENDING: frozenset({State.SKIPPED, State.CANCELED, State.FAILED}),
}
"""State of a job that no runner has → states that the engine can set."""


@dataclass(frozen=True, slots=True)
class Variable:
    key: str
    value: str
    masked: bool = False
    file: bool = False
    raw: bool = False
    public: bool = False
    protected: bool = False
    """Of a project: for jobs of protected branches and tags only."""
    scope: str = "*"
    """Of a project: the environments whose jobs get it; * stands for any text."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One upload of a job. `reports` are kept as they are declared: kind → path."""

    paths: tuple[str, ...]
    when: str = "on_success"
    name: str = ""
    reports: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Project:
    id: int
    path: str
    """Group and name, for example `slipway/slipway`."""
    repository: str = ""
    """A bare git repository on this machine that runners clone from; empty: jobs need GIT_STRATEGY none."""


@dataclass(frozen=True, slots=True)
class Runner:
    id: int
    token: str
    description: str = ""
    runner_type: str = "instance_type"
    project_id: int | None = None
    tags: tuple[str, ...] = ()
    run_untagged: bool = True
    locked: bool = False
    access_level: str = "not_protected"
    maximum_timeout: int | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Manager:
    """One process of a runner on one host, named by its `.runner_system_id`."""

    runner_id: int
    system_id: str
    version: str = ""
    executor: str = ""
    contacted_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job; `Store.queue` sets id and token. `dependencies` are the ids of jobs whose artifacts it gets."""

    name: str
    script: tuple[str, ...]
    id: int = 0
    token: str = ""
    project: str = "slipway/slipway"
    pipeline_id: int = 0
    ref: str = "main"
    ref_protected: bool = False
    sha: str = ""
    before_sha: str = ""
    stage: str = "test"
    tags: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()
    after_script: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    dependencies: tuple[int, ...] = ()
    image: str = ""
    timeout_seconds: int = 3600
    resource_group: str = ""
    allow_failure: bool = False
    state: State = State.PENDING
    failure_reason: str = ""
    exit_code: int | None = None
    cancel_requested: bool = False
    graceful_cancel: bool = False
    """Whether its runner ends it in order: it then runs after_script and reports the end."""
    accepted_state: State | None = None
    """The end that its runner reported once; the repeated report completes the job."""
    runner_id: int | None = None
    system_id: str = ""
    started_at: float = 0.0
    updated_at: float = 0.0
    finished_at: float = 0.0


_JOB: TypeAdapter[Job] = TypeAdapter(Job)
_RUNNER: TypeAdapter[Runner] = TypeAdapter(Runner)
_MANAGER: TypeAdapter[Manager] = TypeAdapter(Manager)
_PROJECT: TypeAdapter[Project] = TypeAdapter(Project)


class Store:
    def __init__(self, folder: Path, clock: Clock = time.time, lost_seconds: float = LOST_SECONDS) -> None:
        self._clock = clock
        self._lost_seconds = lost_seconds
        self._lock = RLock()
        self._folder = folder
        for path in (folder, folder / "traces", folder / "artifacts"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The file contains the tokens of runners and the variables of jobs.
        database = folder / "gitlab.sqlite3"
        os.close(os.open(database, os.O_CREAT | os.O_RDWR, 0o600))
        self._sql = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=FULL")
        self._sql.executescript(
            """
            CREATE TABLE IF NOT EXISTS sequence (next_id INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS project (path TEXT PRIMARY KEY, body TEXT NOT NULL);
            CREATE TABLE IF NOT EXISTS runner (id INTEGER PRIMARY KEY, token TEXT UNIQUE NOT NULL, body TEXT NOT NULL);
            CREATE TABLE IF NOT EXISTS manager (
                runner_id INTEGER NOT NULL, system_id TEXT NOT NULL, body TEXT NOT NULL,
                PRIMARY KEY (runner_id, system_id)
            );
            CREATE TABLE IF NOT EXISTS job (
                id INTEGER PRIMARY KEY, pipeline_id INTEGER NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL
            );
            CREATE INDEX IF NOT EXISTS job_state ON job (state);
            CREATE INDEX IF NOT EXISTS job_pipeline ON job (pipeline_id);
            """
        )
        if self._sql.execute("SELECT count(*) FROM sequence").fetchone()[0] == 0:
            self._sql.execute("INSERT INTO sequence VALUES (?)", (FIRST_ID,))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All changes of the block are written to disk, or none. Nested blocks join the outer one."""
        with self._lock:
            if self._sql.in_transaction:
                yield self._sql
                return
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield self._sql
            except BaseException:
                self._sql.execute("ROLLBACK")
                raise
            self._sql.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._sql.close()

    def now(self) -> float:
        return self._clock()

    def new_id(self) -> int:
        """Ids are one sequence over all kinds and are never reused."""
        with self.transaction() as sql:
            id = int(sql.execute("SELECT next_id FROM sequence").fetchone()[0])
            sql.execute("UPDATE sequence SET next_id = ?", (id + 1,))
            return id

    # Projects

    def put_project(self, path: str, repository: str = "") -> Project:
        """Create a project, or change where its repository is."""
        with self.transaction() as sql:
            row = sql.execute("SELECT body FROM project WHERE path = ?", (path,)).fetchone()
            id = _PROJECT.validate_json(row[0]).id if row else self.new_id()
            project = Project(id, path, repository)
            sql.execute("INSERT OR REPLACE INTO project VALUES (?, ?)", (path, _PROJECT.dump_json(project).decode()))
            return project

    def project(self, path: str) -> Project:
        with self.transaction() as sql:
            row = sql.execute("SELECT body FROM project WHERE path = ?", (path,)).fetchone()
        if row is None:
            raise NotFound(f"project {path!r}: does not exist")
        return _PROJECT.validate_json(row[0])

    def projects(self) -> list[Project]:
        with self.transaction() as sql:
            return [_PROJECT.validate_json(row[0]) for row in sql.execute("SELECT body FROM project ORDER BY path")]

    # Runners

    def create_runner(self, **fields: Any) -> Runner:
        """A runner with an authentication token, which GitLab shows in this one response."""
        with self.transaction():
            return self._put_runner(Runner(id=self.new_id(), token=f"glrt-{secrets.token_urlsafe(15)}", **fields))

    def runners(self) -> list[Runner]:
        with self.transaction() as sql:
            return [_RUNNER.validate_json(row[0]) for row in sql.execute("SELECT body FROM runner ORDER BY id")]

    def runner(self, id: int) -> Runner:
        with self.transaction() as sql:
            row = sql.execute("SELECT body FROM runner WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise NotFound(f"runner {id}: does not exist")
        return _RUNNER.validate_json(row[0])

    def runner_by_token(self, token: str) -> Runner | None:
        with self.transaction() as sql:
            row = sql.execute("SELECT body FROM runner WHERE token = ?", (token,)).fetchone()
        return _RUNNER.validate_json(row[0]) if row else None

    def change_runner(self, id: int, **fields: Any) -> Runner:
        with self.transaction():
            return self._put_runner(replace(self.runner(id), **fields))

    def delete_runner(self, id: int) -> None:
        """Delete a runner and its managers; its running jobs fail."""
        with self.transaction() as sql:
            self.runner(id)
            sql.execute("DELETE FROM runner WHERE id = ?", (id,))
            sql.execute("DELETE FROM manager WHERE runner_id = ?", (id,))
            for job in self._jobs_in(State.RUNNING):
                if job.runner_id == id:
                    self._finish(job, State.FAILED, "runner_system_failure")

    def managers(self, runner_id: int) -> list[Manager]:
        with self.transaction() as sql:
            rows = sql.execute("SELECT body FROM manager WHERE runner_id = ? ORDER BY system_id", (runner_id,))
            return [_MANAGER.validate_json(row[0]) for row in rows]

    def contact(self, runner: Runner, system_id: str, info: Mapping[str, Any]) -> None:
        """Record that a runner's process is online."""
        manager = Manager(
            runner.id,
            system_id,
            version=str(info.get("version", "")),
            executor=str(info.get("executor", "")),
            contacted_at=self.now(),
        )
        with self.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO manager VALUES (?, ?, ?)",
                (runner.id, system_id, _MANAGER.dump_json(manager).decode()),
            )

    def delete_manager(self, runner: Runner, system_id: str) -> None:
        with self.transaction() as sql:
            gone = sql.execute(
                "DELETE FROM manager WHERE runner_id = ? AND system_id = ?", (runner.id, system_id)
            ).rowcount
        if not gone:
            raise NotFound(f"runner {runner.id}: no manager with system_id {system_id!r}")

    # Jobs

    def queue(self, job: Job) -> Job:
        """Add a job in state pending, created or manual; returns it with its id and token."""
        if job.state not in {State.PENDING, State.CREATED, State.MANUAL}:
            raise GitlabError(f"job {job.name!r}: cannot be queued as {job.state}. Queue it pending, created or manual")
        with self.transaction():
            self.project(job.project)
            return self._put_job(replace(job, id=self.new_id(), token=f"glcbt-{secrets.token_urlsafe(15)}"))

    def job(self, id: int) -> Job:
        with self.transaction() as sql:
            row = sql.execute("SELECT body FROM job WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise NotFound(f"job {id}: does not exist")
        return _JOB.validate_json(row[0])

    def jobs(self, pipeline_id: int | None = None) -> list[Job]:
        """The jobs of a pipeline, or all, oldest first."""
        with self.transaction() as sql:
            rows = sql.execute(
                "SELECT body FROM job WHERE pipeline_id = coalesce(?, pipeline_id) ORDER BY id", (pipeline_id,)
            )
            return [_JOB.validate_json(row[0]) for row in rows]

    def advance(self, id: int, state: State, **fields: Any) -> Job:
        """Change the state of a job that no runner has, and perhaps other fields (variables, dependencies)."""
        with self.transaction():
            job = self.job(id)
            if state not in ADVANCES.get(job.state, frozenset()):
                raise GitlabError(f"job {id}: cannot change from {job.state} to {state}")
            if state in FINAL:
                return self._finish(replace(job, **fields), state, job.failure_reason)
            return self._put_job(replace(job, state=state, **fields))

    def cancel(self, id: int) -> Job:
        """Cancel a job: at once, or by its runner when that ends jobs in order and next reports."""
        with self.transaction():
            job = self.job(id)
            if job.state in FINAL:
                return job
            if job.state == State.RUNNING and job.graceful_cancel:
                return self._put_job(replace(job, cancel_requested=True))
            return self._finish(job, State.CANCELED, "")

    def request(self, runner: Runner, system_id: str, *, graceful_cancel: bool = False) -> Job | None:
        """Give the oldest suitable pending job to a runner, or None."""
        with self.transaction():
            self.expire()
            if runner.paused:
                return None
            busy = {job.resource_group for job in self._jobs_in(State.RUNNING)}
            for job in self._jobs_in(State.PENDING):
                if self._suits(runner, job) and (not job.resource_group or job.resource_group not in busy):
                    limits = [job.timeout_seconds, *([runner.maximum_timeout] if runner.maximum_timeout else [])]
                    return self._put_job(
                        replace(
                            job,
                            state=State.RUNNING,
                            runner_id=runner.id,
                            system_id=system_id,
                            graceful_cancel=graceful_cancel,
                            timeout_seconds=min(limits),
                            started_at=self.now(),
                            updated_at=self.now(),
                        )
                    )
            return None

    def _suits(self, runner: Runner, job: Job) -> bool:
        if runner.project_id is not None and runner.project_id != self.project(job.project).id:
            return False
        if runner.access_level == "ref_protected" and not job.ref_protected:
            return False
        return set(job.tags) <= set(runner.tags) if job.tags else runner.run_untagged

    def running(self, id: int, token: str) -> Job:
        """The job of a runner's report. Raises NotFound when the token is another job's."""
        with self.transaction():
            self.expire()
            job = self.job(id)
            if not secrets.compare_digest(job.token, token):
                raise NotFound(f"job {id}: the token is not valid")
            return job

    def touch(self, id: int) -> Job:
        """Record a sign of the job's runner."""
        with self.transaction():
            return self._put_job(replace(self.job(id), updated_at=self.now()))

    def accept(
        self, id: int, state: State, failure_reason: str = "", exit_code: int | None = None, *, twice: bool = False
    ) -> bool:
        """The end that a runner reports. With `twice` the first report records it, and the second completes the job.

        Returns whether the job is complete. A cancelled job ends as canceled, whatever its script did.
        """
        with self.transaction():
            job = replace(self.job(id), exit_code=exit_code, failure_reason=failure_reason, updated_at=self.now())
            if twice and job.accepted_state is None:
                self._put_job(replace(job, accepted_state=state))
                return False
            self._finish(job, State.CANCELED if job.cancel_requested else state, failure_reason)
            return True

    def expire(self) -> None:
        """Fail jobs that are past their timeout, and jobs whose runner is silent."""
        with self.transaction():
            for job in self._jobs_in(State.RUNNING):
                late = self.now() - job.started_at > job.timeout_seconds
                if not late and self.now() - job.updated_at <= self._lost_seconds:
                    continue
                if job.accepted_state is not None:
                    self._finish(job, job.accepted_state, job.failure_reason)
                elif job.cancel_requested:
                    self._finish(job, State.CANCELED, "")
                else:
                    self._finish(job, State.FAILED, "job_execution_timeout" if late else "stuck_or_timeout_failure")

    # Traces and artifacts

    def trace(self, id: int) -> bytes:
        self.job(id)
        path = self._trace_path(id)
        return path.read_bytes() if path.exists() else b""

    def trace_size(self, id: int) -> int:
        path = self._trace_path(id)
        return path.stat().st_size if path.exists() else 0

    def append_trace(self, id: int, content: bytes) -> int:
        """Returns the size of the whole trace."""
        with self._lock, self._trace_path(id).open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def clear_trace(self, id: int) -> None:
        with self._lock:
            self._trace_path(id).unlink(missing_ok=True)

    def save_artifact(self, id: int, content: bytes, name: str, kind: str = "archive") -> Path:
        """Store the archive of a job, or one of its reports, with the name that its runner gave it."""
        path = self._artifact_path(id, kind)
        with self._lock:
            temporary = path.with_suffix(".partial")
            temporary.write_bytes(content)
            temporary.replace(path)
            path.with_suffix(".name").write_text(name, encoding="utf-8")
        return path

    def artifact(self, job_id: int, kind: str = "archive") -> Path | None:
        """The archive (zip) of a job's artifacts, or a report (gzip) such as `junit`."""
        path = self._artifact_path(job_id, kind)
        return path if path.exists() else None

    def artifact_name(self, job_id: int) -> str:
        path = self._artifact_path(job_id).with_suffix(".name")
        return path.read_text(encoding="utf-8") if path.exists() else "artifacts.zip"

    def _trace_path(self, id: int) -> Path:
        return self._folder / "traces" / f"{id}.log"

    def _artifact_path(self, id: int, kind: str = "archive") -> Path:
        return self._folder / "artifacts" / (f"{id}.zip" if kind == "archive" else f"{id}.{kind}.gz")

    # Rows

    def _put_runner(self, runner: Runner) -> Runner:
        self._sql.execute(
            "INSERT OR REPLACE INTO runner VALUES (?, ?, ?)",
            (runner.id, runner.token, _RUNNER.dump_json(runner).decode()),
        )
        return runner

    def _put_job(self, job: Job) -> Job:
        self._sql.execute(
            "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?)",
            (job.id, job.pipeline_id, job.state, _JOB.dump_json(job).decode()),
        )
        return job

    def _finish(self, job: Job, state: State, reason: str) -> Job:
        return self._put_job(
            replace(job, state=state, failure_reason=reason if state == State.FAILED else "", finished_at=self.now())
        )

    def _jobs_in(self, state: State) -> list[Job]:
        rows = self._sql.execute("SELECT body FROM job WHERE state = ? ORDER BY id", (state,))
        return [_JOB.validate_json(row[0]) for row in rows.fetchall()]
