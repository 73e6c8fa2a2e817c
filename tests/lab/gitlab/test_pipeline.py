"""The shipped pipeline, executed: lab.gitlab's engine, the simulated runner, the real jobs and ansible-runner.

The project has this repository's .gitlab-ci.yml and ci/; its playbooks write and read one file instead of a platform.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.gitlab import repository
from lab.gitlab.documents import files_of_commit
from lab.gitlab.engine import Engine, Run
from lab.gitlab.store import State, Variable
from tests.lab.gitlab.conftest import OPERATOR, PROJECT, REPOSITORY, Gitlab, StartRunner
from tests.support import pipelines
from tests.support.deadlines import until

SITE = """
- name: Configure the service
  hosts: all
  gather_facts: false
  tasks:
    - name: Write the version
      ansible.builtin.copy: { content: "{{ version }}", dest: "{{ folder }}/version", mode: "0600" }
    - name: Wait for ever
      ansible.builtin.wait_for: { path: /does/not/exist, timeout: 600 }
      when: version == 'slow'
    - name: Print the token
      ansible.builtin.debug: { msg: "token {{ lookup('ansible.builtin.env', 'HCLOUD_TOKEN') }}" }
"""
VERIFY = """
- name: Verify the service
  hosts: all
  gather_facts: false
  tasks:
    - name: Require a version that works
      ansible.builtin.assert:
        that: lookup('ansible.builtin.file', folder ~ '/version') != 'broken'
        fail_msg: "version: broken does not work. Use another."
"""
CHECK = """
- name: Check the environment
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Require a version
      ansible.builtin.assert: { that: "hostvars['one'].version is defined" }
"""
APPLY_ALONE = """
include: [ci/templates.yml]
apply:
  extends: .deploy
  variables: { INVENTORY: inventories/stage }
  script:
    - python3 -m ci.run_playbook site.yml --inventory "$INVENTORY" --name apply
"""
TOKEN = "hcloud-token-of-the-test"
EXECUTABLE = {
    "Makefile": "lint:\n\t@true\n",
    "lab/setup.sh": "#!/bin/sh\n",
    ".venv/bin/pytest": "#!/bin/sh\nmkdir -p artifacts/ci\n",
}


class Project(pipelines.Project):
    """The shipped pipeline over playbooks of the test, and an inventory of one host for each environment."""

    def __init__(self, folder: Path, gitlab: Gitlab, temporary: Path) -> None:
        super().__init__(folder / "clone", gitlab.store, Engine(gitlab.store, gitlab.url))
        self.temporary = temporary
        self._bare = folder / "repository.git"
        self.hosts = {name: folder / name for name in ("stage", "prod")}
        shutil.copytree(REPOSITORY / "ci", self.clone / "ci", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / ".gitlab-ci.yml", self.clone)
        playbooks = {"site": SITE, "playbooks/verify": VERIFY, "playbooks/check": CHECK}
        playbooks |= {"playbooks/operations/save_snapshots": CHECK}
        for name, text in playbooks.items():
            self.write(f"{name}.yml", text)
        self.write("ansible.cfg", "[defaults]\n")
        for name, text in EXECUTABLE.items():
            self.write(name, text)
            (self.clone / name).chmod(0o755)
        for name, path in self.hosts.items():
            path.mkdir()
            self.write(
                f"inventories/{name}/hosts.yml",
                "all:\n  hosts: { one: { ansible_connection: local } }\n"
                f"  vars: {{ ansible_python_interpreter: {sys.executable}, folder: {path} }}\n",
            )
        self.git("init", "--quiet", "--initial-branch", "main")
        self._variables = (
            Variable("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin"),
            # Ansible puts a socket in it, whose path has 107 characters at most.
            Variable("TMPDIR", str(temporary)),
            Variable("HCLOUD_TOKEN", TOKEN, masked=True),
            Variable("SLIPWAY_API_TOKEN", OPERATOR, masked=True),
            Variable("SMOKE_URLS", f"{gitlab.url}/api/v4/version"),
        )

    def push(self, version: str) -> Run:
        """Commit a version for both environments, and start the pipeline of the commit."""
        for name in self.hosts:
            self.write(f"inventories/{name}/group_vars/all/platform.yml", f"version: {version}\n")
        return self.commit(version)

    def start(self) -> Run:
        before, now = repository.publish(self._bare, self.clone, "main")
        self.store.put_project(PROJECT, str(self._bare))
        changed = repository.changed_paths(self._bare, before, now)
        read = files_of_commit(self._bare, now)
        return self.engine.create(read, PROJECT, "main", now, variables=self._variables, changed=changed)

    def version(self, environment: str) -> str | None:
        path = self.hosts[environment] / "version"
        return path.read_text() if path.exists() else None

    def tags(self) -> list[str]:
        return [name.rpartition("/")[0] for name in repository.git(self._bare, "tag").split()]


@pytest.fixture
def project(tmp_path: Path, gitlab: Gitlab, start_runner: StartRunner) -> Iterator[Project]:
    with TemporaryDirectory(prefix="slipway-test-", dir="/tmp") as temporary:
        start_runner(gitlab.runner(tags=("build",), run_untagged=False), "build")
        start_runner(gitlab.runner(tags=("deploy",), run_untagged=False, access_level="ref_protected"), "deploy")
        yield Project(tmp_path, gitlab, Path(temporary))


def test_a_commit_reaches_prod_after_an_approval_and_a_broken_one_is_rolled_back(project: Project) -> None:
    run = project.push("one")
    project.wait(run, "manual", "failed")
    assert project.engine.status(run) == "manual", project.explain(run)
    assert (project.version("stage"), project.version("prod")) == ("one", None)
    assert project.tags() == ["passed/stage"]
    project.engine.play(project.jobs(run)["approve-prod"].id)
    project.wait(run, "success", "failed")
    assert project.engine.status(run) == "success", project.explain(run)
    assert project.version("prod") == "one"
    assert project.tags() == ["passed/prod", "passed/stage"]
    # The dry run said what the apply changed, and the second run changed nothing.
    reports = {name: project.report(run, name) for name in ("dry-run-stage", "apply-stage", "second-run-stage")}
    assert [reports[name]["changed"] for name in reports] == [1, 1, 0]
    assert reports["apply-stage"]["commit"] == run.sha

    broken = project.push("broken")
    project.wait(broken, "failed")
    states = project.states(broken)
    assert states["verify-stage"] == State.FAILED
    assert states["rollback-verify-stage"] == State.SUCCESS, project.explain(broken)
    assert {states[name] for name in ("rollback-apply-stage", "check-prod", "approve-prod")} == {State.SKIPPED}
    assert (project.version("stage"), project.version("prod")) == ("one", "one")
    assert project.tags() == ["passed/prod", "passed/stage"]

    traces = [project.store.trace(job.id).decode() for job in project.store.jobs()]
    assert any("token [MASKED]" in trace for trace in traces)
    for secret in (TOKEN, OPERATOR):
        assert [trace for trace in traces if secret in trace] == []


def test_a_canceled_apply_ends_in_order_and_the_next_one_converges(project: Project) -> None:
    project.write(".gitlab-ci.yml", APPLY_ALONE)
    run = project.push("slow")
    until(lambda: project.version("stage") == "slow", 120, pause=0.1)
    project.engine.cancel(run.id)
    # It waits: two runs on one inventory never overlap.
    following = project.push("two")
    project.wait(run, "canceled", "failed", "success")
    assert project.engine.status(run) == "canceled", project.explain(run)
    trace = project.trace(run, "apply")
    assert "site.yml: canceled, 1 changed tasks; exit code 130." in trace
    assert project.report(run, "apply")["result"] == "canceled"
    project.wait(following, "success", "failed")
    assert project.engine.status(following) == "success", project.explain(following)
    assert project.version("stage") == "two"
    assert [path for path in project.temporary.iterdir() if "slipway-run" in path.name] == []


def test_tags_are_set_by_the_operator_only(project: Project, gitlab: Gitlab) -> None:
    run = project.push("one")
    project.engine.cancel(run.id)
    path = f"/projects/{gitlab.store.project(PROJECT).id}/repository/tags"
    body = {"tag_name": "v1", "ref": run.sha}
    assert gitlab.call("POST", path, body).status_code == 401
    assert gitlab.operate("POST", path, body).json()["name"] == "v1"
    assert gitlab.operate("POST", path, body).status_code == 400
    assert gitlab.operate("POST", path, {"tag_name": "v2"}).status_code == 400
    assert gitlab.operate("POST", "/projects/1/repository/tags", body).status_code == 404
    assert project.tags() == [""]
