"""Unmodified standard clients against the platform and its cloud."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any


def output(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kubectl_through_the_load_balancer_shows_three_ready_servers(description: dict[str, Any]) -> None:
    kubeconfig = Path(description["secrets_path"]).parent / "ansible/kubeconfig"
    get = ["kubectl", "--kubeconfig", str(kubeconfig), "get", "nodes"]
    nodes = json.loads(output([*get, "--output", "json"]))["items"]
    ready = {
        node["metadata"]["name"]
        for node in nodes
        if "node-role.kubernetes.io/control-plane" in node["metadata"]["labels"]
        for condition in node["status"]["conditions"]
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }
    assert ready == {f"lab-rke2-server-{number}" for number in (1, 2, 3)}
    table = output(get)
    assert len([line for line in table.splitlines() if " Ready " in line]) == len(nodes)


def test_hcloud_lists_the_platforms_servers(description: dict[str, Any]) -> None:
    table = output(
        ["hcloud", "server", "list", "--output", "columns=name,status"],
        HCLOUD_ENDPOINT=description["api_endpoint"],
        HCLOUD_TOKEN=description["token"],
    )
    rows = dict(line.split() for line in table.splitlines()[1:])
    assert rows["lab-lb-1"] == "running"
    assert {name for name in rows if name.startswith("lab-rke2-server-")} == {f"lab-rke2-server-{n}" for n in (1, 2, 3)}
