"""The pipeline engine: GitLab's rules as tables, and whole pipelines on a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.gitlab.documents import PipelineError
from lab.gitlab.engine import Engine, Node, Run, composite, decide, dependents, resolve, visible
from lab.gitlab.store import GitlabError, Job, State, Store, Variable

C, P, R, S, F, X, K, M = (
    State.CREATED,
    State.PENDING,
    State.RUNNING,
    State.SUCCESS,
    State.FAILED,
    State.CANCELED,
    State.SKIPPED,
    State.MANUAL,
)


@pytest.mark.parametrize(
    ("states", "stages", "needs"),
    [
        ([], "success", "success"),
        ([(S, False)], "success", "success"),
        ([(S, False), (F, False)], "failed", "failed"),
        ([(S, False), (F, True)], "success", "success"),
        ([(S, False), (R, False)], "running", "pending"),
        ([(F, False), (R, False)], "running", "pending"),
        ([(S, False), (K, False)], "success", "skipped"),
        ([(F, False), (K, False)], "failed", "skipped"),
        ([(K, False)], "skipped", "skipped"),
        ([(S, False), (X, False)], "canceled", "canceled"),
        ([(X, False)], "canceled", "canceled"),
        ([(M, False)], "manual", "pending"),
        ([(M, True)], "skipped", "skipped"),
        ([(S, False), (M, True)], "success", "skipped"),
        ([(C, False)], "created", "pending"),
        ([(P, False)], "pending", "pending"),
    ],
)
def test_the_result_of_several_jobs(states: list[tuple[State, bool]], stages: str, needs: str) -> None:
    assert composite(states, needs=False) == stages
    assert composite(states, needs=True) == needs


# A chain by needs: apply → verify, a rollback for each, and one that always runs.
CHAIN = (
    Node("apply", 0, needs=()),
    Node("verify", 0, needs=("apply",)),
    Node("undo-apply", 0, "on_failure", needs=("apply",)),
    Node("undo-verify", 0, "on_failure", needs=("verify",)),
    Node("report", 0, "always", needs=("verify",)),
)
# Stages: two tests, then an approval that blocks, then deploy; a notice on failure.
STAGES = (
    Node("a", 0),
    Node("b", 0, allow_failure=True),
    Node("approve", 1, "manual"),
    Node("optional", 1, "manual", allow_failure=True),
    Node("deploy", 2),
    Node("notice", 3, "on_failure"),
)


@pytest.mark.parametrize(
    ("nodes", "states", "changes"),
    [
        (CHAIN, {}, {"apply": P}),
        (CHAIN, {"apply": R}, {}),
        (CHAIN, {"apply": S}, {"verify": P, "undo-apply": K}),
        # Skipped needs count as skipped, so only the rollback of the step that failed runs.
        (CHAIN, {"apply": F}, {"verify": K, "undo-apply": P, "undo-verify": K, "report": P}),
        (CHAIN, {"apply": S, "undo-apply": K, "verify": F}, {"undo-verify": P, "report": P}),
        (CHAIN, {"apply": S, "undo-apply": K, "verify": S}, {"undo-verify": K, "report": P}),
        (CHAIN, {"apply": X}, {"verify": K, "undo-apply": K, "undo-verify": K, "report": P}),
        (STAGES, {}, {"a": P, "b": P}),
        (STAGES, {"a": S, "b": R}, {}),
        (STAGES, {"a": S, "b": F}, {"approve": M, "optional": M}),
        (STAGES, {"a": S, "b": S, "approve": M, "optional": M}, {}),
        (STAGES, {"a": S, "b": S, "approve": S, "optional": M}, {"deploy": P}),
        (STAGES, {"a": F, "b": S}, {"approve": K, "optional": K, "deploy": K, "notice": P}),
        (STAGES, {"a": S, "b": S, "approve": S, "optional": M, "deploy": S}, {"notice": K}),
    ],
)
def test_which_jobs_come_next(nodes: tuple[Node, ...], states: dict[str, State], changes: dict[str, State]) -> None:
    assert decide(nodes, {node.name: C for node in nodes} | states) == changes


def test_dependents() -> None:
    assert dependents(CHAIN, "verify") == ["undo-verify", "report"]
    assert dependents(STAGES, "approve") == ["deploy", "notice"]


def test_variables_in_variables() -> None:
    assert resolve({"A": "a", "B": "$A/${A}", "C": "$B$C", "D": "$NONE$$A"}) == {
        "A": "a", "B": "a/a", "C": "a/a$C", "D": "$NONE$A",
    }  # fmt: skip


PIPELINE = """
stages: [build, deploy, after]
build:
  stage: build
  tags: [build]
  interruptible: true
  script: make
  retry: { max: 1, when: runner_system_failure }
  artifacts: { paths: [out/] }
test:
  stage: build
  interruptible: true
  needs: []
  script: make test
apply:
  stage: deploy
  needs: [build, test]
  resource_group: $WHERE
  environment: { name: stage }
  variables: { WHERE: "group/$CI_COMMIT_BRANCH", NESTED: "$WHERE!" }
  rules: [{ when: manual }]
  script: deploy
verify:
  stage: deploy
  needs: [{ job: apply, artifacts: false }]
  script: verify
undo:
  stage: after
  needs: [verify]
  when: on_failure
  script: undo
"""


class Pipelines:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.engine = Engine(store)
        store.put_project("slipway/slipway")
        self.runner = store.create_runner(tags=("build",), run_untagged=True)

    def create(self, sha: str = "a" * 40, text: str = PIPELINE, source: str = "push", **variables: str) -> Run:
        given = [Variable(key, value, masked=True) for key, value in variables.items()]
        return self.engine.create(lambda path: text, "slipway/slipway", "main", sha, source=source, variables=given)

    def states(self, run: Run) -> dict[str, State]:
        return {name: job.state for name, job in self.engine.jobs(run).items()}

    def end(self, name: str, run: Run, state: State = State.SUCCESS, reason: str = "") -> Job:
        """The runner takes the job and reports its end."""
        while True:
            job = self.store.request(self.runner, "host")
            assert job is not None, f"{name} is not pending"
            if job.name == name and job.pipeline_id == run.id:
                break
            self.finish(job, State.SUCCESS)
        if state == State.SUCCESS:
            self.store.save_artifact(job.id, b"zip", "artifacts.zip")
        return self.finish(job, state, reason)

    def finish(self, job: Job, state: State, reason: str = "") -> Job:
        self.store.accept(job.id, state, reason)
        self.engine.advance()
        return job


@pytest.fixture
def pipelines(tmp_path: Path) -> Iterator[Pipelines]:
    store = Store(tmp_path)
    yield Pipelines(store)
    store.close()


def test_a_pipeline_from_push_to_success(pipelines: Pipelines) -> None:
    run = pipelines.create(SECRET="masked")
    assert pipelines.states(run) == {"build": P, "test": P, "apply": C, "verify": C, "undo": C}
    build = pipelines.end("build", run)
    assert build.script == ("make",) and build.tags == ("build",)
    variables = {variable.key: variable for variable in build.variables}
    assert variables["CI_COMMIT_SHA"].value == "a" * 40 and variables["CI_JOB_NAME"].value == "build"
    assert variables["SECRET"].masked and not variables["CI_JOB_NAME"].masked
    test = pipelines.end("test", run)
    assert pipelines.engine.status(run) == "manual"
    apply = pipelines.engine.play(pipelines.engine.jobs(run)["apply"].id)
    assert apply.resource_group == "group/main"
    assert {variable.key: variable.value for variable in apply.variables}["NESTED"] == "group/main!"
    # The artifacts of its needs.
    assert sorted(apply.dependencies) == sorted([build.id, test.id])
    pipelines.end("apply", run)
    assert pipelines.engine.jobs(run)["verify"].dependencies == ()
    pipelines.end("verify", run)
    assert pipelines.states(run)["undo"] == K
    assert pipelines.engine.status(run) == "success"


def test_a_failure_skips_what_follows_and_starts_the_rollback(pipelines: Pipelines) -> None:
    run = pipelines.create()
    for name in ("build", "test"):
        pipelines.end(name, run)
    pipelines.engine.play(pipelines.engine.jobs(run)["apply"].id)
    pipelines.end("apply", run)
    pipelines.end("verify", run, F, "script_failure")
    assert pipelines.states(run)["undo"] == P
    assert pipelines.engine.status(run) == "pending"
    pipelines.end("undo", run)
    assert pipelines.engine.status(run) == "failed"


def test_a_retried_job_gives_skipped_ones_another_chance(pipelines: Pipelines) -> None:
    run = pipelines.create()
    pipelines.end("build", run)
    failed = pipelines.end("test", run, F, "script_failure")
    assert pipelines.states(run) == {"build": S, "test": F, "apply": K, "verify": K, "undo": K}
    again = pipelines.engine.retry(failed.id)
    assert (again.state, again.runner_id, again.failure_reason) == (P, None, "")
    assert again.token != failed.token
    pipelines.end("test", run)
    assert pipelines.states(run) == {"build": S, "test": S, "apply": M, "verify": C, "undo": C}
    with pytest.raises(GitlabError, match="was repeated before"):
        pipelines.engine.retry(failed.id)


def test_a_job_is_repeated_as_often_as_it_declares_and_for_its_reasons(pipelines: Pipelines) -> None:
    run = pipelines.create()
    pipelines.end("build", run, F, "script_failure")
    assert pipelines.states(run)["build"] == F
    run = pipelines.create("b" * 40)
    pipelines.end("build", run, F, "runner_system_failure")
    assert pipelines.states(run)["build"] == P
    pipelines.end("build", run, F, "runner_system_failure")
    assert pipelines.states(run)["build"] == F


def test_a_new_commit_cancels_the_older_pipeline_before_an_apply_only(pipelines: Pipelines) -> None:
    older = pipelines.create()
    pipelines.end("build", older)
    newer = pipelines.create("b" * 40)
    assert pipelines.states(older) == {"build": S, "test": X, "apply": X, "verify": X, "undo": X}
    assert pipelines.states(newer)["build"] == P
    for name in ("build", "test"):
        pipelines.end(name, newer)
    pipelines.engine.play(pipelines.engine.jobs(newer)["apply"].id)
    assert pipelines.store.request(pipelines.runner, "host") is not None
    newest = pipelines.create("c" * 40)
    assert pipelines.states(newer)["apply"] == R
    assert pipelines.engine.runs() == [older, newer, newest]


def test_a_canceled_pipeline(pipelines: Pipelines) -> None:
    run = pipelines.create()
    pipelines.engine.cancel(run.id)
    assert set(pipelines.states(run).values()) == {X}
    assert pipelines.engine.status(run) == "canceled"


def test_a_job_that_cannot_be_played(pipelines: Pipelines) -> None:
    run = pipelines.create()
    with pytest.raises(GitlabError, match="is pending, not manual"):
        pipelines.engine.play(pipelines.engine.jobs(run)["build"].id)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a: { script: x, rules: [{ if: $NEVER }] }", GitlabError, "no job is allowed for push of main"),
        (
            "a: { script: x, environment: { name: e, auto_stop_in: 1 day } }",
            PipelineError,
            "a.environment.auto_stop_in",
        ),
    ],
)
def test_a_pipeline_that_is_refused_leaves_nothing(
    pipelines: Pipelines, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipelines.create(text=text)
    assert pipelines.engine.runs() == [] and pipelines.store.jobs() == []


def test_a_variable_of_the_project_replaces_that_of_a_job(pipelines: Pipelines) -> None:
    run = pipelines.create(WHERE="project")
    assert pipelines.engine.jobs(run)["apply"].resource_group == "project"


def test_pipelines_are_kept(pipelines: Pipelines, tmp_path: Path) -> None:
    run = pipelines.create()
    other = Store(tmp_path)
    assert Engine(other).run(run.id) == run
    other.close()
    with pytest.raises(GitlabError, match="pipeline 1: does not exist"):
        pipelines.engine.run(1)


@pytest.mark.parametrize(
    ("environment", "protected", "expected"),
    [
        ("", False, {"open": "1"}),
        ("", True, {"open": "1", "kept": "2"}),
        ("stage", True, {"open": "1", "kept": "2", "token": "of stage"}),
        ("prod", True, {"open": "1", "kept": "2", "token": "of prod"}),
        ("review/one", False, {"open": "1", "token": "of reviews"}),
    ],
)
def test_a_job_gets_the_variables_of_its_environment_and_ref(
    environment: str, protected: bool, expected: dict[str, str]
) -> None:
    variables = [
        Variable("open", "1"),
        Variable("kept", "2", protected=True),
        Variable("token", "of stage", protected=True, scope="stage"),
        Variable("token", "of prod", protected=True, scope="prod"),
        Variable("token", "of reviews", scope="review/*"),
    ]
    found = visible(variables, environment, protected)
    assert {key: variable.value for key, variable in found.items()} == expected
