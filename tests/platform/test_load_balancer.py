"""The load balancer is a single host: after its loss, one run of site.yml rebuilds it and restores the service."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from hcloud import Client

from tests.platform.conftest import INVENTORY, REPOSITORY, play
from tests.platform.test_rke2 import AGENTS, SERVERS, conditions, connect

BALANCER = "lab-lb-1"


def address(cloud: Client) -> str:
    server = cloud.servers.get_by_name(BALANCER)
    assert server is not None, f"{BALANCER} does not exist"
    return str(server.public_net.ipv4.ip)


def test_a_lost_load_balancer_is_rebuilt_by_one_run(cloud: Client, description: dict[str, Any], tmp_path: Path) -> None:
    before, server = address(cloud), cloud.servers.get_by_name(BALANCER)
    assert server is not None
    server.delete().wait_until_finished()
    run = play()
    assert run.code == 0, run.excerpt
    after = address(cloud)
    print(f"{run.report['seconds']} s; public address {before} before, {after} after")

    kubeconfig = Path(description["secrets_path"]).parent / "ansible/kubeconfig"
    assert yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"] == f"https://{after}:6443"
    assert sorted(conditions(connect(kubeconfig))) == sorted(SERVERS + AGENTS)

    ca_path = tmp_path / "platform.pem"
    secrets = yaml.safe_load(Path(description["secrets_path"]).read_text())
    ca_path.write_text(secrets["platform_ca_certificate"].strip() + "\n")
    domain = yaml.safe_load((REPOSITORY / INVENTORY / "group_vars/all/platform.yml").read_text())["platform_domain"]
    name = f"shop.apps.{domain}"
    response = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--cacert", str(ca_path)),
            *("--resolve", f"{name}:443:{after}", f"https://{name}/"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert response.returncode == 0, response.stderr
    assert json.loads(response.stdout)["headers"]["x-forwarded-host"] == name
