"""The shipped pipeline: it is read, every job's commands exist, secrets stay on the deploy runner, versions agree."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from ci import execution_environment
from ci.rollback import IRREVERSIBLE
from ci.run_playbook import SECRET_FILES, ExitCode, parse_options
from lab.gitlab.documents import files_of_directory
from lab.gitlab.expressions import expand
from lab.gitlab.pipeline import Pipeline, Planned, plan, read_pipeline
from tests.static.repository import REPOSITORY, load

FILES = (*SECRET_FILES, "KUBE_TOKEN_FILE")
DOCUMENT = (REPOSITORY / "docs/pipeline.md").read_text()
SCHEDULES = ("nightly", "weekly", "monthly", "soak")
BRANCH = {
    "CI_COMMIT_BRANCH": "main",
    "CI_DEFAULT_BRANCH": "main",
    "CI_COMMIT_REF_PROTECTED": "true",
    "CI_PIPELINE_SOURCE": "push",
}
REQUEST = {"CI_DEFAULT_BRANCH": "main", "CI_PIPELINE_SOURCE": "merge_request_event"}
CASES = {
    "branch": BRANCH,
    "branch, with a lab": BRANCH | {"SLIPWAY_LAB_RUNNER": "true"},
    "tag": {"CI_COMMIT_TAG": "v1.2", "CI_DEFAULT_BRANCH": "main", "CI_COMMIT_REF_PROTECTED": "true"},
    "merge request of a protected branch": REQUEST | {"CI_COMMIT_REF_PROTECTED": "true"},
    "merge request": REQUEST | {"CI_COMMIT_REF_PROTECTED": "false"},
    **{schedule: BRANCH | {"CI_PIPELINE_SOURCE": "schedule", "SLIPWAY_SCHEDULE": schedule} for schedule in SCHEDULES},
}
TESTS = ["lint", "unit"]
CHAIN = ["check", "dry-run", "apply", "verify", "second-run", "smoke", "passed"]
ROLLBACKS = [f"rollback-{step}" for step in ("apply", "verify", "second-run", "smoke")]
BOTH = ("stage", "prod")
READS = ["check-stage", "dry-run-stage", "check-prod", "dry-run-prod"]
EXPECTED = {
    "branch": [
        *TESTS,
        "execution-environment",
        *(f"{step}-{environment}" for environment in BOTH for step in CHAIN + ROLLBACKS),
        "promotion-prod",
        "approve-prod",
        "snapshots-prod",
    ],
    "merge request of a protected branch": [*TESTS, *READS],
    "merge request": TESTS,
    "nightly": ["drift-stage", "drift-prod"],
    "weekly": ["converge-stage", "converge-prod"],
    "monthly": ["drill-stage", "drill-prod"],
    "soak": ["soak"],
}
EXPECTED["branch, with a lab"] = [*TESTS, "lab", *EXPECTED["branch"][2:]]
EXPECTED["tag"] = [name for name in EXPECTED["branch"] if name != "execution-environment"]


def pipeline() -> Pipeline:
    return read_pipeline(files_of_directory(REPOSITORY), BRANCH)


def jobs_of(case: str) -> dict[str, Planned]:
    return {entry.spec.name: entry for entry in plan(pipeline(), CASES[case])}


@pytest.mark.parametrize("case", CASES)
def test_which_jobs_run(case: str) -> None:
    assert sorted(jobs_of(case)) == sorted(EXPECTED[case])


def test_every_job_runs_in_one_of_the_cases() -> None:
    assert set(pipeline().jobs) == set(chain.from_iterable(EXPECTED.values()))


JOBS = {name: entry for case in CASES for name, entry in jobs_of(case).items()}


def commands(name: str) -> Iterator[list[str]]:
    """The words of each command of a job, its variables replaced as far as the files declare them."""
    entry = JOBS[name]
    variables = {**entry.variables, "CI_PROJECT_DIR": str(REPOSITORY)}
    for line in entry.spec.script + entry.spec.after_script:
        for part in re.split(r"&&|\|\||[|{};]", line):
            if words := shlex.split(expand(part, variables)):
                yield words


MAKE = set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.M))
SYSTEM = {"echo", "printf", "command", "apt-get", "podman"}
LOCKED = {"pytest", "ansible-builder"}


def fault(words: list[str]) -> str | None:
    """What a command names that does not exist."""
    match words:
        case ["make", verb]:
            return None if verb in MAKE else f"make {verb}"
        case ["python3", "-m", module, *arguments]:
            path = REPOSITORY / f"{module.replace('.', '/')}.py"
            if not path.is_file():
                return module
            if module == "ci.run_playbook":
                parse_options(arguments, {})
            return next(
                (word for word in arguments if word.startswith("artifacts/") and not word.endswith(".md")), None
            )
        case [".", path]:
            return None if (REPOSITORY / path).is_file() else path
        case [program, *arguments] if program.startswith(".venv/bin/"):
            name = program.removeprefix(".venv/bin/")
            missing = [word for word in arguments if word.startswith("tests/") and not (REPOSITORY / word).is_dir()]
            return program if name not in LOCKED else next(iter(missing), None)
        case [program, *_] if "/" in program:
            path = REPOSITORY / program
            return None if path.is_file() and path.stat().st_mode & 0o111 else program
        case [program, *_]:
            return None if program in SYSTEM else program
    return None


@pytest.mark.parametrize("name", JOBS)
def test_every_command_of_a_job_exists(name: str) -> None:
    assert [found for words in commands(name) if (found := fault(words))] == []


@pytest.mark.parametrize(
    "words",
    [
        ["make", "none"],
        ["python3", "-m", "ci.none"],
        ["ci/none.sh"],
        [".", "ci/none.sh"],
        [".venv/bin/none"],
        [".venv/bin/pytest", "tests/none"],
        ["none"],
    ],
)
def test_a_command_that_does_not_exist_is_found(words: list[str]) -> None:
    assert fault(words)


def playbook_runs() -> list[tuple[Planned, list[str]]]:
    prefix = ["python3", "-m", "ci.run_playbook"]
    return [(entry, words[3:]) for name, entry in JOBS.items() for words in commands(name) if words[:3] == prefix]


def test_every_playbook_runs_through_ansible_runner() -> None:
    assert len(playbook_runs()) > 20
    texts = [line for entry in JOBS.values() for line in entry.spec.script]
    assert [line for line in texts if re.search(r"\bansible-playbook\b|\bansible-runner\b", line)] == []


def test_reports_have_names_of_their_own() -> None:
    names = [words[words.index("--name") + 1] for _, words in playbook_runs()]
    # The rollback jobs of an environment, of which one runs.
    assert {name for name in names if names.count(name) > 1} == {f"rollback-verify-{name}" for name in BOTH}
    assert all(name.endswith(BOTH) for name in names)


def test_jobs_that_change_machines() -> None:
    """One at a time on the same machines; not interrupted by a newer pipeline; on the deploy runner."""
    for entry in JOBS.values():
        if entry.spec.environment is None:
            continue
        name = entry.spec.name
        assert entry.spec.tags == ("deploy",), name
        assert entry.spec.resource_group == "$INVENTORY", name
        assert entry.variables["INVENTORY"] == f"inventories/{name.rpartition('-')[2]}"
        reads = name.startswith(("check-", "dry-run-"))
        assert entry.spec.interruptible == reads, name


def test_code_that_nobody_reviewed_does_not_reach_the_deploy_runner() -> None:
    assert [name for name, entry in jobs_of("merge request").items() if "deploy" in entry.spec.tags] == []
    applying = ("apply", "rollback", "converge", "passed")
    jobs = jobs_of("merge request of a protected branch")
    assert [name for name in jobs if name.startswith(applying)] == []


def test_prod_follows_stage_after_an_approval() -> None:
    jobs = jobs_of("branch")

    def earlier(name: str) -> set[str]:
        needs = {need.job for need in jobs[name].spec.needs or () if need.job in jobs}
        return needs | {other for need in needs for other in earlier(need)}

    order = ["unit", "passed-stage", "dry-run-prod", "promotion-prod", "approve-prod", "snapshots-prod"]
    assert earlier("apply-prod") >= set(order)
    assert (jobs["approve-prod"].when, jobs["approve-prod"].allow_failure) == ("manual", False)
    assert {jobs[f"{step}-prod"].when for step in ROLLBACKS} == {"on_failure"}


SECRET = re.compile(r"\$\{?\w*(TOKEN|PASSWORD|SECRET|SSH_KEY)")


def test_no_secret_is_an_argument() -> None:
    texts = [line for entry in JOBS.values() for line in entry.spec.script]
    # A builtin of the shell, not a process.
    assert [line for line in texts if SECRET.search(line)] == [
        line for line in texts if line.startswith("printf '%s' \"$CI_REGISTRY_PASSWORD\" | podman login")
    ]


def rows() -> dict[str, list[str]]:
    """The variables that the document tells to set → the cells of their rows."""
    lines = [line.split("|")[1:-1] for line in DOCUMENT.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return {name.strip("`"): line for line in cells for name in re.findall("`[A-Z_]+`", line[0])}


def test_every_variable_is_documented() -> None:
    texts = [
        path.read_text()
        for pattern in (".gitlab-ci.yml", "ci/*.yml", "ci/*.sh", "ci/*.py")
        for path in REPOSITORY.glob(pattern)
    ]
    used = {name for text in texts for name in re.findall(r"\b(?:SLIPWAY|SMOKE|KUBE)_[A-Z_]+\b", text)}
    used |= {"HCLOUD_TOKEN", "INVENTORY", "EXECUTION_ENVIRONMENT", *SECRET_FILES}
    # Read by the inventory.
    used |= set(re.findall(r"\bSLIPWAY_[A-Z_]+\b", (REPOSITORY / "inventories/defaults.yml").read_text()))
    # Between run_playbook.py and the script that it starts.
    assert used - {"SLIPWAY_RUN_DIR"} == set(rows())


@pytest.mark.parametrize("name", ["HCLOUD_TOKEN", "SLIPWAY_API_TOKEN", *FILES])
def test_a_secret_is_documented_as_protected(name: str) -> None:
    kind = rows()[name][1]
    assert "protected" in kind
    assert ("file" if name in FILES else "masked") in kind


def test_exit_codes_and_schedules_are_documented() -> None:
    assert {f"| {code.value} |" for code in ExitCode} <= set(re.findall(r"\| \d+ \|", DOCUMENT))
    assert {schedule for schedule in SCHEDULES if f"| `{schedule}` |" in DOCUMENT} == set(SCHEDULES)


def test_the_runbook_of_each_version_that_cannot_go_back_exists() -> None:
    for component in IRREVERSIBLE:
        assert (REPOSITORY / f"docs/runbooks/{component.runbook}.md").is_file()
        assert component.variable in (REPOSITORY / "inventories/prod/group_vars/all/platform.yml").read_text()


def locked_version(name: str) -> str:
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    return str(next(package["version"] for package in lock["package"] if package["name"] == name))


def test_the_execution_environment_has_the_locked_versions() -> None:
    definition = load(REPOSITORY / "execution-environment.yml")
    dependencies: dict[str, Any] = definition["dependencies"]
    core, runner = locked_version("ansible-core"), locked_version("ansible-runner")
    assert dependencies["ansible_core"] == {"package_pip": f"ansible-core=={core}"}
    assert dependencies["ansible_runner"] == {"package_pip": f"ansible-runner=={runner}"}
    assert (REPOSITORY / dependencies["galaxy"]).name == "requirements.yml"
    assert dependencies["python"] == str(execution_environment.REQUIREMENTS.relative_to(REPOSITORY))
    written = execution_environment.REQUIREMENTS.read_text()
    assert written == execution_environment.content(), "run `python -m ci.execution_environment`"
    tag = f"execution-environment:core{core}-runner{runner}"
    navigator = load(REPOSITORY / "ansible-navigator.yml")["ansible-navigator"]
    assert navigator["execution-environment"]["image"].endswith(f"/{tag}")
    assert pipeline().variables["EXECUTION_ENVIRONMENT"].endswith(f"/{tag}")


def test_ansible_builder_accepts_the_execution_environment(tmp_path: Path) -> None:
    command = ["ansible-builder", "create", "--context", str(tmp_path), "--output-filename", "Containerfile"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    text = (tmp_path / "Containerfile").read_text()
    assert f"ansible-core=={locked_version('ansible-core')}" in text
    assert "ansible-galaxy collection install" in text
    assert (tmp_path / "_build/requirements.txt").read_text() == execution_environment.content()
    assert load(tmp_path / "_build/requirements.yml") == load(REPOSITORY / "requirements.yml")
