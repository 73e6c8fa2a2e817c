"""The proof has to be worth something: it passes on a whole platform and names what is broken."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://rke2_agent"]

BALANCER, AGENT = "10.95.1.10", "10.95.1.41"
NAME = "shop.apps.test.slipway.test"
REPOSITORY = Path(__file__).resolve().parents[3]


def verify(version: str = "v1.36.3+rke2r1") -> subprocess.CompletedProcess[str]:
    extra = ["--extra-vars", f"rke2_version={version} verify_settle_seconds=0"]
    return subprocess.run(
        ["ansible-playbook", "playbooks/verify.yml", "--inventory=molecule/inventory/", *extra],
        cwd=REPOSITORY,
        env=os.environ | {"ANSIBLE_CACHE_PLUGIN": "memory", "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def stopped(host: Host) -> Iterator[None]:
    with host.sudo():
        host.check_output("systemctl stop rke2-agent && rke2-killall.sh")
        yield
        host.check_output("systemctl start rke2-agent")


def test_a_whole_platform_has_no_findings() -> None:
    done = verify()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 nodes are Ready" in done.stdout
    assert "the storage cluster is well on 3 hosts" in done.stdout


def ask(host: Host, scheme: str, port: int, show: str = "") -> str:
    """What a client gets through the load balancer, which passes bytes through in this scenario."""
    where = f"--resolve {NAME}:{port}:{BALANCER} {scheme}://{NAME}/x"
    return str(host.check_output(f"curl --silent --show-error --max-time 5 {show} {where}"))


def test_the_ingress_learns_the_client_from_the_balancer(host: Host) -> None:
    told = json.loads(ask(host, "https", 443))
    assert told["remote"] == AGENT
    assert "x-forwarded-for" not in told["headers"]


def test_the_ingress_redirects_plain_http(host: Host) -> None:
    shown = ask(host, "http", 80, "--output /dev/null --write-out '%{http_code} %{redirect_url}'")
    assert shown == f"301 https://{NAME}/x"


def test_all_faults_are_named_at_once(stopped: None) -> None:
    done = verify("v1.36.2+rke2r1")
    assert done.returncode == 2
    for number in (1, 2, 3):
        assert f"node test-rke2-server-{number} runs v1.36.3+rke2r1, not v1.36.2+rke2r1" in done.stdout
    assert "test-rke2-agent-1" in done.stdout
