"""Deletion of an environment: exactly the labelled objects are deleted, and no foreign object is affected."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.modules.cloud_objects import in_use

from tests.lab.cloud.conftest import TOKEN, Lab, serving
from tests.playbooks import run_playbook

OWNER_LABEL = {"slipway_environment": "trial"}


def found(**things: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    network = {"id": 1, "name": "trial", "servers": [], "load_balancers": []}
    return {"servers": [{"id": 7}], "networks": [network], "volumes": []} | things


@pytest.mark.parametrize(
    ("things", "messages"),
    [
        ({}, []),
        ({"networks": [{"name": "trial", "servers": [7]}], "volumes": [{"name": "data", "server": 7}]}, []),
        (
            {"networks": [{"name": "trial", "servers": [7, 8, 9]}]},
            ["network trial is used by server by-hand, server 9"],
        ),
        (
            {"networks": [{"name": "trial", "servers": [], "load_balancers": [5]}]},
            ["network trial is used by load balancer 5"],
        ),
        ({"volumes": [{"name": "data", "server": 8}]}, ["volume data is used by server by-hand"]),
        ({"volumes": [{"name": "data", "server": None}]}, []),
    ],
)
def test_foreign_users_of_own_objects(things: dict[str, list[dict[str, Any]]], messages: list[str]) -> None:
    assert in_use(found(**things), [{"id": 7, "name": "ours"}, {"id": 8, "name": "by-hand"}]) == messages


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Lab]:
    with serving(tmp_path / "cloud") as lab:
        yield lab
        assert lab.oracle.violations == []


def destroy(lab: Lab, folder: Path, *options: str) -> tuple[int, str]:
    inventory = folder / "hosts.json"
    values = {
        "platform_environment": "trial",
        "platform_hcloud_endpoint": lab.endpoint,
        "platform_hcloud_token": TOKEN,
        "platform_state_dir": str(folder),
        "ansible_python_interpreter": sys.executable,
    }
    inventory.write_text(json.dumps({"all": {"hosts": {"localhost": None}, "vars": values}}))
    return run_playbook(folder, inventory, "playbooks/operations/destroy.yml", *options)


def test_foreign_servers_are_not_affected(cloud: Lab, tmp_path: Path) -> None:
    network = cloud.network("trial")
    cloud.api.put(f"/networks/{network['id']}", {"labels": OWNER_LABEL})
    ours = cloud.server("trial-lb-1", labels=OWNER_LABEL, networks=[network["id"]])
    foreign = cloud.server("by-hand", networks=[network["id"]])
    volume = {"name": "trial-data", "size": 10, "server": ours["id"], "labels": OWNER_LABEL}
    cloud.api.post("/volumes", volume)
    cloud.wait_idle()

    code, output = destroy(cloud, tmp_path, "-e", "op_destroy_environment=trial")
    assert code != 0
    assert "network trial is used by server by-hand" in " ".join(output.split())
    assert {server["name"] for server in cloud.api.get("/servers")["servers"]} == {"trial-lb-1", "by-hand"}

    cloud.api.post(f"/servers/{foreign['id']}/actions/detach_from_network", {"network": network["id"]})
    cloud.wait_idle()
    code, output = destroy(cloud, tmp_path, "-e", "op_destroy_environment=trial")
    assert code == 0, output
    assert [server["name"] for server in cloud.api.get("/servers")["servers"]] == ["by-hand"]
    assert cloud.api.get("/networks")["networks"] == [] == cloud.api.get("/volumes")["volumes"]
