"""The shipped pipeline applied to the whole site: jobs on the runner's host, through ansible-runner.

lab.gitlab and the runner are simulations; the jobs, ansible-runner and the site are real. Both environments, stage and
prod, are the same site here. The jobs lint and unit do nothing but look for secrets, since no image with their
requirements is served offline; `make test` runs what they run.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import daemon
from lab.gitlab import deployer, service
from lab.gitlab.engine import Engine, Run
from lab.gitlab.store import FINAL, LOST_SECONDS, State, Store, Variable
from lab.settings import Settings
from tests.platform.conftest import REPOSITORY, play
from tests.platform.test_2_site import secrets_of
from tests.support import pipelines
from tests.support.deadlines import until

pytestmark = pytest.mark.soak

CHAIN = ("check", "dry-run", "apply", "verify", "second-run", "smoke", "passed")
SETTING = "inventories/lab/group_vars/load_balancer.yml"
NGINX = "roles/load_balancer/templates/etc/nginx/nginx.conf.j2"
NAME = "rancher.lab.slipway.test"
CI_TESTS = """
.build: {{ stage: test, tags: [build], image: "{image}", needs: [] }}
lint: {{ extends: .build, script: ['test -z "$SLIPWAY_API_TOKEN"'] }}
unit: {{ extends: .build, script: ['test -z "$SLIPWAY_API_TOKEN"'] }}
"""
ONE_JOB = """
include: [ci/templates.yml]
apply:
  extends: .deploy
  environment: {{ name: stage }}
  script:
    - python3 -m ci.run_playbook {playbook} --inventory "$INVENTORY" --name apply
"""
PROCEED = "/tmp/slipway-test-proceed"
OUTAGE = f"""
- name: Run during an outage
  hosts: gitlab_runner
  gather_facts: false
  tasks:
    - name: Print many lines
      ansible.builtin.debug: {{ msg: "line {{{{ item }}}} of the outage" }}
      loop: "{{{{ range(100) | list }}}}"
      loop_control: {{ label: "" }}
    - name: Wait until GitLab answers again
      ansible.builtin.wait_for: {{ path: {PROCEED}, timeout: 300 }}
"""


def lab(*arguments: str) -> str:
    return subprocess.run(["lab", *arguments], check=True, capture_output=True, text=True).stdout


def on_runner(command: str) -> str:
    return lab("ssh", deployer.HOST, "--", command)


def tracked_files(repository: Path) -> list[str]:
    listed = subprocess.run(
        ["git", "-C", str(repository), "ls-files", "-z"], check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name]


class Site(pipelines.Project):
    """A clone of the tested tree, pushed to the lab's GitLab, which the daemon serves."""

    def __init__(self, folder: Path, settings: Settings, store: Store, description: dict[str, Any]) -> None:
        super().__init__(folder / "clone", store, Engine(store))
        self.settings, self.description = settings, description
        for name in tracked_files(REPOSITORY):
            (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, self.clone / name, follow_symlinks=False)
        self.git("init", "--quiet", "--initial-branch", "main")
        self.write("ci/tests.yml", CI_TESTS.format(image=description["ceph"]["image"]))
        servers = {server["name"]: server for server in json.loads(lab("status", "--json"))["servers"]}
        self.load_balancer = str(servers["lab-lb-1"]["public"]["ipv4"])
        platform = yaml.safe_load(Path(description["secrets_path"]).read_text())
        self._variables = [
            *deployer.variables(settings),
            Variable("SMOKE_URLS", f"https://{NAME}/"),
            Variable("SMOKE_CURL_OPTIONS", f"--resolve {NAME}:443:{self.load_balancer}"),
            Variable("SMOKE_CA_FILE", platform["platform_ca_certificate"], file=True, raw=True),
        ]

    def start(self) -> Run:
        return service.push(self.settings, self.store, self.clone, "main", variables=self._variables)

    def apply(self, playbook: str) -> Run:
        """A pipeline of one job, which applies one playbook."""
        shipped = (self.clone / ".gitlab-ci.yml").read_text()
        self.write(".gitlab-ci.yml", ONE_JOB.format(playbook=playbook))
        try:
            return self.commit(playbook)
        finally:
            self.write(".gitlab-ci.yml", shipped)

    def wait_for_play(self, run: Run, play_name: str) -> None:
        until(lambda: self.trace(run, "apply"), 600, lambda text: f"PLAY [{play_name}]" in text or "exit code" in text)
        assert "exit code" not in self.trace(run, "apply"), self.explain(run)

    def succeed(self, run: Run, status: str = "success", seconds: float = 1200) -> None:
        found = self.wait(run, status, "success", "failed", "canceled", seconds=seconds)
        assert found == status, self.explain(run)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, settings: Settings, description: dict[str, Any]) -> Iterator[Site]:
    lab("gitlab", "prepare")
    store = service.open_store(settings)
    yield Site(tmp_path_factory.mktemp("pipeline"), settings, store, description)
    for job in store.jobs():
        if job.state not in FINAL:
            store.cancel(job.id)
    store.close()


def test_a_deploy_job_applies_a_playbook_to_the_site(site: Site) -> None:
    run = site.apply("playbooks/load_balancer.yml")
    site.succeed(run)
    assert "load_balancer.yml: ok, 0 changed tasks; exit code 0." in site.trace(run, "apply")
    report = site.report(run, "apply")
    assert (report["commit"], report["changed"]) == (run.sha, 0)
    assert {host for play in report["plays"] for host in play["hosts"]} == {"lab-lb-1"}
    assert site.store.runner(site.job(run, "apply").runner_id or 0).tags == ("deploy",)


def test_a_change_of_the_inventory_is_applied_verified_and_promoted(site: Site) -> None:
    site.write(SETTING, "base_journal_max_mb: 123\n")
    run = site.commit("a change of the inventory")
    site.succeed(run, "manual", 2400)
    states = site.states(run)
    assert {states[f"{name}-stage"] for name in CHAIN} == {State.SUCCESS}
    dry, applied, second = (site.report(run, f"{name}-stage") for name in ("dry-run", "apply", "second-run"))
    assert dry["changed"] == applied["changed"] > 0 and second["changed"] == 0
    assert {host for change in applied["drift"] for host in change["hosts"]} == {"lab-lb-1"}
    assert "SystemMaxUse=123M" in lab("ssh", "lab-lb-1", "--", "cat /etc/systemd/journald.conf.d/*")
    site.engine.play(site.job(run, "approve-prod").id)
    site.succeed(run, seconds=2400)
    assert site.report(run, "apply-prod")["changed"] == 0
    assert site.report(run, "snapshots-prod", "snapshots-prod")["result"] == "ok"


def test_a_change_that_breaks_verify_is_rolled_back(site: Site) -> None:
    working = (site.clone / NGINX).read_text()
    site.write(NGINX, working.replace("ssl_protocols TLSv1.3;", "ssl_protocols TLSv1.2 TLSv1.3;"))
    run = site.commit("a change that breaks verify")
    site.write(NGINX, working)
    assert site.wait(run, "failed", "manual", seconds=2400) == "failed", site.explain(run)
    # site.yml ends with the verification.
    assert "TLS 1.2" in site.trace(run, "apply-stage")
    states = site.states(run)
    assert states["rollback-apply-stage"] == State.SUCCESS, site.explain(run)
    assert (states["verify-stage"], states["approve-prod"]) == (State.SKIPPED, State.SKIPPED)
    assert not accepts_tls_1_2(site.load_balancer)
    assert play(playbook="playbooks/verify.yml").code == 0


def accepts_tls_1_2(address: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((address, 443), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=NAME):
                return True
        except ssl.SSLError:
            return False


def test_a_canceled_apply_ends_in_order_and_the_next_one_converges(site: Site) -> None:
    run = site.apply("site.yml")
    site.wait_for_play(run, "Prepare every host")
    site.engine.cancel(run.id)
    # It waits: two runs on one inventory never overlap.
    following = site.apply("site.yml")
    assert site.wait(run, "canceled", "failed", "success") == "canceled"
    assert "site.yml: canceled, " in site.trace(run, "apply") and "exit code 130." in site.trace(run, "apply")
    assert site.report(run, "apply")["result"] == "canceled"
    site.succeed(following)
    assert site.job(following, "apply").started_at >= site.job(run, "apply").finished_at
    # The private directory of the run, with its secrets, is gone.
    assert on_runner("sudo find /tmp -maxdepth 1 -name '*slipway-run*'") == ""


def test_a_job_survives_30_seconds_without_gitlab(site: Site) -> None:
    site.write("playbooks/outage.yml", OUTAGE)
    on_runner(f"rm -f {PROCEED}")
    run = site.apply("playbooks/outage.yml")
    site.wait_for_play(run, "Run during an outage")
    away = time.monotonic()
    daemon.stop(site.settings)
    try:
        until(lambda: time.monotonic() - away, 60, lambda seconds: seconds > 30)
    finally:
        daemon.start(site.settings)
    on_runner(f"touch {PROCEED}")
    site.succeed(run)
    trace = site.trace(run, "apply")
    assert [trace.count(f"line {number} of the outage") for number in range(100)] == [1] * 100
    assert "outage.yml: ok, " in trace and trace.rstrip().endswith("Job succeeded")
    assert site.report(run, "apply")["result"] == "ok"


def test_a_killed_runner_loses_its_job_and_the_next_one_converges(site: Site) -> None:
    run = site.apply("site.yml")
    site.wait_for_play(run, "Prepare every host")
    on_runner("sudo systemctl kill --kill-whom=main --signal=KILL gitlab-runner.service")
    until(lambda: on_runner("pgrep --full '[a]nsible-playbook' || true"), 60, lambda found: found == "")
    until(lambda: on_runner("systemctl is-active gitlab-runner.service || true"), 60, lambda found: found == "active\n")
    # As GitLab does when it has heard nothing of a job for so long.
    later = Store(site.settings.gitlab_dir, lambda: time.time() + LOST_SECONDS + 60)
    later.expire()
    later.close()
    assert site.job(run, "apply").failure_reason == "stuck_or_timeout_failure"
    following = site.apply("site.yml")
    site.succeed(following)
    assert on_runner("sudo find /tmp -maxdepth 1 -name '*slipway-run*'") == ""


def test_two_deployments_at_once_run_one_after_the_other(site: Site) -> None:
    earlier = site.apply("playbooks/load_balancer.yml")
    # A pipeline none of whose jobs has started is canceled by the next push.
    until(lambda: site.job(earlier, "apply").state, 60, lambda state: state == State.RUNNING, pause=0.1)
    later = site.apply("playbooks/load_balancer.yml")
    for run in (earlier, later):
        site.succeed(run)
    first, second = (site.job(run, "apply") for run in (earlier, later))
    assert first.started_at < first.finished_at <= second.started_at < second.finished_at


def test_secrets_are_in_no_argument_trace_or_artifact(site: Site) -> None:
    """Of this run and of all before it; arguments and environments of processes while a run changes the site."""
    secrets = {*secrets_of(site.description), site.description["gitlab"]["token"]}
    run = site.apply("site.yml")
    arguments = ""
    while site.engine.status(run) in ("pending", "running"):
        arguments += on_runner("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
    site.succeed(run)
    assert "ansible-playbook" in arguments
    texts = {"arguments": arguments}
    for job in site.store.jobs():
        texts[f"trace of {job.name}"] = site.store.trace(job.id).decode(errors="replace")
        if path := site.store.artifact(job.id):
            with zipfile.ZipFile(path) as archive:
                texts |= {
                    f"{job.name}: {name}": archive.read(name).decode(errors="replace") for name in archive.namelist()
                }
    assert len(secrets) > 12
    assert [f"{name}: {secret[:4]}…" for name, text in texts.items() for secret in secrets if secret in text] == []
