"""Rancher's chart on the site: changes, failures, kills and lost servers, while a client outside sends requests."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.application import Kubectl, Requests
from tests.platform.conftest import INVENTORY, OUTPUTS, REPOSITORY, Run, kill, play
from tests.platform.test_rke2 import FAILURES, SERVERS, conditions, connect
from tests.support.deadlines import until

pytestmark = pytest.mark.soak
PLAYBOOK = "playbooks/rancher.yml"
SYSTEM = "cattle-system"
BALANCER = "lab-lb-1"
OUTAGE_SECONDS = 60
"""Until Rancher answers all requests again after the loss of a server."""


@pytest.fixture(scope="module")
def kubectl(description: dict[str, Any]) -> Kubectl:
    return Kubectl(Path(description["secrets_path"]).parent / "ansible/kubeconfig")


@pytest.fixture(scope="module")
def ping(cloud: Client, description: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a client outside of the platform."""
    balancer = cloud.servers.get_by_name(BALANCER)
    assert balancer is not None
    settings = yaml.safe_load((REPOSITORY / INVENTORY / "group_vars/all/platform.yml").read_text())
    ca_path = tmp_path_factory.mktemp("ca") / "platform.pem"
    ca_path.write_text(yaml.safe_load(Path(description["secrets_path"]).read_text())["platform_ca_certificate"])
    name = f"rancher.{settings['platform_domain']}"
    return [
        *("curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--cacert", str(ca_path)),
        *("--resolve", f"{name}:443:{balancer.public_net.ipv4.ip}", f"https://{name}/ping"),
    ]


@pytest.fixture
def requests(ping: list[str]) -> Iterator[Requests]:
    found = Requests(ping)
    until(lambda: subprocess.run(ping, capture_output=True, check=False).returncode == 0, 60)
    yield found
    run = play(playbook=PLAYBOOK)  # whatever the test has left
    assert run.code == 0, run.excerpt


def configure(**inputs: Any) -> Run:
    return play("-e", json.dumps(inputs), playbook=PLAYBOOK)


def audit_level(kubectl: Kubectl) -> set[str]:
    """Of the pods that serve."""
    pods = kubectl.read("pods", "--namespace", SYSTEM, "--selector", "app=rancher")["items"]
    variables = [entry for pod in pods for entry in pod["spec"]["containers"][0]["env"]]
    return {entry["value"] for entry in variables if entry["name"] == "AUDIT_LEVEL"}


def test_a_changed_value_is_rolled_out_alone_without_a_failed_request(requests: Requests, kubectl: Kubectl) -> None:
    with requests.running():
        dry = play("--check", "--diff", "-e", json.dumps({"rancher_audit_log_level": 1}), playbook=PLAYBOOK)
        assert (dry.code, dry.changed) == (0, {SERVERS[0]: 1}), dry.excerpt
        run = configure(rancher_audit_log_level=1)
    assert (run.code, run.changed) == (0, {SERVERS[0]: 1}), run.excerpt
    assert audit_level(kubectl) == {"1"}
    assert requests.failed == [] and len(requests.answered) > 10
    assert configure(rancher_audit_log_level=1).changed == {}


@pytest.mark.parametrize(
    ("values", "causes"),
    [
        ({"image": {"tag": "absent"}}, ["Pod rancher-", "Pull", "was rolled back to 2.15.0"]),
        ({"tls": "sideways"}, ["the helm job failed", "tls", "was rolled back to 2.15.0"]),
    ],
    ids=["no such image", "a value that the chart rejects"],
)
def test_a_failed_change_names_its_cause_and_is_rolled_back(
    requests: Requests, values: dict[str, Any], causes: list[str]
) -> None:
    with requests.running():
        run = configure(rancher_values=values, rancher_timeout_seconds=90)
    assert run.code == 2, run.excerpt
    assert [cause for cause in causes if cause not in run.text] == [], run.excerpt
    assert requests.failed == []
    assert play(playbook=PLAYBOOK).changed == {}


@contextmanager
def configuring(**inputs: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A run beside the test."""
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    with (OUTPUTS / "charts-beside.log").open("wb") as output:
        process = subprocess.Popen(
            ["ansible-playbook", PLAYBOOK, "-i", INVENTORY, "-e", json.dumps(inputs)],
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process)


def job(kubectl: Kubectl) -> str:
    """The helm job, a new one for each change of the chart."""
    done = kubectl.run("get", "job", "--namespace", "kube-system", "helm-install-rancher", "--output", "json")
    return str(json.loads(done.stdout)["metadata"]["uid"]) if done.returncode == 0 else ""


def rolls_out(kubectl: Kubectl) -> bool:
    """Whether some pods are of the new template, and not all."""
    status = kubectl.read("deployment", "--namespace", SYSTEM, "rancher")["status"]
    return bool(status.get("updatedReplicas", 0) > 0 and status.get("unavailableReplicas", 0) > 0)


@pytest.mark.parametrize("moment", ["as the helm job starts", "in the rollout"])
def test_a_killed_run_is_completed_by_the_next(requests: Requests, kubectl: Kubectl, moment: str) -> None:
    before = job(kubectl)
    level = "1" if moment == "in the rollout" else "2"
    reached: Callable[[], bool] = (
        (lambda: rolls_out(kubectl)) if moment == "in the rollout" else (lambda: job(kubectl) not in ("", before))
    )
    with requests.running():
        with configuring(rancher_audit_log_level=int(level)):
            until(reached, 120, pause=0.2)
        run = configure(rancher_audit_log_level=int(level))
    assert run.code == 0, run.excerpt
    assert audit_level(kubectl) == {level}
    assert requests.failed == []
    assert configure(rancher_audit_log_level=int(level)).changed == {}


def late_failures(requests: Requests, cut: float) -> list[tuple[float, str]]:
    return [(start - cut, text) for start, text in requests.failed if start - cut > OUTAGE_SECONDS]


def wait_for_nodes(kubectl: Kubectl) -> None:
    until(
        lambda: all(entry["Ready"] == "True" for entry in conditions(connect(kubectl.kubeconfig)).values()),
        180,
        errors=FAILURES,
    )


def test_a_server_lost_in_the_rollout_delays_it(requests: Requests, kubectl: Kubectl, cloud: Client) -> None:
    server = cloud.servers.get_by_name(SERVERS[1])
    assert server is not None
    with requests.running(), configuring(rancher_audit_log_level=2) as process:
        try:
            until(lambda: rolls_out(kubectl), 120, pause=0.2)
            cut = time.monotonic()
            server.power_off().wait_until_finished()
            time.sleep(OUTAGE_SECONDS + 20)
        finally:
            server.power_on().wait_until_finished()
        wait_for_nodes(kubectl)
        assert process.wait(600) == 0, (OUTPUTS / "charts-beside.log").read_text()[-4000:]
    print(f"{len(requests.failed)} requests failed, {len(requests.answered)} did not")
    assert late_failures(requests, cut) == []
    assert audit_level(kubectl) == {"2"}
    assert configure(rancher_audit_log_level=2).changed == {}


def test_rancher_answers_within_a_minute_after_the_loss_of_the_first_server(
    requests: Requests, kubectl: Kubectl, cloud: Client
) -> None:
    server = cloud.servers.get_by_name(SERVERS[0])
    assert server is not None
    try:
        with requests.running():
            cut = time.monotonic()
            server.power_off().wait_until_finished()
            time.sleep(OUTAGE_SECONDS + 20)
    finally:
        server.power_on().wait_until_finished()
    last = max((start - cut for start, _ in requests.failed), default=0.0)
    print(f"{len(requests.failed)} requests failed, the last {last:.0f} s after the loss")
    assert late_failures(requests, cut) == []
    wait_for_nodes(kubectl)
