"""Transactions through the pooler as a ratio to the same server as it is packaged, and how fast a restore is."""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab import daemon
from lab.bench.goals import Figure
from lab.settings import Settings

PROGRAMS = Path(sys.executable).parent
HOST, CLIENT = "lab-postgresql-1", "lab-rke2-server-1"
SCALE = 30
"""Times 15 MB: more than the packaged server keeps in its own memory."""
CLIENTS = 64
SECONDS = 20
TRIES = 3
PACKAGED = "packaged"


def ratios(settings: Settings, inventory: Path) -> Iterator[Figure]:
    secrets = yaml.safe_load(Path(daemon.read_description(settings)["secrets_path"]).read_text(encoding="utf-8"))
    truths = yaml.safe_load((inventory / "group_vars/all/platform.yml").read_text(encoding="utf-8"))
    password = secrets["postgresql_role_passwords"]["app"]
    name, version = f"postgresql.{truths['platform_domain']}", _version()
    _bring_client(version)
    _fill(name, password)
    verified = {"PGHOST": name, "PGPASSWORD": password, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "system"}
    pooled = verified | {"PGPORT": "6432"}
    ours, often = _rate(pooled), _rate(pooled, "--connect")
    with_defaults, often_with_defaults = _packaged(name, version, password)
    note = f"{CLIENTS} clients, median of {TRIES}"
    yield Figure("PostgreSQL, transactions through PgBouncer", ours, "/s", note=note)
    yield Figure("PostgreSQL as packaged, without PgBouncer", with_defaults, "/s", note=note)
    yield Figure("PostgreSQL as a share of the packaged", 100 * ours / with_defaults, "%")
    yield Figure("PostgreSQL, a connection each transaction, through PgBouncer", often, "/s", note=note)
    yield Figure(
        "PostgreSQL, a connection each transaction, as a share of the packaged", 100 * often / often_with_defaults, "%"
    )
    yield from _restore(inventory)


def _on(host: str, command: str, *, input: str | None = None) -> str:
    done = subprocess.run(
        [PROGRAMS / "lab", "ssh", host, "--", f"sudo sh -c {shlex.quote(command)}"],
        input=input, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"bench: on {host} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _version() -> str:
    return _on(HOST, "ls /etc/postgresql | sort -n | tail -n 1").strip()


def _bring_client(version: str) -> None:
    """pgbench where clients are; its package would bring a server along."""
    program = _on(HOST, f"base64 --wrap=0 /usr/lib/postgresql/{version}/bin/pgbench")
    _on(CLIENT, "apt-get install --quiet --yes --no-install-recommends libpq5")
    _on(CLIENT, "base64 --decode > /tmp/pgbench && chmod 0755 /tmp/pgbench", input=program)


def _psql(statement: str, database: str = "app") -> None:
    _on(HOST, f"psql -XAtq -U postgres -d {database} -v ON_ERROR_STOP=1", input=statement)


def _fill(name: str, password: str) -> None:
    """Tables of the owner, as a release makes them."""
    tables = "pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history"
    _on(HOST, f"/usr/lib/postgresql/{_version()}/bin/pgbench -q -i -s {SCALE} -U postgres -h /run/postgresql app")
    _psql(f"GRANT ALL ON {tables} TO app_rw")


def _rate(environment: Mapping[str, str], *options: str) -> float:
    """Transactions a second, as pgbench's own mix of reads and writes."""
    variables = {"PGUSER": "app", "PGDATABASE": "app"} | dict(environment)
    text = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in variables.items())
    command = shlex.join(
        ["/tmp/pgbench", "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", f"--time={SECONDS}", *options]
    )
    found = []
    for _ in range(TRIES):
        # By standard input: an argument could be read by everybody on that host.
        said = _on(CLIENT, "sh -s", input=f"{text}{command} 2>&1\n")
        rate = re.search(r"^tps = ([\d.]+)", said, re.M)
        if rate is None:
            raise SystemExit(f"bench: pgbench failed: {said[-2000:]}")
        found.append(float(rate[1]))
    return statistics.median(found)


def _packaged(name: str, version: str, password: str) -> tuple[float, float]:
    """The same with a database as Debian's own tool makes it, on the same volume, in the place of ours."""
    service = f"postgresql@{version}-main"
    folder, settings = f"/var/lib/postgresql/{version}/{PACKAGED}", f"/etc/postgresql/{version}/{PACKAGED}"
    begin = [
        f"systemctl stop pgbouncer {service}",
        f"pg_createcluster --port 5432 --datadir {folder} {version} {PACKAGED}",
        f"echo \"listen_addresses = '*'\" >> {settings}/postgresql.conf",
        f"echo 'host all all 0.0.0.0/0 scram-sha-256' >> {settings}/pg_hba.conf",
        f"pg_ctlcluster --skip-systemctl-redirect {version} {PACKAGED} start",
    ]
    end = [
        f"pg_dropcluster --stop {version} {PACKAGED} || true",
        f"systemctl start {service} pgbouncer",
    ]
    try:
        _on(HOST, " && ".join(begin))
        role = f"CREATE ROLE app LOGIN PASSWORD '{password}'; CREATE DATABASE app OWNER app;"
        _on(HOST, "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1", input=role)
        fill = f"/usr/lib/postgresql/{version}/bin/pgbench -q -i -s {SCALE} -h /run/postgresql app"
        _on(HOST, f"cd / && runuser -u postgres -- {fill}")
        tables = "pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history"
        _on(HOST, "runuser -u postgres -- psql -XAtq -d app", input=f"GRANT ALL ON {tables} TO app")
        direct = {"PGHOST": name, "PGPASSWORD": password, "PGPORT": "5432", "PGSSLMODE": "require"}
        return _rate(direct), _rate(direct, "--connect")
    finally:
        _on(HOST, "; ".join(end))


def _restore(inventory: Path) -> Iterator[Figure]:
    """What a trial restore tells of itself."""
    _on(HOST, "runuser -u postgres -- /usr/local/lib/slipway/postgresql-backup full")
    artifacts = inventory.parents[1] / "artifacts" / "lab" / "drill_postgresql"
    before = set(artifacts.glob("*/drill.json"))
    command = [str(PROGRAMS / "ansible-playbook"), "playbooks/operations/drill_postgresql.yml", "-i", str(inventory)]
    done = subprocess.run(command, cwd=inventory.parents[1], capture_output=True, text=True, check=False)
    new = sorted(set(artifacts.glob("*/drill.json")) - before)
    if done.returncode or not new:
        raise SystemExit(f"bench: the trial restore failed: {done.stdout[-3000:]}")
    report: dict[str, Any] = json.loads(new[-1].read_text(encoding="utf-8"))
    megabytes = float(report["bytes"]) / 1e6
    note = f"{megabytes:.0f} MB of data"
    yield Figure("restore, bytes from the bucket", megabytes / float(report["fetch_seconds"]), "MB/s", note=note)
    yield Figure("restore, until the database serves", float(report["rto_seconds"]), "s", note=note)
