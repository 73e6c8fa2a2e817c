"""Transactions through PgBouncer as a share of an untuned server from the package."""

from __future__ import annotations

import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from lab import daemon
from lab.bench.goals import Figure
from lab.settings import Settings

PROGRAMS = Path(sys.executable).parent
HOST, CLIENT = "lab-postgresql-1", "lab-rke2-server-1"
SCALE = 30
"""pgbench's scale factor, 15 MB each: larger than the shared buffers of the untuned server."""
CLIENTS = 64
SECONDS = 20
TRIES = 3
PACKAGED = "packaged"


def ratios(settings: Settings, inventory: Path) -> Iterator[Figure]:
    secrets = yaml.safe_load(Path(daemon.read_description(settings)["secrets_path"]).read_text(encoding="utf-8"))
    platform_settings = yaml.safe_load((inventory / "group_vars/all/platform.yml").read_text(encoding="utf-8"))
    password = secrets["postgresql_role_passwords"]["app"]
    name, version = f"postgresql.{platform_settings['platform_domain']}", _version()
    _install_pgbench(version)
    _initialize_pgbench(name, password)
    verified = {"PGHOST": name, "PGPASSWORD": password, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "system"}
    pooled = verified | {"PGPORT": "6432"}
    pooled_rate, pooled_connect_rate = _rate(pooled), _rate(pooled, "--connect")
    packaged_rate, packaged_connect_rate = _measure_packaged(name, version, password)
    note = f"{CLIENTS} clients, median of {TRIES}"
    yield Figure("PostgreSQL, transactions through PgBouncer", pooled_rate, "/s", note=note)
    yield Figure("PostgreSQL as packaged, without PgBouncer", packaged_rate, "/s", note=note)
    yield Figure("PostgreSQL as a share of the packaged server", 100 * pooled_rate / packaged_rate, "%")
    yield Figure("PostgreSQL, a connection each transaction, through PgBouncer", pooled_connect_rate, "/s", note=note)
    yield Figure(
        "PostgreSQL, a connection each transaction, as a share of the packaged server",
        100 * pooled_connect_rate / packaged_connect_rate,
        "%",
    )


def run_on(host: str, command: str, *, input: str | None = None) -> str:
    done = subprocess.run(
        [PROGRAMS / "lab", "ssh", host, "--", f"sudo sh -c {shlex.quote(command)}"],
        input=input, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"bench: `{command}` failed on {host}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _version() -> str:
    return run_on(HOST, "ls /etc/postgresql | sort -n | tail -n 1").strip()


def _install_pgbench(version: str) -> None:
    """Copy pgbench to the client: Debian's package of it would install a server as well."""
    program = run_on(HOST, f"base64 --wrap=0 /usr/lib/postgresql/{version}/bin/pgbench")
    run_on(CLIENT, "apt-get install --quiet --yes --no-install-recommends libpq5")
    run_on(CLIENT, "base64 --decode > /tmp/pgbench && chmod 0755 /tmp/pgbench", input=program)


def psql(statement: str) -> str:
    return run_on(HOST, "psql -XAtq -U postgres -d app -v ON_ERROR_STOP=1", input=statement).strip()


def _initialize_pgbench(name: str, password: str) -> None:
    """Create pgbench's tables as the owner and grant them to the application."""
    tables = "pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history"
    run_on(HOST, f"/usr/lib/postgresql/{_version()}/bin/pgbench -q -i -s {SCALE} -U postgres -h /run/postgresql app")
    psql(f"GRANT ALL ON {tables} TO app_rw")


def _rate(environment: Mapping[str, str], *options: str) -> float:
    """Transactions per second of pgbench's built-in script (reads and writes)."""
    variables = {"PGUSER": "app", "PGDATABASE": "app"} | dict(environment)
    text = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in variables.items())
    command = shlex.join(
        ["/tmp/pgbench", "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", f"--time={SECONDS}", *options]
    )
    rates = []
    for _ in range(TRIES):
        # By standard input: every user of the host can read command line arguments, and this one holds a password.
        output = run_on(CLIENT, "sh -s", input=f"{text}{command} 2>&1\n")
        rate = re.search(r"^tps = ([\d.]+)", output, re.M)
        if rate is None:
            raise SystemExit(f"bench: pgbench failed: {output[-2000:]}")
        rates.append(float(rate[1]))
    return statistics.median(rates)


def _measure_packaged(name: str, version: str, password: str) -> tuple[float, float]:
    """Rates of a cluster with pg_createcluster's defaults on the same volume; the platform's cluster is stopped."""
    service = f"postgresql@{version}-main"
    folder, settings = f"/var/lib/postgresql/{version}/{PACKAGED}", f"/etc/postgresql/{version}/{PACKAGED}"
    start_commands = [
        f"systemctl stop pgbouncer {service}",
        f"pg_createcluster --port 5432 --datadir {folder} {version} {PACKAGED}",
        f"echo \"listen_addresses = '*'\" >> {settings}/postgresql.conf",
        f"echo 'host all all 0.0.0.0/0 scram-sha-256' >> {settings}/pg_hba.conf",
        f"pg_ctlcluster --skip-systemctl-redirect {version} {PACKAGED} start",
    ]
    stop_commands = [
        f"pg_dropcluster --stop {version} {PACKAGED} || true",
        f"systemctl start {service} pgbouncer",
    ]
    try:
        run_on(HOST, " && ".join(start_commands))
        role = f"CREATE ROLE app LOGIN PASSWORD '{password}'; CREATE DATABASE app OWNER app;"
        run_on(HOST, "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1", input=role)
        initialize = f"/usr/lib/postgresql/{version}/bin/pgbench -q -i -s {SCALE} -h /run/postgresql app"
        run_on(HOST, f"cd / && runuser -u postgres -- {initialize}")
        tables = "pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history"
        run_on(HOST, "runuser -u postgres -- psql -XAtq -d app", input=f"GRANT ALL ON {tables} TO app")
        direct = {"PGHOST": name, "PGPASSWORD": password, "PGPORT": "5432", "PGSSLMODE": "require"}
        return _rate(direct), _rate(direct, "--connect")
    finally:
        run_on(HOST, "; ".join(stop_commands))
