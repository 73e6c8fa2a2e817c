"""PostgreSQL's configuration and catalogue as plain data: settings from a host's size, rules, roles and grants.

Everything here is pure. `databases` and `roles` are the role's options of these names; see its argument spec.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

Json = Mapping[str, Any]

NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
ITERATIONS = 4096
"""PostgreSQL's own number (scram_iterations)."""
RESERVED_ROLES = ("postgres", "pgbouncer", "prometheus", "replication", "standby", "public")
RESERVED_DATABASES = ("postgres", "template0", "template1", "pgbouncer", "replication", "all")
MAJORS = ("15", "16", "17", "18")
ACCESS = ("owner", "rw", "ro")

KILOBYTES = 1024
SMALLEST_MEMORY_MB = 256
TABLE_RIGHTS = {"rw": "SELECT,INSERT,UPDATE,DELETE", "ro": "SELECT"}
SEQUENCE_RIGHTS = {"rw": "USAGE,SELECT,UPDATE", "ro": "SELECT"}


class PostgresqlError(Exception):
    """A fault in the inputs, told in a sentence."""


def settings(
    memory_mb: int, cores: int, volume_gb: int, max_connections: int, major: str, extra: Json | None = None
) -> dict[str, str]:
    """Settings that depend on the host's size, and those that are right on every one; `extra` wins."""
    if memory_mb < SMALLEST_MEMORY_MB:
        raise PostgresqlError(
            f"{memory_mb} MB of memory are too few for PostgreSQL; give it {SMALLEST_MEMORY_MB} or more."
        )
    if cores < 1 or max_connections < 10:
        raise PostgresqlError(f"{cores} cores and {max_connections} connections are too few; give it 1 and 10 or more.")
    parallel = max(1, min(4, cores // 2))
    # The volume has to hold the data as well; a tenth of it between two checkpoints is enough on small ones.
    wal_mb = _clamp(volume_gb * 1024 // 10, 512, 16384)
    found = {
        # memory
        "shared_buffers": _mb(memory_mb // 4),
        "effective_cache_size": _mb(memory_mb * 3 // 4),
        "work_mem": _kb(max(1024, memory_mb * KILOBYTES // 4 // max_connections)),
        "maintenance_work_mem": _mb(_clamp(memory_mb // 16, 32, 2048)),
        "autovacuum_work_mem": _mb(_clamp(memory_mb // 32, 32, 1024)),
        "huge_pages": "try",
        # connections and workers
        "max_connections": str(max_connections),
        # On every host the same: a standby, or a restored server, that has fewer than the one before does not start.
        "max_worker_processes": "64",
        "max_parallel_workers": str(max(2, cores)),
        "max_parallel_workers_per_gather": str(parallel),
        "max_parallel_maintenance_workers": str(parallel),
        # disk: Hetzner's volumes are SSDs behind a network, random reads cost little more than others
        "random_page_cost": "1.1",
        "effective_io_concurrency": "200",
        "maintenance_io_concurrency": "200",
        "max_wal_size": _mb(wal_mb),
        "min_wal_size": _mb(wal_mb // 4),
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "wal_compression": "lz4",
        "wal_level": "replica",
        "max_wal_senders": "10",
        "max_replication_slots": "10",
        # what a person asks for when something was slow
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_temp_files": "10MB",
        "log_autovacuum_min_duration": "1min",
        "log_min_duration_statement": "1s",
        # values of slow statements may be secrets
        "log_parameter_max_length": "0",
        "log_connections": "on",
        "log_line_prefix": "%m [%p] %q%u@%d %h ",
        "log_timezone": "Etc/UTC",
        "timezone": "Etc/UTC",
        "shared_preload_libraries": "pg_stat_statements",
        "track_io_timing": "on",
        # Passwords in CREATE ROLE would otherwise be kept for everybody with pg_read_all_stats.
        "pg_stat_statements.track_utility": "off",
    }
    if int(major) >= 18:
        found |= {"io_method": "worker", "io_workers": str(_clamp(cores // 4, 3, 16))}
    return found | {name: _plain(value) for name, value in (extra or {}).items()}


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(most, value))


def _mb(value: int) -> str:
    return f"{value}MB"


def _kb(value: int) -> str:
    return f"{value}kB"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def configuration(values: Json) -> str:
    """The text of postgresql.conf, one setting a line in alphabetical order."""
    lines = []
    for name, value in sorted(values.items()):
        if not re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", name):
            raise PostgresqlError(f"{name!r} is no name of a setting.")
        text = _plain(value)
        if "\n" in text:
            raise PostgresqlError(f"The value of {name} holds a line break.")
        escaped = text.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{escaped}'")
    return "\n".join(lines) + "\n"


def scram(password: str, role: str) -> str:
    """The verifier that PostgreSQL keeps, so that the password itself never reaches the server, its log or statistics.

    The salt follows from the role's name: the same password gives the same verifier at every run.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise PostgresqlError(f"The password of {role} is empty or has characters beyond printable ASCII.")
    return verifier(password, hashlib.sha256(f"slipway postgresql {role}".encode()).digest()[:16])


def verifier(password: str, salt: bytes) -> str:
    """RFC 5802 and 7677, as pg_authid keeps it."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${ITERATIONS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def owner_of(database: Json) -> str:
    return f"{database['name']}_owner"


def group_of(database: str, access: str) -> str:
    """Role without login that carries the rights of one kind of access to one database."""
    return f"{database}_{access}"


def cidrs_of(role: Json, nodes: Sequence[str]) -> list[str]:
    """From where a role may come: its own list, else the environment's nodes."""
    return [_cidr(cidr, str(role["name"])) for cidr in role.get("cidrs") or nodes]


def _cidr(value: str, role: str) -> str:
    try:
        return str(ip_network(str(value), strict=True))
    except ValueError as error:
        raise PostgresqlError(
            f"{value} of the role {role} is no range of addresses: {error}. Write one, such as 10.40.1.0/24."
        ) from error


def hba(
    roles: Sequence[Json], nodes: Sequence[str], pooler: str, peers: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Rows of pg_hba.conf: type, database, role, address, method. What no row names is rejected by the last.

    `pooler` is the address that PgBouncer comes from; it has looked at the client's own address before. `peers` are the
    other hosts of the same database: they may follow, and ask who takes the writes.
    """
    rows = [
        ["local", "all", "postgres", "", "peer map=superuser"],
        ["local", "postgres", "pgbouncer", "", "peer"],
        ["local", "all", "prometheus", "", "peer"],
        ["local", "all", "all", "", "reject"],
    ]
    for address in (peers or {}).values():
        rows += [
            ["hostssl", database, "standby", f"{address}/32", "scram-sha-256"]
            for database in ("replication", "postgres")
        ]
    for role in roles:
        if role.get("pooled", True):
            rows.append(_row(role, f"{pooler}/32"))
        rows += [_row(role, cidr) for cidr in cidrs_of(role, nodes) if cidr != f"{pooler}/32"]
    return [*rows, ["host", "all", "all", "all", "reject"], ["host", "replication", "all", "all", "reject"]]


def pooler_hba(roles: Sequence[Json], nodes: Sequence[str]) -> list[list[str]]:
    """The same for PgBouncer, which the clients reach first."""
    rows = [["local", "pgbouncer", "pgbouncer", "", "peer"]]
    rows += [_row(role, cidr) for role in roles if role.get("pooled", True) for cidr in cidrs_of(role, nodes)]
    return [*rows, ["host", "all", "all", "0.0.0.0/0", "reject"], ["host", "all", "all", "::/0", "reject"]]


def _row(role: Json, cidr: str) -> list[str]:
    return ["hostssl", str(role["database"]), str(role["name"]), cidr, "scram-sha-256"]


def hba_text(rows: Iterable[Sequence[str]]) -> str:
    lines = (
        " ".join(f"{word:<{width}}" for word, width in zip(row, (8, 24, 24, 20, 0), strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def catalogue_roles(
    databases: Sequence[Json], roles: Sequence[Json], passwords: Mapping[str, str], standby_password: str = ""
) -> list[dict[str, Any]]:
    """Every role that has to exist: owners and groups without login, then the people's, then the platform's own.

    With `standby_password` there are standbys, and an account by which they follow.
    """
    found: list[dict[str, Any]] = []
    for database in databases:
        name = str(database["name"])
        for group in (owner_of(database), group_of(name, "rw"), group_of(name, "ro")):
            found.append({"name": group, "flags": _flags(login=False), "limit": -1, "configuration": {}})
    for role in roles:
        name = str(role["name"])
        if name not in passwords:
            raise PostgresqlError(
                f"There is no password for the role {name} in postgresql_role_passwords; "
                "run playbooks/operations/create_secrets.yml."
            )
        found.append(
            {
                "name": name,
                "flags": _flags(login=True),
                "limit": int(role.get("connection_limit", 50)),
                "verifier": scram(passwords[name], name),
                "configuration": session_settings(role),
            }
        )
    for name in ("pgbouncer", "prometheus"):
        found.append({"name": name, "flags": _flags(login=True), "limit": 10, "configuration": {}})
    if standby_password:
        found.append(
            {"name": "standby", "flags": _flags(login=True, replication=True), "limit": 10, "configuration": {}}
            | {"verifier": scram(standby_password, "standby")}
        )
    return found


def _flags(login: bool, replication: bool = False) -> str:
    return (
        f"{'LOGIN' if login else 'NOLOGIN'},NOSUPERUSER,NOCREATEDB,NOCREATEROLE,"
        f"{'REPLICATION' if replication else 'NOREPLICATION'},NOBYPASSRLS,INHERIT"
    )


def session_settings(role: Json) -> dict[str, str]:
    """What a session of the role begins with."""
    found = {
        "statement_timeout": f"{int(role.get('statement_timeout_seconds', 60))}s",
        "idle_in_transaction_session_timeout": f"{int(role.get('idle_in_transaction_timeout_seconds', 60))}s",
        "lock_timeout": f"{int(role.get('lock_timeout_seconds', 30))}s",
    }
    if role.get("access", "rw") == "owner":
        # What it makes belongs to the owner, and so to everybody whom default privileges name.
        found["role"] = group_of(str(role["database"]), "owner")
    return found


def memberships(roles: Sequence[Json]) -> list[dict[str, str]]:
    """Login roles in the groups whose rights they have."""
    found = [
        {"member": str(role["name"]), "group": group_of(str(role["database"]), role.get("access", "rw"))}
        for role in roles
    ]
    return [*found, {"member": "prometheus", "group": "pg_monitor"}]


def grants(databases: Sequence[Json], standby: bool = False) -> list[dict[str, str]]:
    """Rights by database, as the options of community.postgresql.postgresql_privs."""
    platform = {"database": "postgres", "type": "database", "objs": "postgres"}
    found: list[dict[str, str]] = [
        {**platform, "roles": "PUBLIC", "privs": "ALL", "state": "absent"},
        {**platform, "roles": "pgbouncer,prometheus" + ",standby" * standby, "privs": "CONNECT"},
    ]
    for database in databases:
        name, owner = str(database["name"]), owner_of(database)
        groups = f"{group_of(name, 'rw')},{group_of(name, 'ro')}"
        found += [
            {"database": name, "type": "database", "objs": name, "roles": "PUBLIC", "privs": "ALL", "state": "absent"},
            {
                "database": name,
                "type": "schema",
                "objs": "public",
                "roles": "PUBLIC",
                "privs": "ALL",
                "state": "absent",
            },
            {"database": name, "type": "database", "objs": name, "roles": groups, "privs": "CONNECT,TEMPORARY"},
            {"database": name, "type": "schema", "objs": "public", "roles": groups, "privs": "USAGE"},
        ]
        for access in ("rw", "ro"):
            group = group_of(name, access)
            for kind, objects, rights in (
                ("table", "TABLES", TABLE_RIGHTS[access]),
                ("sequence", "SEQUENCES", SEQUENCE_RIGHTS[access]),
            ):
                found.append(
                    {"database": name, "type": "default_privs", "objs": objects, "roles": group, "privs": rights}
                    | {"schema": "public", "owner": owner}
                )
                found.append(
                    {"database": name, "type": kind, "objs": "ALL_IN_SCHEMA", "roles": group, "privs": rights}
                    | {"schema": "public"}
                )
    return found


def extensions(databases: Sequence[Json]) -> list[dict[str, str]]:
    return [
        {"database": str(database["name"]), "name": str(name)}
        for database in databases
        for name in database.get("extensions") or ()
    ] + [{"database": "postgres", "name": "pg_stat_statements"}]


# What a running server lacks. `state` is what it says of itself (roles/postgresql/vars), `inside` the same by database.


def lacking_roles(wanted: Sequence[Json], state: Json) -> list[Json]:
    """Roles that are missing or differ."""
    return [role for role in wanted if _differs(role, (state.get("accounts") or {}).get(role["name"]))]


def _differs(role: Json, there: Json | None) -> bool:
    if there is None:
        return True
    configuration = sorted(f"{name}={value}" for name, value in role["configuration"].items())
    if "verifier" in role and there["verifier"] != hashlib.sha256(str(role["verifier"]).encode()).hexdigest():
        return True
    return (
        there["login"] != role["flags"].startswith("LOGIN")
        or there["special"]
        or there["replication"] != (",REPLICATION," in role["flags"])
        or not there["inherit"]
        or there["limit"] != role["limit"]
        or sorted(there["configuration"]) != configuration
    )


def lacking_databases(databases: Sequence[Json], state: Json) -> list[Json]:
    found = []
    for database in databases:
        there = (state.get("catalogue") or {}).get(database["name"])
        wanted = {"owner": owner_of(database), "limit": int(database.get("connection_limit") or -1)}
        if there is None or {name: there[name] for name in wanted} != wanted:
            found.append(database)
    return found


def lacking_memberships(wanted: Sequence[Mapping[str, str]], state: Json) -> list[Mapping[str, str]]:
    """A login role belongs to its group and to no other."""
    there = state.get("members") or {}
    return [entry for entry in wanted if there.get(entry["member"]) != [entry["group"]]]


def lacking_extensions(wanted: Sequence[Mapping[str, str]], inside: Mapping[str, Json]) -> list[Mapping[str, str]]:
    return [
        entry for entry in wanted if entry["name"] not in (inside.get(entry["database"]) or {}).get("extensions", ())
    ]


def lacking_grants(
    wanted: Sequence[Mapping[str, str]], state: Json, inside: Mapping[str, Json]
) -> list[Mapping[str, str]]:
    return [entry for entry in wanted if not _granted(entry, state, inside.get(entry["database"]))]


def _granted(entry: Mapping[str, str], state: Json, database: Json | None) -> bool:
    if database is None:
        return False
    kind, rights = entry["type"], set(entry["privs"].split(","))
    if kind in ("table", "sequence"):
        total = (database["totals"] or {}).get(kind, 0)
        return all(
            (database["rights"] or {}).get(f"{kind} {role} {right}", 0) == total
            for role in entry["roles"].split(",")
            for right in rights
        )
    if kind == "default_privs":
        acl = (database["defaults"] or {}).get({"TABLES": "r", "SEQUENCES": "S"}[entry["objs"]]) or {}
    elif kind == "schema":
        acl = database["schema"] or {}
    else:
        there = (state.get("catalogue") or {}).get(entry["database"])
        if there is None:  # made a moment ago, after the state was read
            return False
        acl = there["acl"] or {}
    if entry.get("state") == "absent":
        return not any(acl.get(role) for role in entry["roles"].split(","))
    return all(rights <= set(acl.get(role) or ()) for role in entry["roles"].split(","))


def undeclared(state: Json, databases: Sequence[Json], roles: Sequence[Json], standby: bool = False) -> list[str]:
    """Sentences about what is there and nobody declared. It is never dropped."""
    passwords = {role["name"]: "x" for role in roles}
    expected_roles = {role["name"] for role in catalogue_roles(databases, roles, passwords, "x" * standby)}
    expected_databases = {str(database["name"]) for database in databases}
    found = [
        f"database {name}" for name in sorted(set(state.get("catalogue") or ()) - expected_databases - {"postgres"})
    ]
    return found + [f"role {name}" for name in sorted(set(state.get("accounts") or ()) - expected_roles - {"postgres"})]
