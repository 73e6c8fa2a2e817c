"""The database of the platform as its tests meet it: its host, its clients, and rows that were acknowledged."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hcloud import Client

from tests.platform.conftest import ARTIFACTS, REPOSITORY, Run, play
from tests.support.deadlines import until

DATABASE, CLIENT, OUTSIDER = "lab-postgresql-1", "lab-rke2-server-1", "lab-lb-1"
ALONE = f"{DATABASE},localhost"
SERVICE = "postgresql@17-main"
TOOL = "runuser -u postgres -- /usr/local/lib/slipway/postgresql-backup"
WORK = "/var/tmp/ledger"


@dataclass(frozen=True)
class Answer:
    code: int
    output: str


@dataclass
class Site:
    """The hosts; looked up for every command, because one of them is created again."""

    cloud: Client
    description: dict[str, Any]

    def run(self, name: str, command: str, *, input: str | None = None, timeout: float = 300) -> Answer:
        """What a command says on a host, as root, in its home of nobody in particular."""
        server = self.cloud.servers.get_by_name(name)
        assert server is not None, f"{name} is not there"
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10"]
        done = subprocess.run(
            [
                "ssh", "-i", self.description["ssh_private_key_path"], *(f"-o{option}" for option in options),
                f"slipway@{server.public_net.ipv4.ip}", f"cd / && sudo sh -c {shlex.quote(command)}",
            ],
            input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout)

    def on(self, name: str, command: str, **more: Any) -> str:
        answer = self.run(name, command, **more)
        assert answer.code == 0, f"{name}: {command}: {answer.output[-2000:]}"
        return answer.output

    def query(self, statement: str, database: str = "app", host: str = DATABASE) -> str:
        return self.on(host, f"psql -XAtq -U postgres -d {database} -c {shlex.quote(statement)}").strip()

    def play(self, playbook: str, *arguments: str, **inputs: Any) -> Run:
        named = ["-e", json.dumps(inputs)] if inputs else []
        return play("--limit", ALONE, *arguments, *named, playbook=f"playbooks/{playbook}.yml")

    def played(self, playbook: str, *arguments: str, **inputs: Any) -> Run:
        run = self.play(playbook, *arguments, **inputs)
        assert run.code == 0, run.excerpt
        return run

    def connection(self) -> dict[str, Any]:
        """The connection of an application: to the primary, and away from a host that does not answer."""
        secrets = yaml.safe_load(Path(self.description["secrets_path"]).read_text())
        settings = yaml.safe_load((REPOSITORY / "inventories/lab/group_vars/all/platform.yml").read_text())
        return {
            "host": f"postgresql.{settings['platform_domain']}",
            "port": 6432,
            "user": "app",
            "password": secrets["postgresql_role_passwords"]["app"],
            "dbname": "app",
            "sslmode": "verify-full",
            "sslrootcert": "/etc/ssl/certs/ca-certificates.crt",
            "target_session_attrs": "read-write",
            "connect_timeout": 3,
            "tcp_user_timeout": 3000,
            "keepalives_idle": 2,
            "keepalives_interval": 1,
            "keepalives_count": 3,
        }

    def now(self) -> str:
        """The server's own time, with its zone."""
        return self.query(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00:00'"
        )

    def archived(self) -> bool:
        """Whether all that was written so far is in the bucket."""
        last = self.query("SELECT pg_walfile_name(pg_switch_wal())")
        state = f"/var/lib/postgresql/17/main/pg_wal/archive_status/{last}"

        def gone() -> bool:
            return self.run(DATABASE, f"test ! -e {state}.ready").code == 0

        try:
            until(gone, 60)
        except AssertionError:
            return False
        return True


@contextmanager
def load(site: Site, writers: int = 4, primary: str = DATABASE) -> Iterator[Callable[[], int]]:
    """Rows are written through the pooler for as long as this lasts; tells how many were acknowledged."""
    table = "CREATE TABLE ledger (number bigint PRIMARY KEY); GRANT INSERT ON ledger TO app_rw"
    site.query(f"DROP TABLE IF EXISTS ledger; {table}", host=primary)
    settings = {"connection": site.connection(), "folder": WORK, "writers": writers}
    site.on(CLIENT, "apt-get install --quiet --yes --no-install-recommends python3-psycopg")
    site.on(CLIENT, f"rm -rf {WORK} && install -d -m 0700 {WORK}")
    site.on(CLIENT, f"cat > {WORK}/load.py", input=(Path(__file__).parent / "postgresql_load.py").read_text())
    site.on(CLIENT, f"umask 077; cat > {WORK}/settings", input=json.dumps(settings))
    site.on(CLIENT, f"systemd-run --quiet --unit ledger sh -c 'exec python3 {WORK}/load.py < {WORK}/settings'")

    def rows() -> int:
        return int(site.on(CLIENT, f"cat {WORK}/ledger-* 2>/dev/null | wc -l"))

    try:
        until(lambda: rows() > 20, 60)
        yield rows
    finally:
        site.on(CLIENT, f"touch {WORK}/stop; systemctl is-active --quiet ledger && systemctl stop ledger; true")


def grows(rows: Callable[[], int], by: int, seconds: float = 60) -> None:
    """Writes are acknowledged from here on."""
    beyond = rows() + by
    until(lambda: rows() > beyond, seconds, pause=0.2)


def acknowledged(site: Site) -> dict[int, float]:
    """Number → moment of each row that was."""
    lines = site.on(CLIENT, f"cat {WORK}/ledger-*").splitlines()
    return {int(line.split()[0]): float(line.split()[1]) for line in lines if len(line.split()) == 2}


def there(site: Site, primary: str = DATABASE) -> set[int]:
    return {int(line) for line in site.query("SELECT number FROM ledger", host=primary).splitlines()}


def longest_silence(noted: dict[int, float]) -> float:
    """The longest time between two acknowledged rows, in seconds."""
    return max(late - early for early, late in pairwise(sorted(noted.values())))


def keep(name: str, value: object) -> None:
    """Add a figure to the file beside the reports of the runs."""
    path = ARTIFACTS / "postgresql.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    test = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0]
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known | {f"{test}: {name}": value}, indent=1) + "\n")
