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
    """A fault of the inputs, with a message for the operator."""


def settings(
    memory_mb: int, cores: int, volume_gb: int, max_connections: int, major: str, extra: Json | None = None
) -> dict[str, str]:
    """Settings derived from the host's size, and those of every host; `extra` overrides them."""
    if memory_mb < SMALLEST_MEMORY_MB:
        raise PostgresqlError(f"memory is {memory_mb} MB, too few for PostgreSQL. Set {SMALLEST_MEMORY_MB} MB or more.")
    if cores < 1 or max_connections < 10:
        raise PostgresqlError(f"{cores} cores and {max_connections} connections are too few. Set 1 and 10 or more.")
    parallel = max(1, min(4, cores // 2))
    # A tenth of the volume for WAL between two checkpoints leaves room for the data on small volumes.
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
        # The same on every host: a standby or a restored server with a lower value than its origin does not start.
        "max_worker_processes": "64",
        "max_parallel_workers": str(max(2, cores)),
        "max_parallel_workers_per_gather": str(parallel),
        "max_parallel_maintenance_workers": str(parallel),
        # disk: Hetzner's volumes are SSDs behind a network; random reads cost little more than sequential ones
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
        # for the analysis of slow statements
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_temp_files": "10MB",
        "log_autovacuum_min_duration": "1min",
        "log_min_duration_statement": "1s",
        # parameters of slow statements may contain secrets
        "log_parameter_max_length": "0",
        "log_connections": "on",
        "log_line_prefix": "%m [%p] %q%u@%d %h ",
        "log_timezone": "Etc/UTC",
        "timezone": "Etc/UTC",
        "shared_preload_libraries": "pg_stat_statements",
        "track_io_timing": "on",
        # Otherwise passwords in CREATE ROLE would be readable with pg_read_all_stats.
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
            raise PostgresqlError(f"{name!r} is not a valid name of a setting.")
        text = _plain(value)
        if "\n" in text:
            raise PostgresqlError(f"The value of {name} contains a line break.")
        escaped = text.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{escaped}'")
    return "\n".join(lines) + "\n"


def scram(password: str, role: str) -> str:
    """The SCRAM verifier that PostgreSQL stores: the password itself never reaches the server, its log or statistics.

    The salt is derived from the role's name, so that the verifier is the same at every run.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise PostgresqlError(f"The password of {role} is empty or contains characters other than printable ASCII.")
    return verifier(password, hashlib.sha256(f"slipway postgresql {role}".encode()).digest()[:16])


def verifier(password: str, salt: bytes) -> str:
    """RFC 5802 and 7677, in the format of pg_authid."""
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
    """The NOLOGIN role with the privileges of one kind of access to one database."""
    return f"{database}_{access}"


def cidrs_of(role: Json, nodes: Sequence[str]) -> list[str]:
    """Ranges from which a role may connect: its own list, or the environment's nodes."""
    return [_cidr(cidr, str(role["name"])) for cidr in role.get("cidrs") or nodes]


def _cidr(value: str, role: str) -> str:
    try:
        return str(ip_network(str(value), strict=True))
    except ValueError as error:
        raise PostgresqlError(
            f"role {role}: {value} is not a range of addresses ({error}). Use one such as 10.40.1.0/24."
        ) from error


def hba(
    roles: Sequence[Json], nodes: Sequence[str], pooler: str, peers: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Rows of pg_hba.conf: type, database, role, address, method. The last rows reject everything else.

    `pooler` is the address of PgBouncer, which has checked the client's address itself. `peers` are the other hosts of
    the same database: they may replicate, and query whether this host is the primary.
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
    """Rows of PgBouncer's own hba file."""
    rows = [["local", "pgbouncer", "pgbouncer", "", "peer"]]
    rows += [_row(role, cidr) for role in roles if role.get("pooled", True) for cidr in cidrs_of(role, nodes)]
    return [*rows, ["host", "all", "all", "0.0.0.0/0", "reject"], ["host", "all", "all", "::/0", "reject"]]


def _row(role: Json, cidr: str) -> list[str]:
    return ["hostssl", str(role["database"]), str(role["name"]), cidr, "scram-sha-256"]


def hba_file(roles: Sequence[Json], nodes: Sequence[str], pooler: str, peers: Mapping[str, str] | None = None) -> str:
    """The text of pg_hba.conf; see `hba`."""
    return hba_text(hba(roles, nodes, pooler, peers))


def pooler_hba_file(roles: Sequence[Json], nodes: Sequence[str]) -> str:
    """The text of PgBouncer's hba file; see `pooler_hba`."""
    return hba_text(pooler_hba(roles, nodes))


def hba_text(rows: Iterable[Sequence[str]]) -> str:
    lines = (
        " ".join(f"{word:<{width}}" for word, width in zip(row, (8, 24, 24, 20, 0), strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def verifiers(roles: Sequence[Json], passwords: Mapping[str, str], standby_password: str = "") -> dict[str, str]:
    """The SCRAM verifier of each login role, and of the replication role when there are standbys."""
    found = {}
    for role in roles:
        name = str(role["name"])
        if name not in passwords:
            raise PostgresqlError(
                f"postgresql_role_passwords: no password for the role {name}. "
                "Run playbooks/operations/create_secrets.yml."
            )
        found[name] = scram(passwords[name], name)
    return found | ({"standby": scram(standby_password, "standby")} if standby_password else {})


def catalogue_roles(
    databases: Sequence[Json], roles: Sequence[Json], digests: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Every role that has to exist: owners and groups without login, then login roles, then the platform's own.

    `digests` has the SHA-256 of each verifier; with that of `standby` there is a replication role.
    """
    found: list[dict[str, Any]] = []
    for database in databases:
        name = str(database["name"])
        for group in (owner_of(database), group_of(name, "rw"), group_of(name, "ro")):
            found.append({"name": group, "flags": _flags(login=False), "limit": -1, "configuration": {}})
    for role in roles:
        name = str(role["name"])
        found.append(
            {
                "name": name,
                "flags": _flags(login=True),
                "limit": int(role.get("connection_limit", 50)),
                "verifier": digests[name],
                "configuration": session_settings(role),
            }
        )
    for name in ("pgbouncer", "prometheus"):
        found.append({"name": name, "flags": _flags(login=True), "limit": 10, "configuration": {}})
    if "standby" in digests:
        found.append(
            {"name": "standby", "flags": _flags(login=True, replication=True), "limit": 10, "configuration": {}}
            | {"verifier": digests["standby"]}
        )
    return found


def _flags(login: bool, replication: bool = False) -> str:
    return (
        f"{'LOGIN' if login else 'NOLOGIN'},NOSUPERUSER,NOCREATEDB,NOCREATEROLE,"
        f"{'REPLICATION' if replication else 'NOREPLICATION'},NOBYPASSRLS,INHERIT"
    )


def session_settings(role: Json) -> dict[str, str]:
    """Settings of every session of the role."""
    found = {
        "statement_timeout": f"{int(role.get('statement_timeout_seconds', 60))}s",
        "idle_in_transaction_session_timeout": f"{int(role.get('idle_in_transaction_timeout_seconds', 60))}s",
        "lock_timeout": f"{int(role.get('lock_timeout_seconds', 30))}s",
    }
    if role.get("access", "rw") == "owner":
        # The objects that it creates belong to the owner, so that default privileges apply.
        found["role"] = group_of(str(role["database"]), "owner")
    return found


def memberships(roles: Sequence[Json]) -> list[dict[str, str]]:
    """The group of each login role."""
    found = [
        {"member": str(role["name"]), "group": group_of(str(role["database"]), role.get("access", "rw"))}
        for role in roles
    ]
    return [*found, {"member": "prometheus", "group": "pg_monitor"}]


def grants(databases: Sequence[Json], standby: bool = False) -> list[dict[str, str]]:
    """Privileges by database, as the options of community.postgresql.postgresql_privs."""
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
    """Declared extensions of every database, and the platform's pg_stat_statements in `postgres`."""
    return [
        {"database": str(database["name"]), "name": str(name)}
        for database in databases
        for name in database.get("extensions") or ()
    ] + [{"database": "postgres", "name": "pg_stat_statements"}]


# Drift of a running server. `state` and `database_states` are the state of the server and of each database
# (module_utils/postgresql_state.py).


def role_drift(wanted: Sequence[Json], state: Json) -> list[Json]:
    """Roles that are missing or differ."""
    return [role for role in wanted if _differs(role, (state.get("accounts") or {}).get(role["name"]))]


def _differs(role: Json, present: Json | None) -> bool:
    if present is None:
        return True
    configuration = sorted(f"{name}={value}" for name, value in role["configuration"].items())
    if "verifier" in role and present["verifier"] != role["verifier"]:
        return True
    return (
        present["login"] != role["flags"].startswith("LOGIN")
        or present["special"]
        or present["replication"] != (",REPLICATION," in role["flags"])
        or not present["inherit"]
        or present["limit"] != role["limit"]
        or sorted(present["configuration"]) != configuration
    )


def database_drift(databases: Sequence[Json], state: Json) -> list[Json]:
    found = []
    for database in databases:
        present = (state.get("catalogue") or {}).get(database["name"])
        wanted = {"owner": owner_of(database), "limit": int(database.get("connection_limit") or -1)}
        if present is None or {name: present[name] for name in wanted} != wanted:
            found.append(database)
    return found


def membership_drift(wanted: Sequence[Mapping[str, str]], state: Json) -> list[Mapping[str, str]]:
    """Login roles that are not a member of exactly their group."""
    present = state.get("members") or {}
    return [entry for entry in wanted if present.get(entry["member"]) != [entry["group"]]]


def extension_drift(
    wanted: Sequence[Mapping[str, str]], database_states: Mapping[str, Json]
) -> list[Mapping[str, str]]:
    return [
        entry
        for entry in wanted
        if entry["name"] not in (database_states.get(entry["database"]) or {}).get("extensions", ())
    ]


def grant_drift(
    wanted: Sequence[Mapping[str, str]], state: Json, database_states: Mapping[str, Json]
) -> list[Mapping[str, str]]:
    return [entry for entry in wanted if not _granted(entry, state, database_states.get(entry["database"]))]


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
        present = (state.get("catalogue") or {}).get(entry["database"])
        if present is None:  # created after the state was read
            return False
        acl = present["acl"] or {}
    if entry.get("state") == "absent":
        return not any(acl.get(role) for role in entry["roles"].split(","))
    return all(rights <= set(acl.get(role) or ()) for role in entry["roles"].split(","))


def catalogue_drift(
    databases: Sequence[Json],
    state: Json,
    database_states: Mapping[str, Json],
    roles: Sequence[Json],
    digests: Mapping[str, str],
    lookup_digest: str = "",
) -> dict[str, list[Any]]:
    """The plan for databases, roles and grants of a primary: by kind, what is declared and missing or different.

    `roles`, `databases`, `memberships`, `extensions` and `grants` are entries to apply in this order, `lookup` is the
    digest of PgBouncer's function when it has to be created. `missing` are names of roles and databases that do not
    exist yet, which check mode cannot query.
    """
    declared = catalogue_roles(databases, roles, digests)
    return {
        "roles": role_drift(declared, state),
        "databases": database_drift(databases, state),
        "memberships": membership_drift(memberships(roles), state),
        "extensions": extension_drift(extensions(databases), database_states),
        "grants": grant_drift(grants(databases, "standby" in digests), state, database_states),
        "lookup": [] if state.get("lookup") == lookup_digest else [lookup_digest],
        "missing": [role["name"] for role in declared if role["name"] not in (state.get("accounts") or {})]
        + [database["name"] for database in databases if database["name"] not in (state.get("catalogue") or {})],
    }


def undeclared(state: Json, databases: Sequence[Json], roles: Sequence[Json], standby: bool = False) -> list[str]:
    """Undeclared databases and roles. They are never dropped."""
    digests = dict.fromkeys([*(role["name"] for role in roles), *["standby"] * standby], "")
    expected_roles = {role["name"] for role in catalogue_roles(databases, roles, digests)}
    expected_databases = {str(database["name"]) for database in databases}
    found = [
        f"database {name}" for name in sorted(set(state.get("catalogue") or ()) - expected_databases - {"postgres"})
    ]
    return found + [f"role {name}" for name in sorted(set(state.get("accounts") or ()) - expected_roles - {"postgres"})]
