"""Rancher on its cluster: replicas, settings, login, audit log, secrets; in the scenario its operations too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from tests.support.deadlines import until
from tests.support.inventory import Inventory
from tests.support.labs import REPOSITORY

KUBECTL = "/var/lib/rancher/rke2/bin/kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml"
UPGRADE = "playbooks/operations/upgrade_rancher.yml"
ROTATE = "playbooks/operations/rotate_rancher_password.yml"
WANTED = "2.16.0"
ON_THE_SITE = pytest.mark.scenario("the site keeps its release and its password")


@pytest.fixture
def server(inventory: Inventory) -> Host:
    return inventory.host(inventory.group("rke2_server")[0])


@pytest.fixture
def name(inventory: Inventory) -> str:
    return f"rancher.{inventory.settings['platform_domain']}"


def kubectl(host: Host, command: str) -> str:
    with host.sudo():
        return str(host.check_output(f"{KUBECTL} {command}"))


def read(host: Host, command: str) -> Any:
    return json.loads(kubectl(host, f"{command} --output json"))


def curl(host: Host, inventory: Inventory, name: str, path: str, *options: str) -> str:
    """A request under the public name, at the private address of the load balancer, with the platform's authority."""
    address = inventory.address(inventory.group("load_balancer")[0])
    words = ["curl", "--silent", "--max-time", "20", "--resolve", f"{name}:443:{address}", *options]
    return str(host.check_output(f"{' '.join(words)} https://{name}{path}"))


def test_a_replica_runs_on_each_server(server: Host, inventory: Inventory) -> None:
    pods = read(server, "--namespace cattle-system get pods --selector app=rancher")["items"]
    ready = [pod for pod in pods if all(entry["ready"] for entry in pod["status"]["containerStatuses"])]
    assert sorted(pod["spec"]["nodeName"] for pod in ready) == sorted(inventory.group("rke2_server"))
    assert {pod["spec"]["priorityClassName"] for pod in ready} == {"rancher-critical"}


def test_it_answers_through_the_load_balancer(server: Host, inventory: Inventory, name: str) -> None:
    assert curl(server, inventory, name, "/ping") == "pong"
    authority = json.loads(curl(server, inventory, name, "/v3/settings/cacerts"))["value"]
    assert authority.strip() == inventory.secrets["platform_ca_certificate"].strip()


def test_a_wrong_password_is_rejected_and_logged_without_its_text(
    server: Host, inventory: Inventory, name: str
) -> None:
    body = "@-"
    address = inventory.address(inventory.group("load_balancer")[0])
    wrong = '{"type": "localProvider", "username": "admin", "password": "a-wrong-password"}'
    status = server.check_output(
        f"printf %s '{wrong}' | curl --silent --output /dev/null --write-out '%{{http_code}}' "
        f"--resolve {name}:443:{address} --data {body} https://{name}/v1-public/login"
    )
    assert status == "401"
    logs = kubectl(server, "--namespace cattle-system logs --selector app=rancher -c rancher-audit-log --tail=200")
    assert "/v1-public/login" in logs
    assert "a-wrong-password" not in logs


def test_settings_are_those_of_the_role(server: Host, name: str) -> None:
    items = read(server, "get settings.management.cattle.io")["items"]
    values = {item["metadata"]["name"]: item.get("value") or item.get("default") for item in items}
    assert values["server-url"] == f"https://{name}"
    assert values["first-login"] == "false"
    assert values["agent-tls-mode"] == "strict"
    assert values["auth-user-session-ttl-minutes"] == "480"


def test_the_local_cluster_is_active(server: Host) -> None:
    status = read(server, "get clusters.management.cattle.io local")["status"]
    assert {"type": "Ready", "status": "True"}.items() <= next(
        entry.items() for entry in status["conditions"] if entry["type"] == "Ready"
    )


def test_the_password_is_in_secrets_only(server: Host, inventory: Inventory) -> None:
    password = inventory.secrets["rancher_admin_password"]
    assert password not in kubectl(server, "get helmcharts.helm.cattle.io --namespace kube-system --output yaml")
    assert password not in kubectl(server, "--namespace cattle-system get deployments,pods,configmaps --output yaml")
    jobs = "--namespace kube-system logs --selector helmcharts.helm.cattle.io/chart=rancher --tail=-1"
    assert password not in kubectl(server, jobs)


# --- operations -----------------------------------------------------------------------------------------------------


def play(playbook: str, **inputs: Any) -> tuple[int, str, int]:
    """Exit code, output without line breaks, and number of changed tasks."""
    given = {"rancher_enabled": True, "object_storage_etcd_access_key": "", **inputs}
    done = subprocess.run(
        ["ansible-playbook", playbook, "-i", "molecule/inventory", "-e", json.dumps(given)],
        cwd=REPOSITORY, env=os.environ.copy(), capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    text = re.sub(r"\s+", " ", done.stdout + done.stderr)
    return done.returncode, text, sum(int(count) for count in re.findall(r"changed=(\d+)", text))


def installed(host: Host) -> str:
    spec = read(host, "--namespace kube-system get helmcharts.helm.cattle.io rancher")["spec"]
    return str(spec["version"])


@ON_THE_SITE
@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("2.14.4", "2.14.4 is older than the installed 2.15.0"),
        ("2.17.0", "2.17.0 skips a minor after the installed 2.15.0"),
        ("latest", "is no version of three numbers"),
    ],
)
def test_1_a_downgrade_and_two_minors_at_once_are_rejected(server: Host, wanted: str, reason: str) -> None:
    code, output, changed = play(UPGRADE, op_upgrade_rancher_version=wanted)
    assert code != 0
    assert reason in output
    assert (changed, installed(server)) == (0, "2.15.0")


@ON_THE_SITE
def test_1_a_run_of_the_role_does_not_upgrade(server: Host) -> None:
    code, output, changed = play("playbooks/rancher.yml", rancher_version=WANTED)
    assert code != 0
    assert "upgrade with playbooks/operations/upgrade_rancher.yml" in output
    assert (changed, installed(server)) == (0, "2.15.0")


class Client(threading.Thread):
    """One request a second under the public name; what failed is kept."""

    def __init__(self, host: Host, inventory: Inventory, name: str) -> None:
        super().__init__(daemon=True)
        self.arguments = host, inventory, name
        self.failed: list[str] = []
        self.succeeded = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(1):
            try:
                assert curl(*self.arguments, "/ping", "--fail") == "pong"
                self.succeeded += 1
            except AssertionError as error:
                self.failed.append(str(error)[:300])


@pytest.fixture
def client(server: Host, inventory: Inventory, name: str) -> Iterator[Client]:
    client = Client(server, inventory, name)
    client.start()
    yield client
    client.ended.set()
    client.join(30)


@ON_THE_SITE
def test_2_an_upgrade_by_one_minor_is_saved_before_and_serves_all_the_time(server: Host, client: Client) -> None:
    until(lambda: client.succeeded > 0, 60)
    with server.sudo():
        snapshots = "ls /var/lib/rancher/rke2/server/db/snapshots"
        before = server.check_output(snapshots).split()
        code, output, _ = play(UPGRADE, op_upgrade_rancher_version=WANTED)
        assert code == 0, output[-4000:]
        after = server.check_output(snapshots).split()
    assert [file for file in after if file not in before]
    assert installed(server) == WANTED
    images = read(server, "--namespace cattle-system get pods --selector app=rancher")["items"]
    assert {item["spec"]["containers"][0]["image"].rpartition(":")[2] for item in images} == {f"v{WANTED}-simulation"}
    assert client.failed == []


@ON_THE_SITE
def test_3_the_same_upgrade_again_changes_nothing(server: Host) -> None:
    code, output, changed = play(UPGRADE, op_upgrade_rancher_version=WANTED)
    assert (code, changed) == (0, 0), output[-4000:]


def token(server: Host, inventory: Inventory, name: str, password: str) -> str:
    """The token of a new session; nothing when the password is rejected."""
    address = inventory.address(inventory.group("load_balancer")[0])
    body = json.dumps({"type": "localProvider", "username": "admin", "password": password})
    answer = server.run(
        f"printf %s '{body}' | curl --silent --resolve {name}:443:{address} --data @- https://{name}/v1-public/login"
    )
    return str(json.loads(answer.stdout).get("token", ""))


def create_kubeconfig(server: Host) -> None:
    """A kubeconfig of admin and its token, as Rancher's API ext.cattle.io stores them."""
    admin = "authz.management.cattle.io/bootstrapping=admin-user"
    user = read(server, f"get users.management.cattle.io --selector {admin}")["items"][0]["metadata"]["name"]
    for kind, content, label in (
        ("secret generic", "--from-literal kind=kubeconfig", "token"),
        ("configmap", "--from-literal 'status-tokens=[\"test-rotation\"]'", "kubeconfig"),
    ):
        kubectl(server, f"--namespace cattle-tokens create {kind} test-rotation {content}")
        resource = f"{kind.split()[0]} test-rotation"
        kubectl(server, f"--namespace cattle-tokens label {resource} cattle.io/kind={label} cattle.io/user-id={user}")


@ON_THE_SITE
def test_4_a_rotation_ends_the_sessions_of_the_former_password(server: Host, inventory: Inventory, name: str) -> None:
    path = Path(inventory.settings["secrets_path"])
    former = inventory.secrets["rancher_admin_password"]
    session = token(server, inventory, name, former)
    create_kubeconfig(server)
    fresh = former[::-1]
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "rancher_admin_password": fresh}))
    code, output, changed = play(ROTATE)
    assert code == 0, output[-4000:]
    assert changed == 1
    assert fresh not in output and former not in output
    assert token(server, inventory, name, former) == ""
    assert "401" in curl(
        server, inventory, name, "/v3/clusters/local", "--header", f"'Authorization: Bearer {session}'"
    )
    assert kubectl(server, "get tokens.management.cattle.io --output name") == ""
    assert (
        kubectl(server, "--namespace cattle-tokens get secrets,configmaps --selector cattle.io/user-id --output name")
        == ""
    )
    code, output, changed = play(ROTATE)
    assert (code, changed) == (0, 0), output[-4000:]


@ON_THE_SITE
def test_5_the_next_run_of_the_role_stores_the_rotated_password(server: Host) -> None:
    code, output, _ = play("playbooks/rancher.yml", rancher_version=WANTED)
    assert code == 0, output[-4000:]
    code, output, changed = play("playbooks/rancher.yml", rancher_version=WANTED)
    assert (code, changed) == (0, 0), output[-4000:]
