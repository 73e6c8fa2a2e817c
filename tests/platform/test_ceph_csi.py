"""The Ceph users for Kubernetes volumes: each has access to its own namespace or group only."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.conftest import REPOSITORY, play

MEMBER = "lab-ceph-1"
IN_MONITOR = "podman exec --interactive $(podman ps --quiet --filter name=-mon- | head -n 1) sh -c"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(cloud: Client, description: dict[str, Any]) -> Run:
    """A shell in the monitor's container of a member, with secrets on stdin."""
    user = yaml.safe_load((REPOSITORY / "inventories/defaults.yml").read_text())["platform_admin_user"]
    server = cloud.servers.get_by_name(MEMBER)
    assert server is not None
    options = ["-i", description["ssh_private_key_path"], "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10"]
    options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]

    def inside(command: str, data: str = "") -> subprocess.CompletedProcess[str]:
        script = f"sudo sh -c {shlex.quote(f'{IN_MONITOR} {shlex.quote(command)}')}"
        return subprocess.run(
            ["ssh", *options, f"{user}@{server.public_net.ipv4.ip}", script],
            input=data,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return inside


def query(run: Run, command: str) -> Any:
    done = run(f"ceph --connect-timeout 20 --format json --name mon. --keyring /var/lib/ceph/mon/*/keyring {command}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def own(run: Run) -> Callable[[str, str, str], subprocess.CompletedProcess[str]]:
    """A program of Ceph as one of the users, with the user's key only."""
    keys = {entry["entity"]: entry["key"] for entry in query(run, "auth ls")["auth_dump"]}

    def inside(user: str, program: str, arguments: str) -> subprocess.CompletedProcess[str]:
        keyring = f"[client.{user}]\n\tkey = {keys[f'client.{user}']}\n"
        return run(f"cat >/tmp/key; {program} --name client.{user} --keyring /tmp/key {arguments}", keyring)

    return inside


def test_the_user_of_block_devices_stays_in_its_namespace(run: Run, own: Run) -> None:
    made = own("csi-rbd-lab", "rbd", "create --size 8 kubernetes/lab/probe")
    assert made.returncode == 0, made.stderr
    assert own("csi-rbd-lab", "rbd", "ls kubernetes/lab").stdout.split() == ["probe"]
    for elsewhere in (
        "create --size 8 kubernetes/probe",
        "ls kubernetes",
        "ls .mgr",
        "namespace create kubernetes/other",
    ):
        refused = own("csi-rbd-lab", "rbd", elsewhere)
        assert refused.returncode != 0, elsewhere
        assert "not permitted" in refused.stderr, refused.stderr
    assert own("csi-rbd-lab", "ceph", "--connect-timeout 20 auth ls").returncode != 0
    assert own("csi-rbd-lab", "rbd", "rm --no-progress kubernetes/lab/probe").returncode == 0


def test_the_user_of_file_systems_creates_subvolumes_in_its_group(own: Run) -> None:
    ceph = "--connect-timeout 20"
    made = own("csi-cephfs-lab", "ceph", f"{ceph} fs subvolume create kubernetes probe --group_name lab")
    assert made.returncode == 0, made.stderr
    assert own("csi-cephfs-lab", "ceph", f"{ceph} fs subvolume rm kubernetes probe --group_name lab").returncode == 0
    for elsewhere in ("auth ls", "osd pool create probe"):
        assert own("csi-cephfs-lab", "ceph", f"{ceph} {elsewhere}").returncode != 0, elsewhere


def test_new_insecure_keys_are_forbidden(run: Run) -> None:
    assert (
        run(
            "ceph --name mon. --keyring /var/lib/ceph/mon/*/keyring config get mon mon_auth_allow_insecure_key"
        ).stdout.strip()
        == "false"
    )
    keys = {entry["entity"]: entry["key"] for entry in query(run, "auth ls")["auth_dump"]}
    assert [keys[f"client.{user}"][:2] for user in ("csi-rbd-lab", "csi-cephfs-lab")] == ["AQ", "AQ"]


def test_cephadm_uses_no_disk_by_itself(run: Run) -> None:
    services = query(run, "orch ls osd --export")
    assert sorted(service["service_id"] for service in services) == [f"lab-ceph-{number}" for number in (1, 2, 3)]
    for service in services:
        assert service["unmanaged"] is True
        paths = service["spec"]["data_devices"]["paths"]
        assert paths
        assert all(path.startswith("/dev/disk/by-id/scsi-0HC_Volume_") for path in paths)


def test_a_pool_gets_fewer_copies_only_if_confirmed(run: Run) -> None:
    pools = {"ceph_pools": [{"name": "kubernetes", "application": "rbd", "size": 2, "namespaces": ["lab"]}]}
    refused = play("--extra-vars", json.dumps(pools), playbook="playbooks/ceph.yml")
    assert refused.code != 0
    assert "Pool kubernetes: size is 3, declared is 2;" in refused.output
    assert "Add kubernetes to ceph_pool_confirm" in refused.output
    assert query(run, "osd pool get kubernetes size")["size"] == 3
