# Written by the role postgresql. Changes made here are overwritten.
"""Recovery beside the server that runs: to try it, to bring back a moment, or to bring back one database.

A restored server stands here in a folder of its own, without network and without archiving, until it is known to be
what was wanted. What was there is touched by nobody.
"""

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import postgresql_repository as repository
from postgresql_repository import Fault

# A recovery that neither writes to its log nor replays WAL for so long is stuck; one segment takes seconds.
STALL_SECONDS = 600
STOP_SECONDS = 300
QUIT_SECONDS = 60
FETCH = "/usr/local/lib/slipway/postgresql-fetch"
# A server that recovers must allow as much as the one whose WAL it reads.
LIMITS = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
SETTINGS = """
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
CHAIN = """
SELECT count(*), coalesce(max(at)::text, ''), count(*) FILTER (WHERE digest <> sha256(convert_to(concat_ws(' ', number,
to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), encode(before, 'hex')), 'UTF8')) OR number <> last + 1)
FROM (SELECT *, lag(digest) OVER (ORDER BY number) AS before, lag(number) OVER (ORDER BY number) AS last
FROM slipway.heartbeat) s WHERE before IS NOT NULL OR number = 1"""
HEARTBEAT = """
SELECT pg_is_in_recovery() AS standby \\gset
\\if :standby
\\q
\\endif
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS slipway;
CREATE TABLE IF NOT EXISTS slipway.heartbeat (
  number bigint PRIMARY KEY, at timestamptz NOT NULL, digest bytea NOT NULL);
WITH last AS (SELECT number, digest FROM slipway.heartbeat ORDER BY number DESC LIMIT 1),
next AS (SELECT coalesce((SELECT number FROM last), 0) + 1 AS number, clock_timestamp() AS at,
  (SELECT digest FROM last) AS before)
INSERT INTO slipway.heartbeat SELECT number, at, sha256(convert_to(concat_ws(' ', number,
to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), encode(before, 'hex')), 'UTF8')) FROM next;
DELETE FROM slipway.heartbeat WHERE at < now() - interval '40 days';
SELECT count(pg_switch_wal()) FROM pg_stat_archiver
WHERE coalesce(last_archived_time, stats_reset) < now() - interval '60 seconds' \\g /dev/null
"""
# The last statement is for a server that was killed: its checkpointer sleeps through recovery, and thinks of
# archive_timeout again only at the next checkpoint (seen with 17.12); WAL would stay here for a quarter of an hour.


def tool(command, seconds=repository.LONGEST_SECONDS, **more):
    """Run a program of PostgreSQL to its end, or for so long."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd="/", timeout=seconds, **more
        )
    except subprocess.TimeoutExpired:
        raise Fault(f"{Path(command[0]).name} runs for longer than {seconds} seconds") from None


def programs(folder):
    return Path("/usr/lib/postgresql") / (folder / "PG_VERSION").read_text().strip() / "bin"


def reason(log):
    """Why a server ended, in the words of its log."""
    lines = re.findall(r"(?:FATAL|PANIC): +(.*)", log)
    fetched = re.findall(r"^postgresql-fetch: (.*)", log, re.M)
    last = re.findall(r"last completed transaction was at log time (\S+ \S+)", log)
    words = (
        fetched[-1:] + lines[-1:] + ([f"the last transaction that can be reached was at {last[-1]}"] if last else [])
    )
    return "; ".join(words) or "it ended without a word"


class Server:
    """A restored server that only this process can reach."""

    def __init__(self, folder, sockets, **settings):
        self.folder = folder
        self.programs = programs(folder)
        self.sockets = sockets
        (sockets / "hba.conf").write_text("local all postgres peer\n")
        (sockets / "ident.conf").write_text("")
        (sockets / "postgresql.conf").write_text("")
        own = {"config_file": "postgresql.conf", "hba_file": "hba.conf", "ident_file": "ident.conf"}
        settings = {
            **{name: sockets / file for name, file in own.items()},
            "data_directory": folder,
            "unix_socket_directories": sockets,
            # Files of the restored data may say otherwise; what is said here wins.
            **dict(re.findall(r"^(\w+) = '(.*)'$", SETTINGS, re.M)),
            **self.limits(),
            **settings,
        }
        self.log = sockets / "log"
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("w") as log:
            # It ends with this process, however that ends.
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig=INT", self.programs / "postgres", "-D", folder, *words],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip

    def limits(self):
        told = tool([self.programs / "pg_controldata", "-D", self.folder], 60, env={"LC_ALL": "C"})
        if told.returncode != 0:
            raise Fault(f"pg_controldata failed: {' '.join(told.stderr.split())[:500]}")
        found = dict(re.findall(r"^(\w+) setting: +(\d+)$", told.stdout, re.M))
        return {setting: found[name] for name, setting in LIMITS.items() if name in found}

    def ask(self, statement, seconds=repository.LONGEST_SECONDS, **variables):
        done = tool(
            [*repository.psql_command("--host", str(self.sockets), "--port=5499", "--dbname=postgres", **variables),
             "--field-separator=|"],
            seconds, input=statement,
        )  # fmt: skip
        if done.returncode != 0:
            raise Fault(" ".join(done.stderr.split())[:500])
        return done.stdout.strip()

    def wait(self, statement):
        """Until the statement says t; what ends before has a reason in its log, and what is stuck is given up."""
        seen, since = None, time.monotonic()
        while True:
            if self.process.poll() is not None:
                raise Fault(reason(self.log.read_text(errors="replace")))
            replayed = ""
            try:
                answer, replayed = self.ask(f"SELECT ({statement}), pg_last_wal_replay_lsn()", 60).split("|")
                if answer == "t":
                    return
            except Fault:
                pass  # it does not take connections yet
            # Not the size of the log: each attempt to connect adds a line with FATAL.
            progress = (self.log.read_text(errors="replace").count("LOG:  "), replayed)
            if progress != seen:
                seen, since = progress, time.monotonic()
            elif time.monotonic() - since > STALL_SECONDS:
                raise Fault(
                    f"recovery makes no progress for {STALL_SECONDS} seconds, at WAL position {replayed or 'unknown'}; "
                    f"its log ends with: {' '.join(self.log.read_text(errors='replace').split())[-300:]}"
                )
            time.sleep(0.2)

    def stop(self):
        """In order, then at once: what is kept of its data recovers either way."""
        for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, QUIT_SECONDS)):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
            return
        raise Fault(f"the restored server (process {self.process.pid}) does not end; see {self.log} and the disk")


@contextmanager
def standing(folder, **settings):
    """A server in a restored folder, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as sockets:
        server = Server(folder, Path(sockets), **settings)
        try:
            yield server
        finally:
            server.stop()


def chosen(arguments):
    """The number of the repository, and the time as of which its objects are read; either may be empty."""
    when = arguments.repository_time
    if when:
        when = f"{repository.instant(when).astimezone(UTC):%Y-%m-%d %H:%M:%S+00}"
    return [str(arguments.repository or (1 if when else "")), when]


def options_of(source):
    key, when = source
    return [*([f"--repo={key}"] if key else []), *([f"--repo-target-time={when}"] if when else [])]


def look(arguments):
    """The repository that is restored from, and the options that lead to the target."""
    source = chosen(arguments)
    # Of the others nothing is read: a fault of one does not keep a restore from another.
    seen = repository.status(*(options_of(source) or ["--repo=1"]))
    if seen["faults"]:
        raise Fault(f"the repository cannot be used: {'; '.join(seen['faults'])}")
    where = repository.target_options(arguments.target, seen["backups"], datetime.now(UTC))
    if arguments.timeline:
        where.append(f"--target-timeline={arguments.timeline}")
    return seen, source, where


def fetch(folder, seen, source, where, *more):
    """Files of a backup into an empty folder: pgBackRest would keep files that it believes to be right."""
    repository.room(folder.parent, max(backup["bytes"] for backup in seen["backups"]))
    if folder.exists():
        shutil.rmtree(folder)
    command = " ".join([FETCH, "%f", '"%p"', *(f'"{word}"' for word in source if word)])
    repository.run(
        f"--pg1-path={folder}",
        f"--recovery-option=restore_command={command}",
        *options_of(source),
        *where,
        *more,
        repository.MANY,
        "restore",
    )


def place():
    return Path(repository.option("pg1-path"))


def bring_back(arguments):
    """The data as of the target, beside the present, proved to be reachable; its folder's name ends in .restored."""
    folder = place().with_name(f"{place().name}.unfinished")
    ready = place().with_name(f"{place().name}.restored")
    said = ready.with_name(f"{ready.name}.json")
    wanted = {"target": arguments.target, "source": chosen(arguments), "timeline": arguments.timeline}
    if ready.exists() and said.exists() and not arguments.anew and json.loads(said.read_text()) == wanted:
        return wanted
    if ready.exists():
        shutil.rmtree(ready)
    try:
        if repository.answers() and not repository.follows():
            # What the target may lie in has to be in the bucket.
            repository.psql(HEARTBEAT)
            repository.run("check")
        seen, source, where = look(arguments)
        fetch(folder, seen, source, where)
        has, serves = (folder / "PG_VERSION").read_text().strip(), place().parent.name
        if has != serves:
            raise Fault(
                f"{arguments.target} lies in a backup of PostgreSQL {has}, and this host runs {serves}; choose a "
                f'moment of {serves}, or restore onto a new host with postgresql_version: "{has}"'
            )
        if arguments.target != "latest":
            try:
                with standing(folder, recovery_target_action="pause") as server:
                    server.wait("pg_get_wal_replay_pause_state() = 'paused'")
            except Fault as fault:
                raise Fault(f"{arguments.target} cannot be reached: {fault}{_elder(arguments.target, seen)}") from None
        said.write_text(json.dumps(wanted))
        folder.rename(ready)
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    return wanted


def _elder(target, seen):
    if not target.startswith("name:") or "@" in target:
        return ""
    newest = datetime.fromtimestamp(max(backup["stop"] for backup in seen["backups"]), UTC)
    return (
        f". Only what came after the newest backup ({newest:%Y-%m-%d %H:%M:%S+00:00}) was searched; for an older point "
        f"write a time before it, {target}@<time with zone>"
    )


def wal_reached(server, seen):
    """Refuse a recovery that ended before the last segment in the bucket: a gap looks like an end."""
    lasts = [archive["last"] for archive in seen["archives"]]
    if not lasts:
        return
    position = server.ask("SELECT coalesce(pg_last_wal_replay_lsn()::text, '')")
    high, low = (int(part, 16) for part in position.split("/"))
    reached = (high << 8) + (low >> 24)
    last = max(lasts)
    wanted = (int(last[8:16], 16) << 8) + int(last[16:24], 16)
    if reached < wanted:
        raise Fault(
            f"recovery ended at {position}, although the bucket holds WAL up to {last}: a segment between is missing"
        )


def newest_row(server):
    """Time of the newest heartbeat in restored data; empty where the target lies before the first."""
    if server.ask("SELECT to_regclass('slipway.heartbeat') IS NULL") == "t":
        return ""
    return server.ask("SELECT coalesce(max(at)::text, '') FROM slipway.heartbeat")


def database(arguments):
    """One database as of the target, in place of the present one, which stays under another name."""
    name = arguments.name
    if repository.psql("SELECT count(*) FROM pg_database WHERE datname = :'name'", name=name) != "1":
        raise Fault(f"there is no database {name} here to put the restored one in the place of")
    folder = place().with_name(f"{place().name}.one")
    began = time.monotonic()
    repository.psql(HEARTBEAT)
    repository.run("check")
    seen, source, where = look(arguments)
    stamp = datetime.now(UTC).strftime("%Y%m%dt%H%M%Sz")
    restored, aside = f"{name}_restored_{stamp}", f"{name}_before_{stamp}"
    try:
        fetch(folder, seen, source, where, f"--db-include={name}", "--archive-mode=off")
        try:
            with standing(folder) as server:
                server.wait("NOT pg_is_in_recovery()")
                owner = server.ask("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = :'name'", name=name)
                if not owner:
                    raise Fault(f"there was no database {name} at that time")
                restored_to = newest_row(server)
                repository.psql(
                    'CREATE DATABASE :"restored" TEMPLATE template0 OWNER :"owner"', restored=restored, owner=owner
                )
                try:
                    copy(server, name, restored)
                except Fault:
                    repository.psql('DROP DATABASE :"restored"', restored=restored)
                    raise
        except Fault as fault:
            raise Fault(
                f"{name} as of {arguments.target} cannot be brought back: {fault}{_elder(arguments.target, seen)}"
            ) from None
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    # Nobody is in either of the two while they change their names.
    try:
        repository.psql(
            'ALTER DATABASE :"name" WITH ALLOW_CONNECTIONS false;\n'
            "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE datname = :'name' \\gset\n"
            'BEGIN; ALTER DATABASE :"name" RENAME TO :"aside";\n'
            'ALTER DATABASE :"restored" RENAME TO :"name"; COMMIT;\n'
            'ALTER DATABASE :"aside" WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0;\n',
            name=name, restored=restored, aside=aside,
        )  # fmt: skip
    except Fault:
        repository.psql('ALTER DATABASE :"name" WITH ALLOW_CONNECTIONS true', name=name)
        raise
    return {
        "target": arguments.target,
        "aside": aside,
        "restored_to": restored_to,
        "seconds": round(time.monotonic() - began, 1),
    }


def dbname(name):
    """A database's name where a connection string may stand, which a name with = in it would be taken for."""
    return "dbname='" + re.sub(r"([\\'])", r"\\\1", name) + "'"


def copy(server, name, restored):
    dump = subprocess.Popen(
        [server.programs / "pg_dump", "--host", server.sockets, "--port", "5499", "--username=postgres",
         "--format=custom", "--compress=none", "--dbname", dbname(name)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
    )  # fmt: skip
    try:
        load = tool(
            [server.programs / "pg_restore", "--username=postgres", "--exit-on-error", "--single-transaction",
             "--dbname", dbname(restored)],
            stdin=dump.stdout,
        )  # fmt: skip
        dump.stdout.close()  # a dump that nobody reads ends
        said = dump.communicate(timeout=60)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise Fault("pg_dump does not end though pg_restore has") from None
    finally:
        if dump.poll() is None:
            dump.kill()
            dump.wait(60)
    if dump.returncode != 0 or load.returncode != 0:
        raise Fault(f"the copy failed: {' '.join((said + load.stderr).split())[:600]}")


def drill(arguments):
    """Restore the latest into an empty folder, look at every row, page and index of it, and take it away again."""
    folder = place().with_name(f"{place().name}.drill")
    began, clock = datetime.now(UTC), time.monotonic()
    seen, source, where = look(arguments)
    try:
        fetch(folder, seen, source, where, "--archive-mode=off")
        fetched = time.monotonic() - clock
        with standing(folder) as server:
            server.wait("NOT pg_is_in_recovery()")
            rto = time.monotonic() - clock
            wal_reached(server, seen)
            rows, newest, broken = server.ask(CHAIN).split("|")
            if int(rows) == 0:
                raise Fault("the restored data has no heartbeat, though there is one each minute")
            if int(broken) > 0:
                raise Fault(f"{broken} of {rows} heartbeats in the restored data are missing or were changed")
            rpo = (began - datetime.fromisoformat(newest)).total_seconds()
            databases = int(server.ask("SELECT count(*) FROM pg_database WHERE datallowconn"))
            told = tool(
                [server.programs / "pg_amcheck", "--host", server.sockets, "--port", "5499", "--username=postgres",
                 "--all", "--install-missing", "--heapallindexed", "--jobs=2"]
            )  # fmt: skip
            if told.returncode != 0:
                raise Fault(f"amcheck found damage: {' '.join((told.stdout + told.stderr).split())[:600]}")
        told = tool([programs(folder) / "pg_checksums", "--check", "-D", folder])
        if told.returncode != 0:
            raise Fault(f"damaged pages: {' '.join((told.stdout + told.stderr).split())[:600]}")
        pages = int(next(iter(re.findall(r"^Blocks scanned: +(\d+)", told.stdout, re.M)), 0))
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
        "bytes": max(backup["bytes"] for backup in seen["backups"]),
        "heartbeats": int(rows),
        "databases": databases,
        "pages": pages,
        "amcheck": "ok",
        "checksums": "ok",
    }


def beat():
    repository.psql(HEARTBEAT)
