"""The template for applications: its jobs, and its scripts with test doubles of kubectl, helm, curl and ab."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.gitlab.engine import resolve
from lab.gitlab.pipeline import Planned, plan, read_pipeline, with_variables

REPOSITORY = Path(__file__).resolve().parents[3]
BRANCH = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"}
REVIEW = BRANCH | {"CI_COMMIT_BRANCH": "feature", "CI_COMMIT_REF_SLUG": "feature"}
IMAGES = ["build", "test", "scan", "push"]
TOKEN = "service-account-token"
AB = "Complete requests:      500\nFailed requests:        {failed}\n  50%     20\n  95%    {p95}\n"


def jobs(variables: dict[str, str], **inputs: object) -> dict[str, Planned]:
    given = {"app": "shop", "test_command": "make test", **inputs}
    main = f"include: [{{ local: ci/deploy_app.yml, inputs: {given} }}]"

    def read(path: str) -> str:
        return main if path == ".gitlab-ci.yml" else (REPOSITORY / path).read_text()

    return {entry.spec.name: entry for entry in plan(read_pipeline(read, variables), variables)}


def test_a_branch_is_deployed_for_review() -> None:
    found = jobs(REVIEW)
    assert sorted(found) == sorted([*IMAGES, "review", "stop-review"])
    environment = with_variables(found["review"], REVIEW).spec.environment
    assert environment is not None
    assert (environment.name, environment.on_stop, environment.auto_stop_in) == (
        "review/feature",
        "stop-review",
        "2 days",
    )
    assert found["stop-review"].spec.environment is not None
    assert (found["stop-review"].when, found["stop-review"].spec.environment.action) == ("manual", "stop")


def test_the_default_branch_goes_from_dev_to_prod() -> None:
    found = jobs(BRANCH)
    names = [f"{verb}-{environment}" for environment in ("dev", "stage", "prod") for verb in ("deploy", "undo")]
    assert sorted(found) == sorted([*IMAGES, *names])
    needs = {name: [need.job for need in entry.spec.needs or ()] for name, entry in found.items()}
    assert needs["push"] == ["build", "test", "scan"]
    assert [needs[f"deploy-{name}"] for name in ("dev", "stage", "prod")] == [
        ["push"],
        ["deploy-dev"],
        ["deploy-stage"],
    ]
    assert (found["deploy-prod"].when, found["deploy-prod"].allow_failure) == ("manual", False)
    assert {found[f"undo-{name}"].when for name in ("dev", "stage", "prod")} == {"on_failure"}
    assert {entry.spec.tags for entry in found.values()} == {("build",)}
    own = jobs(BRANCH, deploy_tags=["protected"])
    assert {name for name, entry in own.items() if entry.spec.tags == ("build",)} == set(IMAGES)
    assert with_variables(found["deploy-dev"], {"APP": "shop"}).spec.resource_group == "shop/$CI_ENVIRONMENT_NAME"


DOUBLE = """#!/bin/sh
printf '%s\\n' "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
  "kubectl apply"*) cat >"$CALLS.manifest" ;;
  "kubectl get"*) printf '%s' "$RUNNING_IMAGE" ;;
  "ab "*) printf '%b' "$AB_OUTPUT" ;;
esac
case "$(basename "$0") $*" in $FAILING) exit 1 ;; esac
"""


@dataclass
class Shell:
    folder: Path
    calls: list[str] = field(default_factory=list)
    output: str = ""
    manifest: str = ""

    def run(self, job: str, environment: dict[str, str], inputs: dict[str, str]) -> int:
        """Run a job's script as the runner does; its calls of programs are recorded."""
        bin_dir = self.folder / "bin"
        bin_dir.mkdir()
        for name in ("kubectl", "helm", "curl", "ab", "trivy", "buildah"):
            (bin_dir / name).write_text(DOUBLE)
            (bin_dir / name).chmod(0o755)
        (self.folder / "deploy").mkdir()
        (self.folder / "deploy/app.yml").write_text("image: __IMAGE__\nname: __NAME__\n")
        (self.folder / "token").write_text(TOKEN)
        variables = REVIEW if job.endswith("review") else BRANCH
        entry = jobs(variables, **inputs)[job]
        values = resolve(
            {
                **variables,
                **entry.variables,
                "CI_REGISTRY_IMAGE": "registry/shop",
                "CI_COMMIT_SHA": "abc",
                "CI_JOB_ID": "7",
                "CI_PROJECT_DIR": str(self.folder),
                "CI_ENVIRONMENT_URL": "https://shop.example.com",
                "KUBE_URL": "https://api.example.com:6443",
                "KUBE_NAMESPACE": "app-dev",
                "KUBE_CA_FILE": "/ca",
                "KUBE_TOKEN_FILE": str(self.folder / "token"),
            }
        )
        calls = self.folder / "calls"
        process = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", "\n".join(entry.spec.script)],
            cwd=self.folder,
            env={
                **os.environ,
                **values,
                "PATH": f"{bin_dir}:/usr/bin:/bin",
                "CALLS": str(calls),
                "RUNNING_IMAGE": "registry/shop:abc",
                "AB_OUTPUT": AB.format(failed=0, p95=120),
                "FAILING": "nothing",
                **environment,
            },
            capture_output=True,
            text=True,
        )
        self.output = process.stdout + process.stderr
        self.calls = calls.read_text().splitlines()
        manifest = self.folder / "calls.manifest"
        self.manifest = manifest.read_text() if manifest.exists() else ""
        assert TOKEN not in "".join(self.calls) + self.output
        return process.returncode

    def verbs(self) -> list[str]:
        """The calls after those that write the kubeconfig, without their options."""
        calls = [call for call in self.calls if not call.startswith("kubectl config")]
        return [" ".join(word for word in call.split()[:3] if not word.startswith("-")) for call in calls]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


MIGRATION = {"migration_command": "migrate up"}
CHART = {"chart": "chart"}


@pytest.mark.parametrize(
    ("job", "environment", "inputs", "code", "verbs"),
    [
        ("deploy-dev", {}, {}, 0, ["kubectl apply", "kubectl rollout status", "curl", "ab"]),
        (
            "deploy-dev", {}, MIGRATION, 0,
            ["kubectl create job", "kubectl wait", "kubectl delete job", "kubectl apply", "kubectl rollout status",
             "curl", "ab"],
        ),
        # Nothing is deployed after a failed migration.
        ("deploy-dev", {"FAILING": "kubectl wait*"}, MIGRATION, 1,
         ["kubectl create job", "kubectl wait", "kubectl logs", "kubectl delete job"]),
        ("deploy-dev", {"FAILING": "kubectl rollout status*"}, {}, 1,
         ["kubectl apply", "kubectl rollout status", "kubectl rollout undo"]),
        ("deploy-dev", {"FAILING": "curl*"}, {}, 1, ["kubectl apply", "kubectl rollout status", "curl"]),
        ("deploy-dev", {}, CHART, 0, ["helm upgrade shop", "curl", "ab"]),
        ("deploy-dev", {"FAILING": "helm*"}, CHART, 1, ["helm upgrade shop"]),
        ("review", {}, CHART, 0, ["helm upgrade shop-feature", "curl", "ab"]),
        ("stop-review", {}, CHART, 0, ["helm uninstall shop-feature"]),
        ("stop-review", {}, {}, 0, ["kubectl delete"]),
        ("undo-prod", {}, {}, 0, ["kubectl get deployment/shop", "kubectl rollout undo", "kubectl rollout status"]),
        ("undo-prod", {}, CHART, 0, ["kubectl get deployment/shop", "helm rollback shop"]),
        # The rollout has gone back by itself.
        ("undo-prod", {"RUNNING_IMAGE": "registry/shop:old"}, CHART, 0, ["kubectl get deployment/shop"]),
    ],
)  # fmt: skip
def test_what_a_job_does(
    shell: Shell, job: str, environment: dict[str, str], inputs: dict[str, str], code: int, verbs: list[str]
) -> None:
    assert shell.run(job, environment, inputs) == code, shell.output
    assert [verb.removesuffix(" ") for verb in shell.verbs()] == verbs


@pytest.mark.parametrize(("failed", "p95", "code"), [(0, 500, 0), (0, 501, 1), (1, 10, 1)])
def test_the_load_test_has_limits(shell: Shell, failed: int, p95: int, code: int) -> None:
    assert shell.run("deploy-dev", {"AB_OUTPUT": AB.format(failed=failed, p95=p95)}, {}) == code
    assert f"load test: {failed} failed, 95 % within {p95} ms, limit 500 ms" in shell.output


def test_a_load_test_without_a_result_fails(shell: Shell) -> None:
    assert shell.run("deploy-dev", {"AB_OUTPUT": "apr_socket_connect(): refused"}, {}) == 1


def test_the_image_and_the_credentials(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("deploy-dev", {}, {}) == 0
    assert shell.manifest == "image: registry/shop:abc\nname: shop\n"
    token = tmp_path / "token"
    assert f"kubectl config set users.app.tokenFile {token}" in shell.calls
    assert jobs(BRANCH)["deploy-dev"].spec.after_script == ('rm -f "$CI_PROJECT_DIR/.kubeconfig"',)
