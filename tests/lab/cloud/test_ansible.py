"""The unmodified hetzner.hcloud collection with its bundled SDK, in real ansible-playbook runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.cloud.conftest import Lab
from tests.lab.cloud.support import TOKEN

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


@pytest.fixture
def ansible(lab: Lab, tmp_path: Path, public_key: str) -> dict[str, str]:
    """The environment of a run: the endpoint, without the repository's configuration."""
    config = tmp_path / "ansible.cfg"
    config.write_text("[defaults]\nlocalhost_warning = false\n[inventory]\nunparsed_warning = false\n")
    variables = tmp_path / "variables.json"
    variables.write_text(json.dumps({"public_key": public_key, "ansible_python_interpreter": sys.executable}))
    return os.environ | {
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "HCLOUD_ENDPOINT": lab.endpoint,
        "HCLOUD_TOKEN": TOKEN,
        "VARIABLES": str(variables),
    }


def play(environment: dict[str, str], name: str, *options: str) -> tuple[int, str]:
    """Run a playbook that must succeed; the number of changed tasks and the output."""
    command = [str(BIN / "ansible-playbook"), "-e", f"@{environment['VARIABLES']}", *options, str(HERE / name)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    match = re.search(r"localhost +: ok=\d+ +changed=(\d+)", output)
    assert match, output
    return int(match[1]), output


def test_modules_build_converge_and_remove(lab: Lab, ansible: dict[str, str]) -> None:
    # Key, network, subnetwork, route, firewall, group, address, server, attachment, volume, start, selector, rdns;
    # floating IP, its rdns, zone, record
    assert play(ansible, "site.yml")[0] == 17
    [host] = lab.machines.hosts.values()
    address = lab.api.get("/floating_ips")["floating_ips"][0]["ip"]
    assert host.floating_ips == (address,) and lab.cloud.address_of("www.example.com") == address
    assert lab.machines.on == set(lab.machines.hosts) and len(lab.machines.on) == 1
    changed, output = play(ansible, "site.yml")
    assert changed == 0, output

    source = Path(ansible["ANSIBLE_HOME"]) / "hcloud.yml"
    source.write_text(
        "plugin: hetzner.hcloud.hcloud\nnetwork: net\nlabel_selector: role=web\nconnect_with: private_ipv4\n"
        "keyed_groups: [{key: hcloud_labels.role, separator: ''}]\n"
    )
    command = [str(BIN / "ansible-inventory"), "-i", str(source), "--list"]
    listed = json.loads(subprocess.run(command, env=ansible, capture_output=True, text=True, check=True).stdout)
    assert listed["web"]["hosts"] == ["web-1"]
    facts = listed["_meta"]["hostvars"]["web-1"]
    seen = [facts[name]["__ansible_unsafe"] for name in ("ansible_host", "hcloud_status", "hcloud_location")]
    assert seen == ["10.40.1.11", "running", "fsn1"]

    assert play(ansible, "remove.yml")[0] == 9
    assert lab.machines.hosts == {} and lab.machines.networks == {} and lab.machines.volumes == {}


def test_modules_build_a_load_balancer(lab: Lab, ansible: dict[str, str]) -> None:
    # Network, subnetwork, servers, certificate, load balancer, attachment, two services, target, rdns
    assert play(ansible, "load_balancer.yml")[0] == 10
    [balancer] = lab.machines.load_balancers.values()
    assert balancer.attachment and balancer.attachment.ip == "10.40.1.60"
    assert balancer.targets == tuple(attachment.ip for attachment in lab.machines.attachments.values())
    assert [(service.listen_port, service.redirect_http) for service in balancer.services] == [
        (5432, False),
        (443, True),
    ]
    changed, output = play(ansible, "load_balancer.yml")
    assert changed == 1, output


def test_failures_contain_the_code_of_the_error(lab: Lab, ansible: dict[str, str], tmp_path: Path) -> None:
    """The platform's fallback of types and locations depends on it."""
    fault = {"kind": "out_of_stock", "server_type": "cx23", "location": "fsn1"}
    lab.api.post(f"{lab.url}/_lab/faults", fault)
    server = {"name": "web", "server_type": "cx23", "image": "debian-13", "location": "fsn1"}
    task = {
        "hetzner.hcloud.server": server,
        "register": "made",
        "failed_when": ["made.failure.code | default('none') != 'resource_unavailable'"],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}])
    )
    play(ansible, str(playbook))
    assert lab.machines.hosts == {}
