"""The storage during power loss, disk failure and an upgrade of Ceph: no acknowledged object is lost.

Two bounded loads write objects of 64 KiB, through librados and through the object gateways, from inside the cluster's
own image on a host that stays. Each keeps a ledger of what was acknowledged; every object in it is read back and
compared.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.conftest import ARTIFACTS, REPOSITORY, kill, play
from tests.support import deadlines

HOSTS = ["lab-ceph-1", "lab-ceph-2", "lab-ceph-3"]
POOL = "ledger"
BUCKET = "ledger"
WORK = "/var/tmp/ledger"
PER_SECOND = 5
FAILURES = (AssertionError, subprocess.TimeoutExpired, ValueError, IndexError)
OUTAGE_SECONDS = 30
"""Time without power of two hosts, in which nothing may be acknowledged."""
LONGEST_SILENCE_SECONDS = 60
"""Ceph marks an OSD down after osd_heartbeat_grace (20 s), then needs reports and a new map."""


@dataclass
class Host:
    """A shell on a host."""

    name: str
    options: list[str]

    def run(self, command: str, *, input: str | None = None, check: bool = True, timeout: float = 120) -> str:
        done = subprocess.run(
            ["ssh", *self.options, f"sudo sh -c {shlex.quote(command)}"],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {command}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def tool(self, *words: str, input: str | None = None, check: bool = True, timeout: float = 60) -> str:
        """A program in the monitor's container of this host, with the administrator's key passed as a descriptor."""
        return self.run(
            "podman exec --interactive --preserve-fds 1 $(podman ps --quiet --filter name=-mon- | head -n 1) "
            f"{shlex.join([*words, '--name', 'client.admin', '--keyring', '/dev/fd/3'])} "
            "3</etc/ceph/ceph.client.admin.keyring",
            input=input,
            check=check,
            timeout=timeout,
        )

    def ceph(self, *arguments: str) -> str:
        return self.tool("ceph", "--connect-timeout", "10", *arguments)

    def query(self, *arguments: str) -> Any:
        return json.loads(self.ceph(*arguments, "--format", "json"))


@pytest.fixture(scope="module")
def hosts(cloud: Client, description: dict[str, Any]) -> dict[str, Host]:
    common = yaml.safe_load((REPOSITORY / "inventories/defaults.yml").read_text())
    options = ["-i", description["ssh_private_key_path"], "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10"]
    options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    found = {}
    for name in HOSTS:
        server = cloud.servers.get_by_name(name)
        assert server is not None
        found[name] = Host(name, [*options, f"{common['platform_admin_user']}@{server.public_net.ipv4.ip}"])
    return found


@pytest.fixture(scope="module")
def figures() -> Iterator[Callable[[str, object], None]]:
    """Keeps what was measured, in a file beside the reports of the runs."""
    kept: dict[str, object] = {}

    def keep(name: str, value: object) -> None:
        kept[f"{os.environ['PYTEST_CURRENT_TEST'].split('::')[-1].split(' ')[0]}: {name}"] = value

    yield keep
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    (ARTIFACTS / "ceph.json").write_text(json.dumps(kept, indent=1) + "\n")


@dataclass
class Load:
    """One of the loads, running on a host; after `finish` its ledger is read."""

    host: Host
    kind: str
    image: str
    settings: dict[str, Any]
    files: dict[str, str]
    lines: list[tuple[str, float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def folder(self) -> str:
        return f"{WORK}-{self.settings['prefix']}"

    def podman(self, verb: str, how: str) -> str:
        return (
            f"podman run {how} --network host --volume {self.folder}:/ledger "
            f"--entrypoint python3 {self.image} /ledger/load.py {verb}"
        )

    def start(self) -> None:
        script = (Path(__file__).parent / "ceph_load.py").read_text()
        files = self.files | {"load.py": script, "settings.json": json.dumps(self.settings)}
        self.host.run(f"rm -rf {self.folder} && install -d -m 0700 {self.folder}")
        for name, text in files.items():
            self.host.run(f"umask 077; cat > {self.folder}/{name}", input=text)
        self.host.run(self.podman("write", f"--detach --name {self.settings['prefix']}"))
        until(lambda: self.acknowledged() >= 5, 90)

    def acknowledged(self) -> int:
        return int(self.host.run(f"cat {self.folder}/ledger 2>/dev/null | wc -l"))

    def last(self) -> float:
        """When something was acknowledged last, by the machine's clock, which is the hosts' too."""
        return float(self.host.run(f"tail -n 1 {self.folder}/ledger").split()[-1])

    def finish(self) -> None:
        self.host.run(f"touch {self.folder}/stop; podman wait {self.settings['prefix']}", timeout=360)
        self.host.run(f"podman rm {self.settings['prefix']}")
        for line in self.host.run(f"cat {self.folder}/ledger").splitlines():
            name, _, began, ended = line.split()
            self.lines.append((name, float(began), float(ended)))
        self.failed = self.host.run(f"cat {self.folder}/failed 2>/dev/null", check=False).splitlines()

    def lost(self) -> list[str]:
        """Acknowledged objects that are not there or are not what was written."""
        answer = json.loads(self.host.run(self.podman("verify", "--rm"), timeout=600))
        assert answer["acknowledged"] == len(self.lines)
        return list(answer["wrong"])

    def silence(self, since: float) -> float:
        """The longest time after `since` in which nothing was acknowledged."""
        ends = [ended for _, _, ended in self.lines]
        moments = [max((end for end in ends if end <= since), default=since), *(end for end in ends if end > since)]
        return max((after - before for before, after in pairwise(moments)), default=0.0)


def until(condition: Callable[[], bool], seconds: float, pause: float = 1) -> None:
    """A wait in which commands may fail: hosts are down, monitors elect."""
    deadlines.until(condition, seconds, pause=pause, errors=FAILURES)


def healthy(host: Host) -> bool:
    status = host.query("status")
    states = {entry["state_name"] for entry in status["pgmap"].get("pgs_by_state", [])}
    complete = len(status["quorum_names"]) == len(HOSTS) and status["osdmap"]["num_up_osds"] == len(HOSTS)
    checks = {code: check["summary"]["message"] for code, check in status["health"]["checks"].items()}
    assert status["health"]["status"] == "HEALTH_OK", checks
    return complete and states <= {"active+clean", "active+clean+scrubbing", "active+clean+scrubbing+deep"}


def active_manager(host: Host) -> str:
    """The host on which the active manager runs."""
    return str(host.query("mgr", "dump")["active_name"]).split(".")[0]


@pytest.fixture(scope="module")
def store(hosts: dict[str, Host], description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A pool and a bucket for the loads, each with a key of its own."""
    host = hosts[HOSTS[0]]
    until(lambda: healthy(host), 120)
    if POOL not in host.query("osd", "pool", "ls"):
        host.ceph("osd", "pool", "create", POOL, "16", "--autoscale-mode", "off")
        host.ceph("osd", "pool", "application", "enable", POOL, "test")
    host.ceph("auth", "get-or-create", "client.ledger", "mon", "profile rbd", "osd", f"allow rwx pool={POOL}")
    gateways = [
        daemon
        for daemon in host.query("orch", "ps", "--daemon_type", "rgw")
        if daemon["hostname"] in HOSTS and daemon["ports"]
    ]
    addresses = {entry["hostname"]: entry["addr"] for entry in host.query("orch", "host", "ls")}
    options = {entry["name"]: entry["value"] for entry in host.query("config", "dump")}
    access, secret = secrets.token_hex(10), secrets.token_hex(20)
    admin, user = ["radosgw-admin", "user"], ["--uid", "ledger"]
    host.tool(*admin, "rm", *user, "--purge-data", check=False, timeout=600)
    keys = ["--access-key", access, "--secret-key", secret]
    host.tool(*admin, "create", *user, "--display-name", "ledger", *keys)
    ports = {daemon["hostname"]: daemon["ports"][0] for daemon in gateways}
    return {
        "rados": {"kind": "rados", "client": "client.ledger", "pool": POOL},
        "s3": {
            "kind": "s3",
            "bucket": BUCKET,
            "name": options["rgw_dns_name"],
            "gateways": [[addresses[name], port] for name, port in sorted(ports.items())],
            "access_key": access,
            "secret_key": secret,
        },
    }


@contextmanager
def loads(
    host: Host, store: dict[str, dict[str, Any]], description: dict[str, Any], label: str
) -> Iterator[dict[str, Load]]:
    """Both loads from one host, from here to the end of the block; then nothing acknowledged may be missing."""
    files = {
        "ceph.conf": host.run("cat /etc/ceph/ceph.conf"),
        "keyring": host.ceph("auth", "get", "client.ledger"),
        "ca.pem": host.run("cat /etc/ssl/certs/ca-certificates.crt"),
    }
    running = {
        kind: Load(
            host,
            kind,
            description["ceph"]["image"],
            settings | {"prefix": f"{label}-{kind}", "per_second": PER_SECOND},
            files,
        )
        for kind, settings in store.items()
    }
    for load in running.values():
        load.start()
    try:
        yield running
    finally:
        for load in running.values():
            load.finish()
    lost = {kind: load.lost() for kind, load in running.items()}
    assert lost == {"rados": [], "s3": []}
    for load in running.values():
        host.run(f"rm -rf {load.folder}")


def power(cloud: Client, names: list[str], on: bool) -> None:
    servers = [cloud.servers.get_by_name(name) for name in names]
    actions = [server.power_on() if on else server.power_off() for server in servers if server is not None]
    for action in actions:
        action.wait_until_finished()


def writes_again(running: dict[str, Load], since: float) -> bool:
    return all(load.last() > since for load in running.values())


@pytest.mark.parametrize(
    "manager", [pytest.param(False, marks=pytest.mark.soak, id="monitor"), pytest.param(True, id="manager")]
)
def test_a_host_without_power_costs_seconds_and_no_data(
    cloud: Client,
    hosts: dict[str, Host],
    store: dict[str, dict[str, Any]],
    description: dict[str, Any],
    figures: Callable[[str, object], None],
    manager: bool,
) -> None:
    leader = active_manager(hosts[HOSTS[0]])
    victim = leader if manager else next(name for name in reversed(HOSTS) if name != leader)
    writer = hosts[next(name for name in HOSTS if name != victim)]
    with loads(writer, store, description, "manager" if manager else "host") as running:
        cut = time.time()
        power(cloud, [victim], on=False)
        try:
            until(lambda: writer.query("status")["osdmap"]["num_up_osds"] == len(HOSTS) - 1, 120)
            until(lambda: writes_again(running, time.time() - 3), 120)
            if manager:
                until(lambda: active_manager(writer) not in ("", victim), 120)
        finally:
            power(cloud, [victim], on=True)
        back = time.time()
        until(lambda: healthy(writer), 300)
        figures("seconds until HEALTH_OK", round(time.time() - back))
    silence = {kind: round(load.silence(cut), 1) for kind, load in running.items()}
    figures("longest silence in seconds", silence)
    figures("acknowledged", {kind: len(load.lines) for kind, load in running.items()})
    assert max(silence.values()) <= LONGEST_SILENCE_SECONDS, silence
    assert {kind: load.failed for kind, load in running.items()} == {"rados": [], "s3": []}


@pytest.mark.soak
def test_without_two_hosts_writes_wait_and_nothing_is_lost(
    cloud: Client,
    hosts: dict[str, Host],
    store: dict[str, dict[str, Any]],
    description: dict[str, Any],
    figures: Callable[[str, object], None],
) -> None:
    writer = hosts[HOSTS[0]]
    with loads(writer, store, description, "two") as running:
        power(cloud, HOSTS[1:], on=False)
        cut = time.time()
        try:
            time.sleep(OUTAGE_SECONDS)
            # min_size is 2: with one host nothing is acknowledged.
            assert max(load.last() for load in running.values()) < cut + 5
        finally:
            power(cloud, HOSTS[1:], on=True)
        back = time.time()
        until(lambda: writes_again(running, back), 240)
        until(lambda: healthy(writer), 300)
        figures("seconds until HEALTH_OK", round(time.time() - back))
    assert {kind: load.failed for kind, load in running.items()} == {"rados": [], "s3": []}


def volume_of(cloud: Client, name: str) -> int:
    server = cloud.servers.get_by_name(name)
    assert server is not None
    (number,) = {
        volume.id
        for volume in cloud.volumes.get_all()
        if volume.server is not None and volume.server.id == server.id and volume.name == f"{name}-ceph"
    }
    return int(number)


@pytest.mark.soak
def test_a_dead_disk_is_replaced_by_one_playbook(
    cloud: Client, hosts: dict[str, Host], store: dict[str, dict[str, Any]], description: dict[str, Any]
) -> None:
    writer, victim = hosts[HOSTS[0]], hosts[HOSTS[2]]
    with loads(writer, store, description, "disk"):
        tree = {node["name"]: node for node in writer.query("osd", "tree")["nodes"]}
        (osd,) = tree[victim.name]["children"]
        volume = volume_of(cloud, victim.name)
        fsid = writer.query("status")["fsid"]
        victim.run(f"systemctl stop ceph-{fsid}@osd.{osd}.service")
        victim.run(f"dd if=/dev/zero of=/dev/disk/by-id/scsi-0HC_Volume_{volume} bs=1M count=64 conv=fsync status=none")
        inputs = json.dumps({"op_replace_ceph_osd_id": osd, "op_replace_ceph_osd_volume": volume})
        preview = play("--check", "-e", inputs, playbook="playbooks/operations/replace_ceph_osd.yml")
        assert preview.code == 0, preview.excerpt
        assert volume_of(cloud, victim.name) == volume
        run = play("-e", inputs, playbook="playbooks/operations/replace_ceph_osd.yml")
        assert run.code == 0, run.excerpt
        until(lambda: healthy(writer), 300)
        assert volume_of(cloud, victim.name) != volume
        assert [node["status"] for node in writer.query("osd", "tree")["nodes"] if node["type"] == "osd"] == ["up"] * 3


@pytest.mark.soak
def test_an_upgrade_fails_no_write_and_survives_its_run(
    hosts: dict[str, Host],
    store: dict[str, dict[str, Any]],
    description: dict[str, Any],
    figures: Callable[[str, object], None],
) -> None:
    """From one digest to another under load; the run is killed in the middle, the next one continues."""
    writer, image = hosts[HOSTS[0]], description["ceph"]["upgrade_image"]
    inputs = json.dumps({"op_upgrade_ceph_image": image, "op_upgrade_ceph_version": description["ceph"]["version"]})
    playbook = "playbooks/operations/upgrade_ceph.yml"
    with loads(writer, store, description, "upgrade") as running:
        began = time.time()
        run = subprocess.Popen(
            ["ansible-playbook", playbook, "-i", "inventories/lab", "-e", inputs],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        digest = image.rpartition("@")[2]

        def upgraded() -> int:
            return sum(
                any(name.endswith(digest) for name in daemon.get("container_image_digests") or [])
                for daemon in writer.query("orch", "ps")
            )

        try:
            until(lambda: upgraded() >= 2 or run.poll() is not None, 600, pause=3)
        finally:
            kill(run)
        second = play("-e", inputs, playbook=playbook)
        assert second.code == 0, second.excerpt
        figures("seconds", round(time.time() - began))
        until(lambda: healthy(writer), 300)
    assert re.search(r"daemons run the image", second.output)
    assert upgraded() == len(writer.query("orch", "ps"))
    assert {kind: load.failed for kind, load in running.items()} == {"rados": [], "s3": []}
    assert "noautoscale" not in writer.query("osd", "dump")["flags_set"]
    copies = "".join(host.run("ls /var/backups/ceph 2>/dev/null", check=False) for host in hosts.values())
    assert copies.count("before-upgrade-") == 1
    for mode in ([], ["--check"]):
        again = play(*mode, "-e", inputs, playbook=playbook)
        assert again.code == 0, again.excerpt
        assert again.changed == {}


@pytest.mark.parametrize(
    ("verb", "inputs", "message"),
    [
        ("upgrade_ceph", {}, "op_upgrade_ceph_image: not given"),
        (
            "upgrade_ceph",
            {"op_upgrade_ceph_image": "quay.io/ceph/ceph:v20", "op_upgrade_ceph_version": "20.2.5"},
            "a tag can",
        ),
        ("replace_ceph_osd", {"op_replace_ceph_osd_id": "osd.1"}, '"osd.1"'),
        ("replace_ceph_osd", {"op_replace_ceph_osd_id": 77}, "osd.77 does not exist; the cluster has"),
    ],
)
def test_a_wrong_input_is_rejected_with_a_message(verb: str, inputs: dict[str, Any], message: str) -> None:
    run = play("-e", json.dumps(inputs), playbook=f"playbooks/operations/{verb}.yml")
    assert run.code != 0
    assert message in run.text
    assert run.changed == {}
