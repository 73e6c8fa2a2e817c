"""The health checks pass on a healthy platform and report what is broken."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.inventory import Inventory

testinfra_hosts = ["ansible://rke2_agent"]

ANOTHER_RELEASE = "v1.36.2+rke2r1"
PASSTHROUGH = "the site terminates TLS in the load balancer; only this scenario lets it end in the ingress"
REPOSITORY = Path(__file__).resolve().parents[3]


def verify(inventory: Inventory, version: str, settle_seconds: int = 0) -> subprocess.CompletedProcess[str]:
    return play(inventory, "verify", f"rke2_version={version} verify_settle_seconds={settle_seconds}")


def play(inventory: Inventory, name: str, variables: str) -> subprocess.CompletedProcess[str]:
    options = [f"--inventory={inventory.settings['platform_inventory']}", "--extra-vars", variables]
    return subprocess.run(
        ["ansible-playbook", f"playbooks/{name}.yml", *options],
        cwd=REPOSITORY,
        env=os.environ | {"ANSIBLE_CACHE_PLUGIN": "memory", "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def stopped(host: Host, inventory: Inventory) -> Iterator[None]:
    with host.sudo():
        host.check_output("systemctl stop rke2-agent && rke2-killall.sh")
        yield
        host.check_output("systemctl start rke2-agent")
    # Later tests need a healthy platform.
    done = verify(inventory, inventory.settings["rke2_version"], settle_seconds=120)
    assert done.returncode == 0, done.stdout


def test_a_healthy_platform_has_no_findings(inventory: Inventory) -> None:
    done = verify(inventory, inventory.settings["rke2_version"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 nodes are Ready" in done.stdout
    assert "the storage cluster is healthy on 3 hosts" in done.stdout


def fetch(host: Host, inventory: Inventory, scheme: str, port: int, show: str = "") -> str:
    """The answer to a client through the load balancer, which forwards TCP in this scenario."""
    name = shop(inventory)
    balancer = inventory.address(inventory.group("load_balancer")[0])
    target = f"--resolve {name}:{port}:{balancer} {scheme}://{name}/x"
    return str(host.check_output(f"curl --silent --show-error --max-time 5 {show} {target}"))


def shop(inventory: Inventory) -> str:
    return f"shop.apps.{inventory.settings['platform_domain']}"


@pytest.mark.scenario(PASSTHROUGH)
def test_the_ingress_gets_the_client_s_address_by_proxy_protocol(host: Host, inventory: Inventory) -> None:
    answer = json.loads(fetch(host, inventory, "https", 443))
    assert answer["remote"] == inventory.address(inventory.group("rke2_agent")[0])
    assert "x-forwarded-for" not in answer["headers"]


@pytest.mark.scenario(PASSTHROUGH)
def test_the_ingress_redirects_plain_http(host: Host, inventory: Inventory) -> None:
    shown = fetch(host, inventory, "http", 80, "--output /dev/null --write-out '%{http_code} %{redirect_url}'")
    assert shown == f"301 https://{shop(inventory)}/x"


ETCD = """
tls=/var/lib/rancher/rke2/server/tls/etcd
curl --silent --show-error --fail --max-time 10 \\
  --cacert $tls/server-ca.crt --cert $tls/client.crt --key $tls/client.key --data '%s' https://127.0.0.1:2379/v3/%s
"""


@pytest.fixture
def alarm(inventory: Inventory) -> Iterator[str]:
    """The alarm NOSPACE of etcd on one server; yields the member's name."""
    server = inventory.host(inventory.group("rke2_server")[0])
    with server.sudo():
        listed = json.loads(server.check_output(ETCD % ("{}", "cluster/member/list")))
        own = listed["header"]["member_id"]
        order = '{"action": "%s", "memberID": "%s", "alarm": "NOSPACE"}'
        server.check_output(ETCD % (order % ("ACTIVATE", own), "maintenance/alarm"))
        try:
            yield next(member["name"] for member in listed["members"] if member["ID"] == own)
        finally:
            server.check_output(ETCD % (order % ("DEACTIVATE", own), "maintenance/alarm"))


def test_an_etcd_alarm_is_a_finding_and_nothing_is_restarted(alarm: str, inventory: Inventory) -> None:
    version = inventory.settings["rke2_version"]
    for done in (verify(inventory, version), play(inventory, "rke2", f"rke2_version={version}")):
        assert done.returncode == 2, done.stdout
        assert f"etcd member {alarm} raised the alarm NOSPACE" in done.stdout


@pytest.fixture
def read_only_database(inventory: Inventory) -> Iterator[None]:
    database = inventory.host(inventory.group("postgresql")[0])
    psql = "psql --username=postgres --no-psqlrc --quiet --command"
    with database.sudo():
        database.check_output(f"{psql} 'ALTER SYSTEM SET default_transaction_read_only = on'")
        database.check_output(f"{psql} 'SELECT pg_reload_conf()'")
        try:
            yield
        finally:
            database.check_output(f"{psql} 'ALTER SYSTEM RESET default_transaction_read_only'")
            database.check_output(f"{psql} 'SELECT pg_reload_conf()'")


def test_a_read_only_database_is_a_finding(read_only_database: None, inventory: Inventory) -> None:
    done = verify(inventory, inventory.settings["rke2_version"])
    assert done.returncode == 2, done.stdout
    assert "new transactions are read-only (default_transaction_read_only)" in done.stdout
    assert "accepts no write (ERROR:  cannot execute CREATE SCHEMA in a read-only transaction)" in done.stdout


KEEP = "cp --archive {0} {0}.kept"
PUT_BACK = "mv {0}.kept {0}"
CHRONY, SSHD, REGISTRIES = (
    "/etc/chrony/chrony.conf",
    "/etc/ssh/sshd_config.d/00-local.conf",
    "/etc/rancher/rke2/registries.yaml",
)
HBA = "/etc/postgresql/17/main/pg_hba.conf"
DRIFT = [
    # Group, fault, its repair, and the finding.
    (
        "rke2_agent",
        "nft delete table inet slipway",
        "systemctl restart slipway-firewall",
        "`nft --stateless list table inet slipway` shows another state than the one that was activated",
    ),
    (
        "load_balancer",
        "nft insert rule inet slipway openings accept",
        "systemctl restart slipway-firewall",
        "`nft --stateless list table inet slipway` shows another state than the one that was activated",
    ),
    (
        "postgresql",
        "systemctl disable --quiet --now apt-daily-upgrade.timer",
        "systemctl enable --quiet --now apt-daily-upgrade.timer",
        "apt-daily-upgrade.timer would not start with the host, because it is not enabled",
    ),
    (
        "postgresql",
        f"{KEEP.format(HBA)}; sed --in-place '1i host all all 0.0.0.0/0 trust' {HBA}",
        PUT_BACK.format(HBA),
        f"{HBA} was changed since the last run of postgresql",
    ),
    ("ceph", f"chmod 0666 {CHRONY}", f"chmod 0644 {CHRONY}", f"{CHRONY} belongs to root:root with mode 0666"),
    (
        "gitlab_runner",
        f"echo PermitRootLogin yes >{SSHD}",
        f"rm {SSHD}",
        "`sshd -T` shows another state than the one that was activated",
    ),
    (
        "rke2_server",
        f"{KEEP.format(REGISTRIES)}; echo '# by hand' >>{REGISTRIES}",
        PUT_BACK.format(REGISTRIES),
        f"{REGISTRIES} was changed since rke2 started",
    ),
]


def run_on(inventory: Inventory, group: str, command: str) -> None:
    machine = inventory.host(inventory.group(group)[0])
    with machine.sudo():
        machine.check_output(command)


@pytest.fixture
def changed_by_hand(inventory: Inventory) -> Iterator[None]:
    for group, fault, _repair, _finding in DRIFT:
        run_on(inventory, group, fault)
    yield
    for group, _fault, repair, _finding in DRIFT:
        run_on(inventory, group, repair)  # the last test ends with a platform without findings


def test_what_was_changed_by_hand_is_a_finding_while_every_service_runs(
    changed_by_hand: None, inventory: Inventory
) -> None:
    done = verify(inventory, inventory.settings["rke2_version"])
    assert done.returncode == 2, done.stdout
    for group, _fault, _repair, finding in DRIFT:
        assert f"{inventory.group(group)[0]}: {finding}" in done.stdout
    # The firewall that is missing lets another host in, which the controller cannot see.
    agent = inventory.group("rke2_agent")[0]
    assert any(f"port 22 of {agent} (" in line and "is open from" in line for line in done.stdout.splitlines())


def test_all_findings_are_reported_at_once(stopped: None, inventory: Inventory) -> None:
    done = verify(inventory, ANOTHER_RELEASE)
    assert done.returncode == 2
    for name in inventory.group("rke2_server"):
        assert f"node {name} runs {inventory.settings['rke2_version']}, not {ANOTHER_RELEASE}" in done.stdout
    assert inventory.group("rke2_agent")[0] in done.stdout
