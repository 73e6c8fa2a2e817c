"""Runs pipelines over the store: decides which jobs become pending, manual or skipped, as GitLab does.

`decide` and `composite` are GitLab's rules without a database. `Engine` applies them to the jobs of the store; whoever
changes a job's state calls `advance` afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import TypeAdapter

from lab.gitlab.documents import PipelineError, ReadFile
from lab.gitlab.expressions import expand, names_in
from lab.gitlab.pipeline import ENTRY, Planned, plan, read_pipeline, with_variables
from lab.gitlab.store import FINAL, GitlabError, Job, State, Store, Variable

ENTERED = {
    "on_success": frozenset({"success", "skipped"}),
    "manual": frozenset({"success", "skipped"}),
    "on_failure": frozenset({"failed"}),
    "always": frozenset({"success", "failed", "skipped"}),
}
"""`when` → results of the earlier jobs at which a job runs. With `needs`, skipped is not a success."""
DECLARED = (
    "name", "script", "project", "pipeline_id", "ref", "ref_protected", "sha", "before_sha", "stage", "tags",
    "variables", "after_script", "artifacts", "image", "timeout_seconds", "resource_group", "allow_failure",
)  # fmt: skip
"""Fields of a job that another attempt has too."""


@dataclass(frozen=True, slots=True)
class Node:
    """What the graph knows of a job."""

    name: str
    stage: int
    when: str = "on_success"
    allow_failure: bool = False
    needs: tuple[str, ...] | None = None
    artifacts_from: tuple[str, ...] | None = None
    """Jobs whose artifacts are fetched; None: those of all earlier stages."""
    interruptible: bool = False
    retry_max: int = 0
    retry_when: tuple[str, ...] = ("always",)


@dataclass(frozen=True, slots=True)
class Run:
    """A pipeline."""

    id: int
    project: str
    ref: str
    sha: str
    source: str
    nodes: tuple[Node, ...]


_RUN: TypeAdapter[Run] = TypeAdapter(Run)


def composite(states: Iterable[tuple[State, bool]], *, needs: bool) -> str:
    """The result of several jobs (state, allow_failure), in the order in which GitLab tries the cases."""
    found = {_meaning(state, allow_failure) for state, allow_failure in states}
    passed = {"success", "warning"}
    if needs and found & {"skipped", "ignored"}:
        return "skipped"
    if needs and not found <= {*passed, "failed", "canceled"}:
        return "pending"
    if found and found <= {"skipped", "ignored"}:
        return "skipped"
    if found <= {*passed, "skipped", "ignored"}:
        return "success"
    if found <= {*passed, "canceled", "skipped", "ignored"}:
        return "canceled"
    for active in ("running", "pending", "manual", "created"):
        if active in found:
            return active
    return "failed"


def _meaning(state: State, allow_failure: bool) -> str:
    if allow_failure and state in (State.FAILED, State.CANCELED):
        return "warning"
    return "ignored" if allow_failure and state == State.MANUAL else str(state)


def prerequisites(nodes: Sequence[Node], node: Node) -> list[Node]:
    if node.needs is not None:
        return [other for other in nodes if other.name in node.needs]
    return [other for other in nodes if other.stage < node.stage]


def decide(nodes: Sequence[Node], states: Mapping[str, State]) -> dict[str, State]:
    """The next state of each job that waits in `created` and whose earlier jobs are complete."""
    after = dict(states)
    while True:
        changes = {}
        for node in nodes:
            if after[node.name] != State.CREATED:
                continue
            earlier = [(after[other.name], other.allow_failure) for other in prerequisites(nodes, node)]
            result = composite(earlier, needs=node.needs is not None)
            if result not in ("success", "failed", "canceled", "skipped"):
                continue
            entered = ENTERED[node.when] - ({"skipped"} if node.needs is not None and node.when != "always" else set())
            runs = State.MANUAL if node.when == "manual" else State.PENDING
            changes[node.name] = runs if result in entered else State.SKIPPED
        if not changes:
            return {name: state for name, state in after.items() if state != states[name]}
        after |= changes


def dependents(nodes: Sequence[Node], name: str) -> list[str]:
    """The jobs that wait for a job, directly or through others."""
    found = {name}
    for _ in nodes:
        found |= {node.name for node in nodes if {other.name for other in prerequisites(nodes, node)} & found}
    return [node.name for node in nodes if node.name in found and node.name != name]


def resolve(variables: Mapping[str, str]) -> dict[str, str]:
    """Replace variables in the values of others; a circular one stays as it is."""

    def value_of(name: str, users: tuple[str, ...]) -> str:
        text = variables[name]
        used = [other for other in names_in(text) if other in variables and other not in (*users, name)]
        return expand(text, {other: value_of(other, (*users, name)) for other in used})

    return {name: value_of(name, ()) for name in variables}


def visible(variables: Sequence[Variable], environment: str, protected: bool) -> dict[str, Variable]:
    """The project's variables that a job gets: protected ones on protected refs, scoped ones in their environments."""
    return {
        variable.key: variable
        for variable in variables
        if protected or not variable.protected
        if variable.scope == "*" or (environment and fnmatchcase(environment, variable.scope))
    }


def node_of(entry: Planned, stages: Sequence[str], names: AbstractSet[str]) -> Node:
    spec = entry.spec
    needs = None if spec.needs is None else tuple(need.job for need in spec.needs if need.job in names)
    artifacts_from = spec.dependencies
    if artifacts_from is None and spec.needs is not None:
        artifacts_from = tuple(need.job for need in spec.needs if need.artifacts and need.job in names)
    return Node(
        name=spec.name,
        stage=stages.index(spec.stage),
        when=entry.when,
        allow_failure=entry.allow_failure,
        needs=needs,
        artifacts_from=artifacts_from,
        interruptible=spec.interruptible,
        retry_max=spec.retry_max,
        retry_when=spec.retry_when,
    )


class Engine:
    def __init__(self, store: Store, url: str = "https://gitlab.invalid") -> None:
        self._store = store
        self._url = url
        with store.transaction() as sql:
            sql.execute("CREATE TABLE IF NOT EXISTS pipeline (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")

    # Pipelines

    def create(
        self,
        read: ReadFile,
        project: str,
        ref: str,
        sha: str,
        *,
        source: str = "push",
        tag: bool = False,
        protected: bool = True,
        default_branch: str = "main",
        variables: Sequence[Variable] = (),
        changed: AbstractSet[str] | None = None,
        merge_request: int | None = None,
    ) -> Run:
        """Create a pipeline and start its first jobs. `variables` are the project's and those given to the pipeline."""
        with self._store.transaction() as sql:
            id = self._store.new_id()
            predefined = {
                "CI": "true",
                "GITLAB_CI": "true",
                "CI_SERVER_URL": self._url,
                "CI_API_V4_URL": f"{self._url}/api/v4",
                "CI_PROJECT_ID": str(self._store.project(project).id),
                "CI_PROJECT_PATH": project,
                "CI_DEFAULT_BRANCH": default_branch,
                "CI_PIPELINE_ID": str(id),
                "CI_PIPELINE_SOURCE": source,
                "CI_COMMIT_SHA": sha,
                "CI_COMMIT_SHORT_SHA": sha[:8],
                "CI_COMMIT_REF_NAME": ref,
                "CI_COMMIT_REF_PROTECTED": str(protected).lower(),
            }
            if merge_request is not None:
                predefined["CI_MERGE_REQUEST_IID"] = str(merge_request)
            else:
                predefined["CI_COMMIT_TAG" if tag else "CI_COMMIT_BRANCH"] = ref
            unscoped = visible(variables, "", protected)
            outside = predefined | {key: variable.value for key, variable in unscoped.items()}
            pipeline = read_pipeline(read, outside)
            planned = plan(pipeline, outside, changed)
            if not planned:
                raise GitlabError(f"{ENTRY}: no job is allowed for {source} of {ref}. Correct the rules or variables")
            names = {entry.spec.name for entry in planned}
            run = Run(
                id,
                project,
                ref,
                sha,
                source,
                tuple(node_of(entry, pipeline.stages, names) for entry in planned),
            )
            sql.execute("INSERT INTO pipeline VALUES (?, ?)", (id, _RUN.dump_json(run).decode()))
            for entry in planned:
                named = entry.spec.environment.name if entry.spec.environment else ""
                given = visible(variables, expand(named, {**predefined, **entry.variables}), protected)
                self._queue(run, entry, predefined, given, protected)
            if source in ("push", "merge_request_event"):
                self._cancel_redundant(run)
            self._advance(run)
            return run

    def _queue(
        self, run: Run, entry: Planned, predefined: Mapping[str, str], given: Mapping[str, Variable], protected: bool
    ) -> None:
        if entry.spec.environment and entry.spec.environment.auto_stop_in:
            raise PipelineError(
                f"{entry.spec.file}: {entry.spec.name}.environment.auto_stop_in: is not run by lab.gitlab. Remove it."
            )
        own = {"CI_JOB_NAME": entry.spec.name, "CI_JOB_STAGE": entry.spec.stage}
        if entry.spec.environment:
            own["CI_ENVIRONMENT_NAME"] = entry.spec.environment.name
        # The value of a file variable is a path that only the runner knows.
        known = {key: variable.value for key, variable in given.items() if not variable.file}
        values = resolve({**predefined, **own, **entry.variables, **known})
        spec = with_variables(entry, values).spec
        self._store.queue(
            Job(
                name=spec.name,
                script=spec.script,
                project=run.project,
                pipeline_id=run.id,
                ref=run.ref,
                ref_protected=protected,
                sha=run.sha,
                stage=spec.stage,
                tags=spec.tags,
                variables=(
                    *(Variable(key, value, public=True) for key, value in values.items() if key not in given),
                    *given.values(),
                ),
                after_script=spec.after_script,
                artifacts=spec.artifacts,
                image=spec.image,
                timeout_seconds=spec.timeout_seconds,
                resource_group=spec.resource_group,
                allow_failure=entry.allow_failure,
                state=State.CREATED,
            )
        )

    def run(self, id: int) -> Run:
        with self._store.transaction() as sql:
            row = sql.execute("SELECT body FROM pipeline WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise GitlabError(f"pipeline {id}: does not exist")
        return _RUN.validate_json(row[0])

    def runs(self) -> list[Run]:
        with self._store.transaction() as sql:
            return [_RUN.validate_json(row[0]) for row in sql.execute("SELECT body FROM pipeline ORDER BY id")]

    def _unfinished(self) -> list[Run]:
        """A failed job may be repeated."""
        ended = (State.SUCCESS, State.CANCELED, State.SKIPPED)
        with self._store.transaction() as sql:
            rows = sql.execute(
                "SELECT body FROM pipeline WHERE id IN (SELECT pipeline_id FROM job WHERE state NOT IN (?, ?, ?))",
                ended,
            )
            return [_RUN.validate_json(row[0]) for row in rows.fetchall()]

    def jobs(self, run: Run) -> dict[str, Job]:
        """The newest attempt of each job."""
        return {job.name: job for job in self._store.jobs(run.id)}

    def status(self, run: Run) -> str:
        jobs = self.jobs(run)
        return composite(((jobs[node.name].state, node.allow_failure) for node in run.nodes), needs=False)

    # Changes

    def advance(self) -> None:
        """Start, skip or repeat jobs after others ended."""
        with self._store.transaction():
            self._store.expire()
            for run in self._unfinished():
                self._advance(run)

    def _advance(self, run: Run) -> None:
        jobs_of_run = self._store.jobs(run.id)
        for node in run.nodes:
            attempts = [job for job in jobs_of_run if job.name == node.name]
            failed = attempts[-1].state == State.FAILED
            retried = attempts[-1].failure_reason in node.retry_when or "always" in node.retry_when
            if failed and retried and len(attempts) <= node.retry_max:
                self._repeat(attempts[-1], State.CREATED)
        jobs = self.jobs(run)
        for name, state in decide(run.nodes, {name: job.state for name, job in jobs.items()}).items():
            if state == State.PENDING:
                self._start(run, jobs, name)
            else:
                self._store.advance(jobs[name].id, state)

    def _start(self, run: Run, jobs: Mapping[str, Job], name: str) -> Job:
        node = next(node for node in run.nodes if node.name == name)
        sources = node.artifacts_from
        if sources is None:
            sources = tuple(other.name for other in run.nodes if other.stage < node.stage)
        ids = [jobs[source].id for source in sources if source in jobs]
        return self._store.advance(
            jobs[name].id, State.PENDING, dependencies=tuple(id for id in ids if self._store.artifact(id))
        )

    def _repeat(self, job: Job, state: State) -> Job:
        return self._store.queue(Job(**{name: getattr(job, name) for name in DECLARED}, state=state))

    def _repeat_skipped(self, run: Run, name: str) -> None:
        """Jobs that were skipped because of this one get another chance."""
        jobs = self.jobs(run)
        for other in dependents(run.nodes, name):
            if jobs[other].state == State.SKIPPED:
                self._repeat(jobs[other], State.CREATED)

    def play(self, job_id: int) -> Job:
        """Start a manual job."""
        with self._store.transaction():
            job = self._store.job(job_id)
            if job.state != State.MANUAL:
                raise GitlabError(f"job {job_id}: is {job.state}, not manual. Retry a job that has ended")
            run = self.run(job.pipeline_id)
            started = self._start(run, self.jobs(run), job.name)
            self._repeat_skipped(run, job.name)
            return started

    def retry(self, job_id: int) -> Job:
        """Run a job that has ended again, and then the jobs that were skipped because of it."""
        with self._store.transaction():
            job = self._store.job(job_id)
            run = self.run(job.pipeline_id)
            if job.state not in FINAL or self.jobs(run)[job.name].id != job_id:
                raise GitlabError(f"job {job_id}: is {job.state} or was repeated before. Retry the newest attempt")
            self._repeat(job, State.CREATED)
            self._repeat_skipped(run, job.name)
            jobs = self.jobs(run)
            return self._start(run, jobs, job.name)

    def cancel(self, id: int) -> None:
        """Cancel a pipeline: running jobs end when their runner reports."""
        with self._store.transaction():
            for job in self.jobs(self.run(id)).values():
                self._store.cancel(job.id)

    def _cancel_redundant(self, run: Run) -> None:
        """Cancel older pipelines of the ref, unless one of their jobs that is not interruptible has started."""
        for older in self.runs():
            if (older.project, older.ref, older.source) != (run.project, run.ref, run.source) or older.id == run.id:
                continue
            jobs = self.jobs(older)
            waits = (State.CREATED, State.PENDING, State.MANUAL, State.SKIPPED, State.CANCELED)
            if all(node.interruptible or jobs[node.name].state in waits for node in older.nodes):
                self.cancel(older.id)
