"""Restores beside the running server: a drill, a recovery target, or one database.

The restored server runs on a data directory of its own, without network and without archiving, until the target is
verified. The present data directory is not changed.
"""

import argparse
import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from postgresql_backup import repository
from postgresql_backup.repository import Fault, Json, Status

# A recovery that neither logs nor replays WAL for this long is stuck; one segment takes seconds.
STALL_TIMEOUT_SECONDS = 600
STOP_TIMEOUT_SECONDS = 300
QUIT_TIMEOUT_SECONDS = 60
FETCH_PROGRAM = "/usr/local/lib/slipway/postgresql-fetch"
# A recovering server needs limits at least as high as the server that wrote the WAL.
CONTROL_SETTINGS = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
SERVER_SETTINGS = """
listen_addresses = ''
port = '5499'
archive_mode = 'off'
hot_standby = 'on'
primary_conninfo = ''
synchronous_standby_names = ''
shared_preload_libraries = ''
shared_buffers = '128MB'
huge_pages = 'off'
ssl = 'off'
logging_collector = 'off'
log_destination = 'stderr'
"""
HEARTBEAT_CHECK = resources.files(__package__).joinpath("heartbeat_check.sql").read_text()
HEARTBEAT_INSERT = resources.files(__package__).joinpath("heartbeat_insert.sql").read_text()


def run_program(
    command: Sequence[str | Path], seconds: float = repository.DATABASE_TIMEOUT_SECONDS, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program of PostgreSQL, with a timeout."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd="/", timeout=seconds, **more
        )
    except subprocess.TimeoutExpired:
        raise Fault(f"{Path(command[0]).name}: timed out after {seconds} seconds") from None


def program_directory(folder: Path) -> Path:
    return Path("/usr/lib/postgresql") / (folder / "PG_VERSION").read_text().strip() / "bin"


def failure_reason(log: str) -> str:
    """Why a server stopped, from its log."""
    lines = re.findall(r"(?:FATAL|PANIC): +(.*)", log)
    fetched = re.findall(r"^postgresql-fetch: (.*)", log, re.M)
    last = re.findall(r"last completed transaction was at log time (\S+ \S+)", log)
    words = (
        fetched[-1:] + lines[-1:] + ([f"the last transaction that can be reached was at {last[-1]}"] if last else [])
    )
    return "; ".join(words) or "the server stopped without a reason in its log"


class Server:
    """A restored server that accepts connections from this process only."""

    def __init__(self, folder: Path, sockets: Path, **settings: str) -> None:
        self.folder = folder
        self.programs = program_directory(folder)
        self.sockets = sockets
        (sockets / "hba.conf").write_text("local all postgres peer\n")
        (sockets / "ident.conf").write_text("")
        (sockets / "postgresql.conf").write_text("")
        own = {"config_file": "postgresql.conf", "hba_file": "hba.conf", "ident_file": "ident.conf"}
        values: dict[str, str | Path] = {
            **{name: sockets / file for name, file in own.items()},
            "data_directory": folder,
            "unix_socket_directories": sockets,
            # These override the files in the restored data directory.
            **dict(re.findall(r"^(\w+) = '(.*)'$", SERVER_SETTINGS, re.M)),
            **self.recovery_limits(),
            **settings,
        }
        self.log = sockets / "log"
        words = [word for name, value in values.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("w") as log:
            # The server stops when this process ends, also when it is killed.
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=INT", self.programs / "postgres", "-D", folder, *words],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip

    def recovery_limits(self) -> dict[str, str]:
        control = run_program([self.programs / "pg_controldata", "-D", self.folder], 60, env={"LC_ALL": "C"})
        if control.returncode != 0:
            raise Fault(f"pg_controldata failed: {' '.join(control.stderr.split())[:500]}")
        found = dict(re.findall(r"^(\w+) setting: +(\d+)$", control.stdout, re.M))
        return {setting: found[name] for name, setting in CONTROL_SETTINGS.items() if name in found}

    def query(self, statement: str, seconds: float = repository.DATABASE_TIMEOUT_SECONDS, **variables: str) -> str:
        done = run_program(
            [*repository.psql_command("--host", str(self.sockets), "--port=5499", "--dbname=postgres", **variables),
             "--field-separator=|"],
            seconds, input=statement,
        )  # fmt: skip
        if done.returncode != 0:
            raise Fault(" ".join(done.stderr.split())[:500])
        return done.stdout.strip()

    def wait(self, statement: str) -> None:
        """Wait until the statement returns t; fail when the server stops or recovery makes no progress."""
        previous: tuple[int, str] | None = None
        since = time.monotonic()
        while True:
            if self.process.poll() is not None:
                raise Fault(failure_reason(self.log.read_text(errors="replace")))
            replayed = ""
            try:
                answer, replayed = self.query(f"SELECT ({statement}), pg_last_wal_replay_lsn()", 60).split("|")
                if answer == "t":
                    return
            except Fault:
                pass  # it does not accept connections yet
            # Not the size of the log: each attempt to connect adds a line with FATAL.
            progress = (self.log.read_text(errors="replace").count("LOG:  "), replayed)
            if progress != previous:
                previous, since = progress, time.monotonic()
            elif time.monotonic() - since > STALL_TIMEOUT_SECONDS:
                raise Fault(
                    f"recovery makes no progress for {STALL_TIMEOUT_SECONDS} seconds, at WAL position "
                    f"{replayed or 'unknown'}; its log ends with: "
                    f"{' '.join(self.log.read_text(errors='replace').split())[-300:]}"
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop with a fast shutdown, then with an immediate one: the data recovers from either."""
        for number, seconds in ((signal.SIGINT, STOP_TIMEOUT_SECONDS), (signal.SIGQUIT, QUIT_TIMEOUT_SECONDS)):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
            return
        raise Fault(f"the restored server (process {self.process.pid}) does not stop; see {self.log} and the disk")


@contextmanager
def temporary_server(folder: Path, **settings: str) -> Iterator[Server]:
    """Run a server on a restored data directory while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as sockets:
        server = Server(folder, Path(sockets), **settings)
        try:
            yield server
        finally:
            server.stop()


def source_repository(arguments: argparse.Namespace) -> list[str]:
    """The repository's number, and the time whose object versions are read; either may be empty."""
    when = arguments.repository_time
    if when:
        when = f"{repository.parse_time(when).astimezone(UTC):%Y-%m-%d %H:%M:%S+00}"
    return [str(arguments.repository or (1 if when else "")), when]


def source_options(source: Sequence[str]) -> list[str]:
    key, when = source
    return [*([f"--repo={key}"] if key else []), *([f"--repo-target-time={when}"] if when else [])]


def resolve_target(arguments: argparse.Namespace) -> tuple[Status, list[str], list[str]]:
    """The status of the repository that is restored from, its key and time, and pgBackRest's options for the target."""
    source = source_repository(arguments)
    # The other repositories are not read: a fault of one does not prevent a restore from another.
    status = repository.status(*(source_options(source) or ["--repo=1"]))
    if status["faults"]:
        raise Fault(f"the repository cannot be used: {'; '.join(status['faults'])}")
    target = repository.target_options(arguments.target, status["backups"], datetime.now(UTC))
    if arguments.timeline:
        target.append(f"--target-timeline={arguments.timeline}")
    return status, source, target


def restore_files(folder: Path, status: Status, source: Sequence[str], target: Sequence[str], *more: str) -> None:
    """Restore a backup into an empty directory: pgBackRest would keep existing files that look unchanged."""
    repository.require_free_space(folder.parent, max(backup["bytes"] for backup in status["backups"]))
    if folder.exists():
        shutil.rmtree(folder)
    command = " ".join([FETCH_PROGRAM, "%f", '"%p"', *(f'"{word}"' for word in source if word)])
    repository.run_pgbackrest(
        f"--pg1-path={folder}",
        f"--recovery-option=restore_command={command}",
        *source_options(source),
        *target,
        *more,
        repository.PARALLEL,
        "restore",
    )


def data_directory() -> Path:
    return Path(repository.configuration_value("pg1-path"))


def restore(arguments: argparse.Namespace) -> Json:
    """Restore the target to <data directory>.restored, and verify that it is reachable."""
    folder = data_directory().with_name(f"{data_directory().name}.unfinished")
    ready = data_directory().with_name(f"{data_directory().name}.restored")
    marker = ready.with_name(f"{ready.name}.json")
    wanted = {"target": arguments.target, "source": source_repository(arguments), "timeline": arguments.timeline}
    if ready.exists() and marker.exists() and not arguments.replace and json.loads(marker.read_text()) == wanted:
        return wanted
    if ready.exists():
        shutil.rmtree(ready)
    try:
        if repository.is_running() and not repository.is_standby():
            # The target may lie in the newest WAL, which has to be in the bucket.
            repository.psql(HEARTBEAT_INSERT)
            repository.run_pgbackrest("check")
        status, source, target = resolve_target(arguments)
        restore_files(folder, status, source, target)
        backup_major, data_major = (folder / "PG_VERSION").read_text().strip(), data_directory().parent.name
        if backup_major != data_major:
            raise Fault(
                f"{arguments.target}: it is in a backup of PostgreSQL {backup_major}, and this host runs {data_major}. "
                f"Choose a target of version {data_major}, or restore to a new host with "
                f'postgresql_version: "{backup_major}"'
            )
        if arguments.target != "latest":
            try:
                with temporary_server(folder, recovery_target_action="pause") as server:
                    server.wait("pg_get_wal_replay_pause_state() = 'paused'")
            except Fault as fault:
                raise Fault(
                    f"{arguments.target} cannot be reached: {fault}{_older_point_hint(arguments.target, status)}"
                ) from None
        marker.write_text(json.dumps(wanted))
        folder.rename(ready)
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    return wanted


def _older_point_hint(target: str, status: Status) -> str:
    if not target.startswith("name:") or "@" in target:
        return ""
    newest = datetime.fromtimestamp(max(backup["stop"] for backup in status["backups"]), UTC)
    return (
        f". Only WAL after the newest backup ({newest:%Y-%m-%d %H:%M:%S+00:00}) was searched; for an older point "
        f"append a time before it: {target}@<time with zone>"
    )


def require_last_segment(server: Server, status: Status) -> None:
    """Require a recovery up to the last segment in the bucket: a missing segment looks like the end of the WAL."""
    lasts = [archive["last"] for archive in status["archives"]]
    if not lasts:
        return
    position = server.query("SELECT coalesce(pg_last_wal_replay_lsn()::text, '')")
    high, low = (int(part, 16) for part in position.split("/"))
    reached = (high << 8) + (low >> 24)
    last = max(lasts)
    wanted = (int(last[8:16], 16) << 8) + int(last[16:24], 16)
    if reached < wanted:
        raise Fault(
            f"recovery ended at {position}, and the bucket holds WAL up to {last}: a segment between is missing"
        )


def newest_heartbeat(server: Server) -> str:
    """Time of the newest heartbeat in the restored data; empty when the target is before the first."""
    if server.query("SELECT to_regclass('slipway.heartbeat') IS NULL") == "t":
        return ""
    return server.query("SELECT coalesce(max(at)::text, '') FROM slipway.heartbeat")


def restore_database(arguments: argparse.Namespace) -> Json:
    """Restore one database as of the target in place of the present one, which is renamed."""
    name = arguments.name
    if repository.psql("SELECT count(*) FROM pg_database WHERE datname = :'name'", name=name) != "1":
        raise Fault(f"{name}: no such database on this server. Only an existing database can be restored in place")
    folder = data_directory().with_name(f"{data_directory().name}.one")
    began = time.monotonic()
    repository.psql(HEARTBEAT_INSERT)
    repository.run_pgbackrest("check")
    status, source, target = resolve_target(arguments)
    stamp = datetime.now(UTC).strftime("%Y%m%dt%H%M%Sz")
    restored, previous = f"{name}_restored_{stamp}", f"{name}_before_{stamp}"
    try:
        restore_files(folder, status, source, target, f"--db-include={name}", "--archive-mode=off")
        try:
            with temporary_server(folder) as server:
                server.wait("NOT pg_is_in_recovery()")
                owner = server.query(
                    "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = :'name'", name=name
                )
                if not owner:
                    raise Fault(f"no database {name} at that time")
                restored_to = newest_heartbeat(server)
                repository.psql(
                    'CREATE DATABASE :"restored" TEMPLATE template0 OWNER :"owner"', restored=restored, owner=owner
                )
                try:
                    copy_database(server, name, restored)
                except Fault:
                    repository.psql('DROP DATABASE :"restored"', restored=restored)
                    raise
        except Fault as fault:
            raise Fault(
                f"{name} as of {arguments.target} cannot be restored: {fault}"
                f"{_older_point_hint(arguments.target, status)}"
            ) from None
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    # Neither database accepts connections while they are renamed.
    try:
        repository.psql(
            'ALTER DATABASE :"name" WITH ALLOW_CONNECTIONS false;\n'
            "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE datname = :'name' \\gset\n"
            'BEGIN; ALTER DATABASE :"name" RENAME TO :"previous";\n'
            'ALTER DATABASE :"restored" RENAME TO :"name"; COMMIT;\n'
            'ALTER DATABASE :"previous" WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0;\n',
            name=name, restored=restored, previous=previous,
        )  # fmt: skip
    except Fault:
        repository.psql('ALTER DATABASE :"name" WITH ALLOW_CONNECTIONS true', name=name)
        raise
    return {
        "target": arguments.target,
        "previous": previous,
        "restored_to": restored_to,
        "seconds": round(time.monotonic() - began, 1),
    }


def quoted_dbname(name: str) -> str:
    """A connection string for the database: a bare name that contains = would be parsed as one."""
    return "dbname='" + re.sub(r"([\\'])", r"\\\1", name) + "'"


def copy_database(server: Server, name: str, restored: str) -> None:
    dump = subprocess.Popen(
        [server.programs / "pg_dump", "--host", server.sockets, "--port", "5499", "--username=postgres",
         "--format=custom", "--compress=none", "--dbname", quoted_dbname(name)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
    )  # fmt: skip
    try:
        load = run_program(
            [server.programs / "pg_restore", "--username=postgres", "--exit-on-error", "--single-transaction",
             "--dbname", quoted_dbname(restored)],
            stdin=dump.stdout,
        )  # fmt: skip
        if dump.stdout is not None:
            dump.stdout.close()  # pg_dump stops when its output is closed
        dump_output = dump.communicate(timeout=60)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise Fault("pg_dump: still running 60 seconds after pg_restore ended") from None
    finally:
        if dump.poll() is None:
            dump.kill()
            dump.wait(60)
    if dump.returncode != 0 or load.returncode != 0:
        raise Fault(f"the copy failed: {' '.join((dump_output + load.stderr).split())[:600]}")


def drill(arguments: argparse.Namespace) -> Json:
    """Restore the latest backup to an empty directory, check heartbeats, pages and indexes, and remove it."""
    folder = data_directory().with_name(f"{data_directory().name}.drill")
    began, clock = datetime.now(UTC), time.monotonic()
    status, source, target = resolve_target(arguments)
    try:
        restore_files(folder, status, source, target, "--archive-mode=off")
        fetched = time.monotonic() - clock
        with temporary_server(folder) as server:
            server.wait("NOT pg_is_in_recovery()")
            rto = time.monotonic() - clock
            require_last_segment(server, status)
            rows, newest, broken = server.query(HEARTBEAT_CHECK).split("|")
            if int(rows) == 0:
                raise Fault("the restored data has no heartbeat row, and one is inserted each minute")
            if int(broken) > 0:
                raise Fault(f"{broken} of {rows} heartbeats in the restored data are missing or modified")
            rpo = (began - datetime.fromisoformat(newest)).total_seconds()
            databases = int(server.query("SELECT count(*) FROM pg_database WHERE datallowconn"))
            amcheck = run_program(
                [server.programs / "pg_amcheck", "--host", server.sockets, "--port", "5499", "--username=postgres",
                 "--all", "--install-missing", "--heapallindexed", "--jobs=2"]
            )  # fmt: skip
            if amcheck.returncode != 0:
                raise Fault(f"amcheck found damage: {' '.join((amcheck.stdout + amcheck.stderr).split())[:600]}")
        checksums = run_program([program_directory(folder) / "pg_checksums", "--check", "-D", folder])
        if checksums.returncode != 0:
            raise Fault(f"damaged pages: {' '.join((checksums.stdout + checksums.stderr).split())[:600]}")
        pages = int(next(iter(re.findall(r"^Blocks scanned: +(\d+)", checksums.stdout, re.M)), 0))
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    return {
        "began": began.isoformat(timespec="seconds"),
        "restored_to": newest,
        "rpo_seconds": round(rpo, 1),
        "rto_seconds": round(rto, 1),
        "fetch_seconds": round(fetched, 1),
        "seconds": round(time.monotonic() - clock, 1),
        "bytes": max(backup["bytes"] for backup in status["backups"]),
        "heartbeats": int(rows),
        "databases": databases,
        "pages": pages,
        "amcheck": "ok",
        "checksums": "ok",
    }


def write_heartbeat() -> None:
    repository.psql(HEARTBEAT_INSERT)
