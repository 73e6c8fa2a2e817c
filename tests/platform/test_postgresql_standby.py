"""A database on two hosts: the primary loses its power under load, the standby takes over, and no row is lost.

The site has one database host; the second is made here, and goes again at the end.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hcloud import Client

from tests.platform.conftest import ARTIFACTS, REPOSITORY, Run, play

FIRST, SECOND, CLIENT = "lab-postgresql-1", "lab-postgresql-2", "lab-rke2-server-1"
SECOND_ADDRESS = "10.90.1.72"
WORK = "/var/tmp/standby-ledger"
LONGEST_OUTAGE_SECONDS = 90
"""What the command takes is measured; this is for a machine that is busy otherwise."""


@dataclass
class Site:
    """The lab with two database hosts, of which `primary` takes the writes by the inventory."""

    cloud: Client
    description: dict[str, Any]
    folder: Path

    def declare(self, primary: str) -> None:
        """The inventory of the lab with a second database host. Its folder has the environment's name."""
        inventory = yaml.safe_load((REPOSITORY / "inventories/lab/hosts.yml").read_text())
        group = inventory["all"]["children"]["postgresql"]
        group["hosts"][SECOND] = {"provision_private_ip": SECOND_ADDRESS}
        for name in (FIRST, SECOND):
            group["hosts"][name]["postgresql_standby"] = name != primary
        group["vars"] = {"postgresql_synchronous": True}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
        for name in ("group_vars", "hcloud.yml"):
            if not (self.folder / name).exists():
                (self.folder / name).symlink_to(REPOSITORY / "inventories/lab" / name)

    def play(self, playbook: str, *arguments: str, **inputs: str) -> Run:
        named = ["-e", json.dumps(inputs)] if inputs else []
        return play("-i", str(self.folder), *arguments, *named, playbook=f"playbooks/{playbook}.yml")

    def on(self, name: str, command: str, *, input: str | None = None, check: bool = True) -> str:
        server = self.cloud.servers.get_by_name(name)
        assert server is not None
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10"]
        done = subprocess.run(
            [
                "ssh", "-i", self.description["ssh_private_key_path"], *(f"-o{option}" for option in options),
                f"slipway@{server.public_net.ipv4.ip}", f"sudo sh -c {shlex.quote(command)}",
            ],
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{name}: {command}: {done.stderr[-2000:]}"
        return done.stdout

    def ask(self, name: str, statement: str, database: str = "postgres") -> str:
        return self.on(name, f"psql -XAtq -U postgres -d {database} -c {shlex.quote(statement)}").strip()

    def power_off(self, name: str) -> None:
        server = self.cloud.servers.get_by_name(name)
        assert server is not None
        server.power_off().wait_until_finished()


@dataclass
class Load:
    """Rows written one after the other through the pooler, wherever the primary is."""

    site: Site
    label: str
    acknowledged: list[tuple[int, float]] = field(default_factory=list)

    @property
    def folder(self) -> str:
        return f"{WORK}-{self.label}"

    def start(self, primary: str) -> None:
        self.site.ask(
            primary,
            "DROP TABLE IF EXISTS ledger; CREATE TABLE ledger (number bigint PRIMARY KEY); "
            "GRANT INSERT ON ledger TO app_rw",
            "app",
        )
        secrets = yaml.safe_load(Path(self.site.description["secrets_path"]).read_text())
        truths = yaml.safe_load((REPOSITORY / "inventories/lab/group_vars/all/platform.yml").read_text())
        connection = {
            "host": f"postgresql.{truths['platform_domain']}",
            "port": 6432,
            "user": "app",
            "password": secrets["postgresql_role_passwords"]["app"],
            "dbname": "app",
            "sslmode": "verify-full",
            "sslrootcert": "/etc/ssl/certs/ca-certificates.crt",
            "target_session_attrs": "read-write",
            "connect_timeout": 3,
            "tcp_user_timeout": 3000,
        }
        settings = {"connection": connection, "ledger": f"{self.folder}/ledger", "stop": f"{self.folder}/stop"}
        script = (Path(__file__).parent / "postgresql_standby_load.py").read_text()
        self.site.on(CLIENT, f"rm -rf {self.folder} && install -d -m 0700 {self.folder}")
        self.site.on(CLIENT, f"cat > {self.folder}/load.py", input=script)
        self.site.on(CLIENT, f"umask 077; cat > {self.folder}/settings", input=json.dumps(settings))
        self.site.on(
            CLIENT,
            f"systemd-run --quiet --unit standby-{self.label} sh -c "
            f"'exec python3 {self.folder}/load.py < {self.folder}/settings 2> {self.folder}/log'",
        )
        until(lambda: self.rows() > 50, 60)

    def rows(self) -> int:
        return int(self.site.on(CLIENT, f"cat {self.folder}/ledger 2>/dev/null | wc -l"))

    def finish(self) -> None:
        self.site.on(CLIENT, f"touch {self.folder}/stop")
        writer = f"systemctl is-active standby-{self.label}"
        until(lambda: self.site.on(CLIENT, writer, check=False).strip() != "active", 60)
        for line in self.site.on(CLIENT, f"cat {self.folder}/ledger").splitlines():
            number, moment = line.split()
            self.acknowledged.append((int(number), float(moment)))
        self.site.on(CLIENT, f"rm -rf {self.folder}")

    def lost(self, primary: str) -> list[int]:
        """Acknowledged rows that are not there."""
        there = {int(line) for line in self.site.ask(primary, "SELECT number FROM ledger", "app").split()}
        return [number for number, _ in self.acknowledged if number not in there]

    def outage(self, since: float) -> float:
        """The longest time after `since` in which nothing was acknowledged."""
        moments = [since, *(moment for _, moment in self.acknowledged if moment > since)]
        return max((after - before for before, after in pairwise(moments)), default=0.0)


def until(right: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not right():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.5)


def ran(run: Run) -> Run:
    assert run.code == 0, run.output[-6000:]
    return run


@pytest.fixture(scope="module")
def figures() -> Iterator[Callable[[str, object], None]]:
    """Keeps what was measured, in a file beside the reports of the runs."""
    kept: dict[str, object] = {}

    def keep(name: str, value: object) -> None:
        kept[f"{os.environ['PYTEST_CURRENT_TEST'].split('::')[-1].split(' ')[0]}: {name}"] = value

    yield keep
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    (ARTIFACTS / "postgresql_standby.json").write_text(json.dumps(kept, indent=1) + "\n")


@pytest.fixture(scope="module")
def site(cloud: Client, description: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A standby beside the site's database; afterwards the database is alone again, on the host that it was on."""
    folder = tmp_path_factory.mktemp("inventory") / "lab"
    folder.mkdir()
    site = Site(cloud, description, folder)
    site.declare(FIRST)
    ran(site.play("provision", "--limit", SECOND))
    ran(site.play("base", "--limit", f"postgresql:{CLIENT}"))
    ran(site.play("postgresql"))
    site.on(CLIENT, "apt-get install --quiet --yes --no-install-recommends python3-psycopg")
    yield site
    # A test that failed may have left the writes to the other host.
    if site.ask(FIRST, "SELECT pg_is_in_recovery()") == "t":
        site.declare(SECOND)
        ran(site.play("operations/promote_postgresql", op_promote_postgresql_host=FIRST))
    if (server := cloud.servers.get_by_name(SECOND)) is not None:
        volumes = [volume for volume in cloud.volumes.get_all() if volume.server and volume.server.id == server.id]
        server.delete().wait_until_finished()
        for volume in volumes:
            cloud.volumes.delete(volume)
    ran(play("--limit", f"{FIRST},{CLIENT}", playbook="playbooks/base.yml"))
    ran(play(playbook="playbooks/postgresql.yml"))


def test_a_standby_follows_and_is_waited_for(site: Site) -> None:
    assert site.ask(FIRST, "SELECT application_name, state, sync_state FROM pg_stat_replication") == (
        f"{SECOND}|streaming|quorum"
    )
    said = site.ask(
        FIRST,
        "SELECT s.ssl, s.version FROM pg_stat_replication JOIN pg_stat_ssl s USING (pid) "
        "UNION ALL SELECT active, wal_status FROM pg_replication_slots",
    )
    assert said.splitlines() == ["t|TLSv1.3", "t|reserved"]
    assert site.ask(FIRST, "SHOW max_slot_wal_keep_size") != "-1"
    assert site.ask(SECOND, "SELECT pg_is_in_recovery()") == "t"


def test_the_standby_lets_in_its_peer_alone(site: Site) -> None:
    """By address, account and password, and to nothing but replication and the question who takes the writes."""
    rows = site.ask(SECOND, "SELECT database, user_name, address, auth_method FROM pg_hba_file_rules "
                    "WHERE 'standby' = ANY (user_name) ORDER BY 1")  # fmt: skip
    address = site.ask(FIRST, "SHOW listen_addresses")
    assert rows.splitlines() == [
        f"{{postgres}}|{{standby}}|{address}|scram-sha-256",
        f"{{replication}}|{{standby}}|{address}|scram-sha-256",
    ]


def test_without_the_primary_nothing_acknowledged_is_lost(site: Site, figures: Callable[[str, object], None]) -> None:
    load = Load(site, "killed")
    load.start(FIRST)
    time.sleep(5)
    cut = time.time()
    site.power_off(FIRST)
    ran(site.play("operations/promote_postgresql", op_promote_postgresql_host=SECOND))
    promoted = load.rows()
    until(lambda: load.rows() > promoted + 50, 60)
    load.finish()
    lost, outage = load.lost(SECOND), load.outage(cut)
    figures("acknowledged rows", len(load.acknowledged))
    figures("lost rows", len(lost))
    figures("seconds without writes", round(outage, 1))
    assert lost == []
    assert outage < LONGEST_OUTAGE_SECONDS


def test_the_old_primary_neither_serves_nor_stays_away(site: Site, figures: Callable[[str, object], None]) -> None:
    """Powered on by hand it does not start as a second primary; told to, it follows."""
    server = site.cloud.servers.get_by_name(FIRST)
    assert server is not None
    server.power_on().wait_until_finished()
    refusal = "takes the writes now; let this host follow it"
    until(lambda: refusal in site.on(FIRST, "journalctl -b -u postgresql@17-main --no-pager", check=False), 90)
    refused = site.play("operations/rejoin_postgresql", op_rejoin_postgresql_host=FIRST)
    assert refused.code != 0 and "correct hosts.yml first" in " ".join(refused.output.split())
    site.declare(SECOND)
    began = time.time()
    ran(site.play("operations/rejoin_postgresql", op_rejoin_postgresql_host=FIRST))
    figures("seconds to rejoin", round(time.time() - began))
    assert site.ask(SECOND, "SELECT application_name, state, sync_state FROM pg_stat_replication") == (
        f"{FIRST}|streaming|quorum"
    )
    kept = site.on(FIRST, "ls -d /var/lib/postgresql/17/main.before-*/pg_wal")
    assert kept.strip()


def test_a_second_run_changes_nothing(site: Site) -> None:
    run = ran(site.play("postgresql"))
    assert run.changed == {}, re.findall(r"^TASK.*\n(?:(?!TASK).*\n)*?changed: .*$", run.output, re.M)


def test_a_living_primary_hands_over_in_order(site: Site, figures: Callable[[str, object], None]) -> None:
    load = Load(site, "handed")
    load.start(SECOND)
    began = time.time()
    ran(site.play("operations/promote_postgresql", op_promote_postgresql_host=FIRST))
    promoted = load.rows()
    until(lambda: load.rows() > promoted + 50, 60)
    load.finish()
    figures("seconds without writes", round(load.outage(began), 1))
    assert load.lost(FIRST) == []
    server = site.cloud.servers.get_by_name(SECOND)
    assert server is not None and server.status == "off"
