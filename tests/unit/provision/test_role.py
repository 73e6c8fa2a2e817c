"""The role itself against the local cloud, with machines that are only a record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cloud.conftest import TOKEN, Lab, serving
from tests.playbooks import run_playbook


@pytest.fixture
def public_key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text().strip()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Lab]:
    with serving(tmp_path / "cloud") as lab:
        yield lab
        assert lab.oracle.violations == []


def provision(lab: Lab, folder: Path, public_key: str, types: list[str], *restart: str) -> tuple[int, str]:
    machine = {"name": "trial-lb-1", "group": "load_balancer", "private_ip": "10.96.1.10"}
    machine |= {"server_types": types, "image": "debian-13", "placement_group": "trial"}
    values: dict[str, Any] = {
        "provision_environment": "trial",
        "provision_hcloud_endpoint": lab.endpoint,
        "provision_hcloud_token": TOKEN,
        "provision_network_cidr": "10.96.0.0/16",
        "provision_subnet_cidr": "10.96.1.0/24",
        "provision_network_zone": "eu-central",
        "provision_locations": ["fsn1", "nbg1"],
        "provision_admin_user": "slipway",
        "provision_admin_public_keys": [public_key],
        "provision_state_dir": str(folder / "state"),
        "provision_machines": [machine],
        "provision_allow_restart": list(restart),
    }
    playbook = folder / "play.yml"
    play = {"hosts": "trial-lb-1", "connection": "local", "gather_facts": False, "any_errors_fatal": True}
    playbook.write_text(json.dumps([play | {"roles": [{"role": "provision", "vars": values}]}]))
    inventory = folder / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"trial-lb-1": {"ansible_python_interpreter": sys.executable}}}}))
    code, output = run_playbook(folder, inventory, playbook)
    return code, " ".join(output.split())


def fault(lab: Lab, **what: Any) -> None:
    lab.api.post(f"{lab.url}/_lab/faults", what)


def test_no_room_goes_on_and_a_change_that_fails_leaves_the_server_running(
    cloud: Lab, tmp_path: Path, public_key: str
) -> None:
    fault(cloud, kind="out_of_stock", server_type="cx23", location="fsn1")
    code, output = provision(cloud, tmp_path, public_key, ["cx23"])
    assert code == 0, output
    (server,) = cloud.api.get("/servers")["servers"]
    assert (server["status"], server["location"]["name"], server["private_net"][0]["ip"]) == (
        "running",
        "nbg1",
        "10.96.1.10",
    )

    fault(cloud, kind="out_of_stock", server_type="cx33")
    code, output = provision(cloud, tmp_path, public_key, ["cx33"], "trial-lb-1")
    assert code != 0
    assert "could not be changed (stop server trial-lb-1 and resize it to cx33, start server trial-lb-1)" in output
    assert "It has been started again" in output
    (server,) = cloud.api.get("/servers")["servers"]
    assert (server["status"], server["server_type"]["name"]) == ("running", "cx23")


def test_another_error_of_the_creation_is_reported_with_its_reason(cloud: Lab, tmp_path: Path, public_key: str) -> None:
    fault(cloud, kind="action_error", command="create_server")
    code, output = provision(cloud, tmp_path, public_key, ["cx23"])
    assert code != 0
    assert "trial-lb-1: the server could not be created: " in output
    assert "action_failed" in output, output
