"""Settings from a host's size, rules, roles and rights from the inventory."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.postgresql import (
    PostgresqlError,
    catalogue_drift,
    catalogue_roles,
    configuration,
    database_drift,
    extension_drift,
    extensions,
    grant_drift,
    grants,
    hba,
    hba_text,
    membership_drift,
    memberships,
    pooler_hba,
    role_drift,
    scram,
    settings,
    undeclared,
    verifier,
    verifiers,
)

DATABASES: list[dict[str, Any]] = [{"name": "app", "extensions": ["pg_trgm"]}]
ROLES: list[dict[str, Any]] = [
    {"name": "app", "database": "app"},
    {"name": "app_migration", "database": "app", "access": "owner", "pooled": False, "statement_timeout_seconds": 0},
    {"name": "app_report", "database": "app", "access": "ro", "cidrs": ["10.1.9.0/24"], "connection_limit": 5},
]
NODES = ["10.1.1.21/32", "10.1.1.22/32"]
PASSWORDS = {"app": "one", "app_migration": "two", "app_report": "three"}
DIGESTS = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in verifiers(ROLES, PASSWORDS).items()}


@pytest.mark.parametrize(
    ("gigabytes", "cores", "expected"),
    [
        (
            2,
            2,
            {
                "shared_buffers": "512MB",
                "effective_cache_size": "1536MB",
                "work_mem": "5242kB",
                "maintenance_work_mem": "128MB",
                "autovacuum_work_mem": "64MB",
                "max_worker_processes": "64",
                "max_parallel_workers": "2",
                "max_parallel_workers_per_gather": "1",
            },
        ),
        (
            4,
            2,
            {
                "shared_buffers": "1024MB",
                "effective_cache_size": "3072MB",
                "work_mem": "10485kB",
                "maintenance_work_mem": "256MB",
                "autovacuum_work_mem": "128MB",
                "max_worker_processes": "64",
                "max_parallel_workers": "2",
                "max_parallel_workers_per_gather": "1",
            },
        ),
        (
            8,
            4,
            {
                "shared_buffers": "2048MB",
                "effective_cache_size": "6144MB",
                "work_mem": "20971kB",
                "maintenance_work_mem": "512MB",
                "autovacuum_work_mem": "256MB",
                "max_worker_processes": "64",
                "max_parallel_workers": "4",
                "max_parallel_workers_per_gather": "2",
            },
        ),
        (
            32,
            8,
            {
                "shared_buffers": "8192MB",
                "effective_cache_size": "24576MB",
                "work_mem": "83886kB",
                "maintenance_work_mem": "2048MB",
                "autovacuum_work_mem": "1024MB",
                "max_worker_processes": "64",
                "max_parallel_workers": "8",
                "max_parallel_workers_per_gather": "4",
            },
        ),
        (
            128,
            32,
            {
                "shared_buffers": "32768MB",
                "effective_cache_size": "98304MB",
                "work_mem": "335544kB",
                "maintenance_work_mem": "2048MB",
                "autovacuum_work_mem": "1024MB",
                "max_worker_processes": "64",
                "max_parallel_workers": "32",
                "max_parallel_workers_per_gather": "4",
            },
        ),
    ],
)
def test_settings_follow_the_hosts_size(gigabytes: int, cores: int, expected: dict[str, str]) -> None:
    found = settings(gigabytes * 1024, cores, 100, 100, "17")
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("volume_gb", "most", "least"), [(10, "1024MB", "256MB"), (100, "10240MB", "2560MB"), (1000, "16384MB", "4096MB")]
)
def test_room_between_checkpoints_follows_the_volume(volume_gb: int, most: str, least: str) -> None:
    found = settings(4096, 2, volume_gb, 100, "17")
    assert (found["max_wal_size"], found["min_wal_size"]) == (most, least)


@pytest.mark.parametrize("memory_mb", [2048, 4096, 8192, 32768, 131072])
def test_all_connections_at_work_fit_into_memory(memory_mb: int) -> None:
    """Buffers, one sort or hash (twice work_mem) a connection, three vacuums."""
    found = {name: int(value.rstrip("kMB")) for name, value in settings(memory_mb, 4, 100, 100, "17").items()
             if name in {"shared_buffers", "work_mem", "autovacuum_work_mem"}}  # fmt: skip
    used = found["shared_buffers"] + found["work_mem"] * 2 * 100 // 1024 + found["autovacuum_work_mem"] * 3
    assert used <= memory_mb * 0.9


def test_newer_versions_have_their_own_settings() -> None:
    assert "io_method" not in settings(4096, 2, 10, 100, "17")
    assert settings(4096, 32, 10, 100, "18")["io_workers"] == "8"


def test_extra_settings_win() -> None:
    found = settings(4096, 2, 10, 100, "17", {"work_mem": "1MB", "jit": False})
    assert (found["work_mem"], found["jit"]) == ("1MB", "off")


@pytest.mark.parametrize(("memory_mb", "cores", "connections"), [(128, 2, 100), (4096, 0, 100), (4096, 2, 5)])
def test_sizes_that_cannot_be(memory_mb: int, cores: int, connections: int) -> None:
    with pytest.raises(PostgresqlError, match="too few"):
        settings(memory_mb, cores, 10, connections, "17")


def test_the_text_of_the_configuration() -> None:
    assert configuration({"b": "it's \\ one", "a.b": True, "a": 5}) == "a = '5'\na.b = 'on'\nb = 'it''s \\\\ one'\n"
    with pytest.raises(PostgresqlError, match="not a valid name of a setting"):
        configuration({"a = 1\nb": "x"})
    with pytest.raises(PostgresqlError, match="line break"):
        configuration({"a": "x\ny"})


def test_a_verifier_conforms_to_the_standard() -> None:
    """The example of RFC 7677."""
    assert verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_verifier_stays_the_same_and_is_the_roles_own() -> None:
    assert scram("correct horse", "app") == scram("correct horse", "app")
    assert scram("correct horse", "other") != scram("correct horse", "app")
    assert scram("another", "app") != scram("correct horse", "app")


@pytest.mark.parametrize("password", ["", "grün", "a\tb"])
def test_passwords_that_programs_would_read_differently(password: str) -> None:
    with pytest.raises(PostgresqlError, match="The password of app"):
        scram(password, "app")


def test_who_may_come() -> None:
    rows = hba(ROLES, NODES, "10.1.1.61")
    assert rows[:4] == [
        ["local", "all", "postgres", "", "peer map=superuser"],
        ["local", "postgres", "pgbouncer", "", "peer"],
        ["local", "all", "prometheus", "", "peer"],
        ["local", "all", "all", "", "reject"],
    ]
    assert rows[4:-2] == [
        ["hostssl", "app", "app", "10.1.1.61/32", "scram-sha-256"],
        ["hostssl", "app", "app", "10.1.1.21/32", "scram-sha-256"],
        ["hostssl", "app", "app", "10.1.1.22/32", "scram-sha-256"],
        ["hostssl", "app", "app_migration", "10.1.1.21/32", "scram-sha-256"],
        ["hostssl", "app", "app_migration", "10.1.1.22/32", "scram-sha-256"],
        ["hostssl", "app", "app_report", "10.1.1.61/32", "scram-sha-256"],
        ["hostssl", "app", "app_report", "10.1.9.0/24", "scram-sha-256"],
    ]
    assert rows[-2:] == [["host", "all", "all", "all", "reject"], ["host", "replication", "all", "all", "reject"]]
    assert {row[4] for row in rows} == {"peer map=superuser", "peer", "scram-sha-256", "reject"}


def test_who_may_come_to_the_pooler() -> None:
    rows = pooler_hba(ROLES, NODES)
    assert ["hostssl", "app", "app_report", "10.1.9.0/24", "scram-sha-256"] in rows
    assert "app_migration" not in {row[2] for row in rows}
    assert [row[4] for row in rows[-2:]] == ["reject", "reject"]


def test_a_range_that_is_none() -> None:
    with pytest.raises(PostgresqlError, match=r"role app: 10\.1\.1\.1/24 is not a range"):
        hba([{"name": "app", "database": "app", "cidrs": ["10.1.1.1/24"]}], NODES, "10.1.1.61")


def test_rules_as_text() -> None:
    lines = hba_text(
        [["hostssl", "app", "app", "10.1.1.21/32", "scram-sha-256"], ["local", "all", "all", "", "reject"]]
    )
    assert [line.split() for line in lines.splitlines()] == [
        ["hostssl", "app", "app", "10.1.1.21/32", "scram-sha-256"],
        ["local", "all", "all", "reject"],
    ]


def test_roles_of_the_catalogue() -> None:
    found = {role["name"]: role for role in catalogue_roles(DATABASES, ROLES, DIGESTS)}
    assert list(found) == [
        *("app_owner", "app_rw", "app_ro"),
        *("app", "app_migration", "app_report"),
        *("pgbouncer", "prometheus"),
    ]
    for name in ("app_owner", "app_rw", "app_ro"):
        assert found[name]["flags"].startswith("NOLOGIN,NOSUPERUSER") and "verifier" not in found[name]
    for name in ("app", "app_migration", "app_report"):
        assert found[name]["flags"].startswith("LOGIN,NOSUPERUSER")
        assert found[name]["verifier"] == DIGESTS[name]
    assert found["app_report"]["limit"] == 5
    assert found["app_migration"]["configuration"]["role"] == "app_owner"
    assert found["app_migration"]["configuration"]["statement_timeout"] == "0s"
    assert "role" not in found["app"]["configuration"]


def test_the_verifiers_of_login_roles_and_of_standbys() -> None:
    found = verifiers(ROLES, PASSWORDS, "p" * 32)
    assert list(found) == ["app", "app_migration", "app_report", "standby"]
    assert all(text.startswith("SCRAM-SHA-256$4096:") for text in found.values())
    assert not [password for password in PASSWORDS.values() if password in str(found)]
    assert "standby" not in verifiers(ROLES, PASSWORDS)


def test_a_role_without_a_password() -> None:
    with pytest.raises(PostgresqlError, match="no password for the role app_report"):
        verifiers(ROLES, {"app": "one", "app_migration": "two"})


def test_who_belongs_to_which_group() -> None:
    assert memberships(ROLES) == [
        {"member": "app", "group": "app_rw"},
        {"member": "app_migration", "group": "app_owner"},
        {"member": "app_report", "group": "app_ro"},
        {"member": "prometheus", "group": "pg_monitor"},
    ]


def test_rights() -> None:
    found = grants(DATABASES)
    assert {(entry["database"], entry["type"]) for entry in found if entry.get("state") == "absent"} == {
        *(("postgres", "database"), ("app", "database"), ("app", "schema"))
    }
    writing = [entry for entry in found if "INSERT" in entry["privs"]]
    assert {entry["roles"] for entry in writing} == {"app_rw"}
    assert all(entry["owner"] == "app_owner" for entry in found if entry["type"] == "default_privs")


def test_extensions_of_every_database() -> None:
    assert extensions(DATABASES) == [
        {"database": "app", "name": "pg_trgm"},
        {"database": "postgres", "name": "pg_stat_statements"},
    ]


def account(role: dict[str, Any], **differs: Any) -> dict[str, Any]:
    """The role in the state of a server."""
    return {
        "login": role["flags"].startswith("LOGIN"),
        "inherit": True,
        "special": False,
        "replication": False,
        "limit": role["limit"],
        "verifier": role.get("verifier", hashlib.sha256(b"").hexdigest()),
        "configuration": [f"{name}={value}" for name, value in role["configuration"].items()],
    } | differs


def test_a_server_in_line_lacks_nothing() -> None:
    wanted = catalogue_roles(DATABASES, ROLES, DIGESTS)
    state = {"accounts": {role["name"]: account(role) for role in wanted}}
    assert role_drift(wanted, state) == []


@pytest.mark.parametrize(
    "differs",
    [
        {"login": False},
        {"special": True},
        {"inherit": False},
        {"limit": 7},
        {"verifier": "of another password"},
        {"configuration": ["statement_timeout=1s"]},
    ],
)
def test_a_role_that_differs_is_converged(differs: dict[str, Any]) -> None:
    wanted = catalogue_roles(DATABASES, ROLES, DIGESTS)
    accounts = {role["name"]: account(role, **(differs if role["name"] == "app" else {})) for role in wanted}
    assert [role["name"] for role in role_drift(wanted, {"accounts": accounts})] == ["app"]
    del accounts["app"]
    assert [role["name"] for role in role_drift(wanted, {"accounts": accounts})] == ["app"]


@pytest.mark.parametrize(
    ("catalogue", "lacks"),
    [
        ({"app": {"owner": "app_owner", "limit": -1}}, False),
        ({"app": {"owner": "postgres", "limit": -1}}, True),
        ({"app": {"owner": "app_owner", "limit": 5}}, True),
        ({}, True),
    ],
)
def test_databases_that_are_lacking(catalogue: dict[str, Any], lacks: bool) -> None:
    assert bool(database_drift(DATABASES, {"catalogue": catalogue})) is lacks


@pytest.mark.parametrize(
    ("groups", "lacks"), [(["app_rw"], False), (["app_ro"], True), (["app_ro", "app_rw"], True), (None, True)]
)
def test_a_role_belongs_to_its_group_alone(groups: list[str] | None, lacks: bool) -> None:
    wanted = [{"member": "app", "group": "app_rw"}]
    assert bool(membership_drift(wanted, {"members": {"app": groups} if groups else None})) is lacks


def test_extensions_that_are_lacking() -> None:
    inside = {"app": {"extensions": ["plpgsql"]}, "postgres": {"extensions": ["pg_stat_statements"]}}
    assert extension_drift(extensions(DATABASES), inside) == [{"database": "app", "name": "pg_trgm"}]


def in_line() -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a server with all rights of the database app, which has two tables and a sequence."""
    both = ["CONNECT", "TEMPORARY"]
    state = {
        "catalogue": {
            "app": {"acl": {"app_owner": [*both, "CREATE"], "app_rw": both, "app_ro": both}},
            "postgres": {"acl": {"postgres": both, "pgbouncer": ["CONNECT"], "prometheus": ["CONNECT"]}},
        }
    }
    writing = ["SELECT", "INSERT", "UPDATE", "DELETE"]
    app = {
        "schema": {"app_rw": ["USAGE"], "app_ro": ["USAGE"]},
        "defaults": {
            "r": {"app_rw": writing, "app_ro": ["SELECT"]},
            "S": {"app_rw": ["USAGE", "SELECT", "UPDATE"], "app_ro": ["SELECT"]},
        },
        "totals": {"table": 2, "sequence": 1},
        "rights": {f"table app_rw {right}": 2 for right in writing}
        | {f"sequence app_rw {right}": 1 for right in ("USAGE", "SELECT", "UPDATE")}
        | {"table app_ro SELECT": 2, "sequence app_ro SELECT": 1},
    }
    return state, {"app": app, "postgres": {"schema": {}, "defaults": None, "totals": None, "rights": None}}


def test_rights_that_are_there_are_not_given_again() -> None:
    assert grant_drift(grants(DATABASES), *in_line()) == []


def test_an_empty_database_has_no_tables_to_give_rights_on() -> None:
    state, inside = in_line()
    inside["app"] |= {"totals": None, "rights": None}
    assert grant_drift(grants(DATABASES), state, inside) == []


def test_rights_that_are_lacking() -> None:
    state, inside = in_line()
    state["catalogue"]["app"]["acl"]["PUBLIC"] = ["CONNECT"]
    inside["app"]["rights"]["table app_ro SELECT"] = 1
    inside["app"]["defaults"]["S"] = None
    del inside["app"]["schema"]["app_rw"]
    found = {(entry["type"], entry["objs"], entry["roles"]) for entry in grant_drift(grants(DATABASES), state, inside)}
    assert found == {
        ("database", "app", "PUBLIC"),
        ("table", "ALL_IN_SCHEMA", "app_ro"),
        ("default_privs", "SEQUENCES", "app_rw"),
        ("default_privs", "SEQUENCES", "app_ro"),
        ("schema", "public", "app_rw,app_ro"),
    }


def test_a_database_made_a_moment_ago_lacks_everything() -> None:
    state, inside = in_line()
    del state["catalogue"]["app"]
    assert ("PUBLIC", "ALL") in {(e["roles"], e["privs"]) for e in grant_drift(grants(DATABASES), state, inside)}


def test_undeclared_objects_are_listed() -> None:
    state = {
        "catalogue": dict.fromkeys(["postgres", "app", "old"]),
        "accounts": dict.fromkeys(["postgres", "app", "app_owner", "app_rw", "app_ro", "pgbouncer", "anna"]),
    }
    assert undeclared(state, DATABASES, ROLES) == ["database old", "role anna"]


def converged() -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a server that has all that is declared."""
    state, database_states = in_line()
    state["accounts"] = {role["name"]: account(role) for role in catalogue_roles(DATABASES, ROLES, DIGESTS)}
    state["members"] = {entry["member"]: [entry["group"]] for entry in memberships(ROLES)}
    state["catalogue"]["app"] |= {"owner": "app_owner", "limit": -1}
    state["lookup"] = "digest"
    database_states["app"]["extensions"] = ["pg_trgm"]
    database_states["postgres"]["extensions"] = ["pg_stat_statements"]
    return state, database_states


def test_a_converged_server_has_no_drift() -> None:
    drift = catalogue_drift(DATABASES, *converged(), ROLES, DIGESTS, "digest")
    assert set(drift) == {"roles", "databases", "memberships", "extensions", "grants", "lookup", "missing"}
    assert [kind for kind, entries in drift.items() if entries] == []


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("roles", ("accounts", "app", "limit")),
        ("databases", ("catalogue", "app", "limit")),
        ("memberships", ("members", "app")),
        ("lookup", ("lookup",)),
    ],
)
def test_drift_of_one_kind_is_of_that_kind_alone(kind: str, path: tuple[str, ...]) -> None:
    state, database_states = converged()
    node: Any = state
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = 7
    drift = catalogue_drift(DATABASES, state, database_states, ROLES, DIGESTS, "digest")
    assert [name for name, entries in drift.items() if entries] == [kind]


def test_what_does_not_exist_yet_is_missing() -> None:
    """Also on a new server, whose state has neither accounts nor databases of the inventory."""
    state = {"accounts": {"postgres": {}}, "catalogue": {"postgres": {"acl": {}}}, "members": None, "lookup": None}
    drift = catalogue_drift(DATABASES, state, {}, ROLES, DIGESTS | {"standby": "of a verifier"}, "digest")
    assert {"app", "app_owner", "app_report", "standby", "pgbouncer"} <= set(drift["missing"])
    assert drift["missing"].count("app") == 2, "a role and a database"
    assert drift["lookup"] == ["digest"] and [entry["name"] for entry in drift["databases"]] == ["app"]
