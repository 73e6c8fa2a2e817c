"""`lab gitlab push|pipelines|play|retry|stop` on a store and a git repository."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lab.gitlab import repository
from lab.gitlab.cli import app
from lab.gitlab.engine import Engine
from lab.gitlab.service import PROJECT, open_store
from lab.gitlab.store import State, Store
from lab.settings import Settings

PIPELINE = """
docs: { script: x, rules: [{ changes: [docs/**] }] }
deploy: { script: x, rules: [{ if: $CI_COMMIT_REF_PROTECTED == "true", when: manual }] }
test: { script: x, variables: { LEVEL: file } }
nightly: { script: x, rules: [{ if: $SLIPWAY_SCHEDULE == "nightly" }] }
"""

Lab = Callable[..., Result]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    path = tmp_path / "clone"
    path.mkdir()
    subprocess.run(["git", "-C", str(path), "init", "--quiet"], check=True)
    commit(path, ".gitlab-ci.yml", PIPELINE)
    return path


def commit(clone: Path, name: str, text: str) -> None:
    path = clone / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (["add", "--all"], [*identity, "commit", "--quiet", "--message", name]):
        subprocess.run(["git", "-C", str(clone), *arguments], check=True)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("SLIPWAY_STATE_ROOT", str(tmp_path / "state"))
    (tmp_path / "state/lab").mkdir(parents=True)
    monkeypatch.delenv("SLIPWAY_LAB", raising=False)
    found = open_store(Settings.from_environment())
    yield found
    found.close()


@pytest.fixture
def lab(store: Store) -> Lab:
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


def states(store: Store, pipeline: str) -> dict[str, State]:
    return {job.name: job.state for job in store.jobs(int(pipeline))}


def test_a_push_starts_the_pipeline_of_its_commit(lab: Lab, store: Store, clone: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("in the file")
    first = lab(
        "push", clone, "--variable", "LEVEL=project", "--masked", "TOKEN=x", "--file", f"F={tmp_path / 'password'}"
    )
    assert first.exit_code == 0, first.output
    # A new branch: everything counts as changed.
    assert states(store, first.output) == {"docs": State.PENDING, "deploy": State.MANUAL, "test": State.PENDING}
    variables = {variable.key: variable for variable in store.jobs(int(first.output))[2].variables}
    assert (variables["TOKEN"].masked, variables["F"].file, variables["F"].value) == (True, True, "in the file")
    assert variables["LEVEL"].value == "project"
    commit(clone, "README.md", "changed")
    second = lab("push", clone)
    assert set(states(store, second.output)) == {"deploy", "test"}
    commit(clone, "docs/a.md", "changed")
    assert "docs" in states(store, lab("push", clone).output)
    other = lab("push", clone, "--branch", "feature")
    assert "deploy" not in states(store, other.output)
    nightly = lab("push", clone, "--schedule", "nightly")
    assert "nightly" in states(store, nightly.output)
    lines = [line.split("\t") for line in lab("pipelines").output.splitlines()]
    assert [line[2] for line in lines] == ["push"] * 4 + ["schedule"]
    assert lines[0][0] == first.output.strip()


def test_jobs_are_played_repeated_and_stopped(lab: Lab, store: Store, clone: Path) -> None:
    pipeline = lab("push", clone).output.strip()
    jobs = Engine(store).jobs(Engine(store).run(int(pipeline)))
    assert lab("play", jobs["deploy"].id).output.strip() == State.PENDING
    again = lab("play", jobs["deploy"].id)
    assert again.exit_code == 1
    assert lab("stop", pipeline).exit_code == 0
    assert set(states(store, pipeline).values()) == {State.CANCELED}
    repeated = lab("retry", jobs["test"].id)
    assert store.job(int(repeated.output)).state == State.PENDING


@pytest.mark.parametrize("text", ["a: { script: x, only: [main] }", "a: { script: x, rules: [{ when: never }] }"])
def test_a_pipeline_that_is_refused(lab: Lab, clone: Path, text: str) -> None:
    commit(clone, ".gitlab-ci.yml", text)
    assert lab("push", clone).exit_code == 1


def test_a_folder_that_is_no_repository(lab: Lab, tmp_path: Path) -> None:
    assert lab("push", tmp_path).exit_code == 1


def test_tags_are_set_once(store: Store, clone: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    before, now = repository.publish(bare, clone, "main")
    assert before == "" and repository.changed_paths(bare, before, now) is None
    store.put_project(PROJECT, str(bare))
    assert [project.repository for project in store.projects()] == [str(bare)]
    repository.create_tag(bare, "passed/stage/1", now)
    assert "refs/tags/passed/stage/1" in (bare / "info/refs").read_text()
    for name, ref in (("passed/stage/1", now), ("-d", now), ("a..b", now), ("other", "none")):
        with pytest.raises(repository.RepositoryError, match="git "):
            repository.create_tag(bare, name, ref)
