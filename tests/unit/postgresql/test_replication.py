"""Replication: settings, slots, findings, and the promotion of a standby."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.postgresql import (
    PostgresqlError,
    catalogue_roles,
    grants,
    hba,
    role_drift,
    undeclared,
)
from ansible_collections.slipway.platform.plugins.module_utils.postgresql_replication import (
    ahead,
    conninfo,
    primary,
    promotion,
    settings,
    slot,
    slot_drift,
    standby_findings,
)

FILES = {"authority": "/ca.crt", "password": "/pgpass"}
PEERS = {"db-2": "10.1.1.72"}
STREAMING = {"name": "db-2", "state": "streaming", "sync": "async"}


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "physical", "active": True, "wal_status": "reserved"} | more


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"db-1": {}, "db-2": {"postgresql_standby": True}}, "db-1"),
        ({"db-1": {"postgresql_standby": True}, "db-2": {"postgresql_standby": False}}, "db-2"),
        ({"db-1": {}}, "db-1"),
    ],
)
def test_the_host_that_is_no_standby_is_the_primary(flags: dict[str, Any], expected: str) -> None:
    assert primary(flags, list(flags)) == expected


@pytest.mark.parametrize(
    "flags", [{"db-1": {}, "db-2": {}}, {"db-1": {"postgresql_standby": True}, "db-2": {"postgresql_standby": True}}]
)
def test_two_primaries_or_none_are_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(PostgresqlError, match="exactly one host"):
        primary(flags, list(flags))


def test_a_database_on_one_host_has_no_settings_of_these() -> None:
    assert settings("db-1", {}, "", 100, FILES, synchronous=True) == {}


def test_a_standby_follows_by_tls_and_a_file_with_its_password() -> None:
    found = settings("db-2", {"db-1": "10.1.1.71"}, "db-1", 100, FILES)
    words = dict(word.split("=", 1) for word in found["primary_conninfo"].split())
    assert words["host"] == "db-1" and words["hostaddr"] == "10.1.1.71"
    assert words["sslmode"] == "verify-full" and words["ssl_min_protocol_version"] == "TLSv1.3"
    assert words["channel_binding"] == "require" and words["application_name"] == "db-2"
    assert words["passfile"] == "/pgpass" and "password" not in words
    assert found["primary_slot_name"] == "slipway_db_2"
    assert "synchronous_standby_names" not in found


@pytest.mark.parametrize(
    ("volume", "keep", "expected"), [(100, 0, "20480MB"), (4, 0, "1024MB"), (100, 8, "8192MB"), (10, 5, "5120MB")]
)
def test_a_slot_keeps_no_more_than_the_volume_bears(volume: int, keep: int, expected: str) -> None:
    assert settings("db-1", PEERS, "", volume, FILES, slot_keep_gb=keep)["max_slot_wal_keep_size"] == expected


def test_a_slot_that_would_fill_the_volume_is_refused() -> None:
    with pytest.raises(PostgresqlError, match="may fill the volume of 10 GB"):
        settings("db-1", PEERS, "", 10, FILES, slot_keep_gb=6)


def test_an_unknown_upstream_is_rejected() -> None:
    with pytest.raises(PostgresqlError, match="cannot stream from db-9"):
        settings("db-1", PEERS, "db-9", 100, FILES)


def test_writes_wait_for_a_standby_only_where_that_is_wanted() -> None:
    assert "synchronous_standby_names" not in settings("db-1", PEERS, "", 100, FILES)
    found = settings("db-1", {"db-2": "a", "db-3": "b"}, "", 100, FILES, synchronous=True)
    assert found["synchronous_standby_names"] == 'ANY 1 ("db-2", "db-3")'


def test_a_connection_string_has_a_database_when_given() -> None:
    assert "dbname" not in conninfo("db-1", "10.1.1.71", FILES)
    assert conninfo("db-1", "10.1.1.71", FILES, database="postgres").endswith("dbname=postgres")


def test_exactly_the_peers_may_follow() -> None:
    rows = [row for row in hba([], [], "10.1.1.71", PEERS) if row[2] == "standby"]
    assert rows == [
        ["hostssl", "replication", "standby", "10.1.1.72/32", "scram-sha-256"],
        ["hostssl", "postgres", "standby", "10.1.1.72/32", "scram-sha-256"],
    ]
    assert [row for row in hba([], [], "10.1.1.71") if row[2] == "standby"] == []


def test_the_account_may_replicate_and_nothing_else() -> None:
    (role,) = (role for role in catalogue_roles([], [], {"standby": "of a verifier"}) if role["name"] == "standby")
    assert role["flags"] == "LOGIN,NOSUPERUSER,NOCREATEDB,NOCREATEROLE,REPLICATION,NOBYPASSRLS,INHERIT"
    assert role["verifier"] == "of a verifier"
    assert "standby" not in {role["name"] for role in catalogue_roles([], [], {})}
    assert grants([], standby=True)[1]["roles"] == "pgbouncer,prometheus,standby"


def test_a_role_that_may_replicate_and_should_not_differs() -> None:
    (wanted,) = (role for role in catalogue_roles([], [], {}) if role["name"] == "pgbouncer")
    there = {"login": True, "inherit": True, "limit": 10, "special": False, "configuration": [], "verifier": ""}
    assert role_drift([wanted], {"accounts": {"pgbouncer": {**there, "replication": False}}}) == []
    assert role_drift([wanted], {"accounts": {"pgbouncer": {**there, "replication": True}}}) == [wanted]


def test_the_account_is_declared_while_there_are_standbys() -> None:
    state = {"accounts": {"standby": {}}, "catalogue": {}}
    assert undeclared(state, [], [], standby=True) == []
    assert undeclared(state, [], []) == ["role standby"]


@pytest.mark.parametrize(
    ("slots", "standby", "expected"),
    [
        ([], False, [("slipway_db_2", "present")]),
        ([entry("slipway_db_2")], False, []),
        ([entry("slipway_db_2", active=False)], False, []),
        (
            [entry("slipway_db_2", active=False, wal_status="lost")],
            False,
            [("slipway_db_2", "absent"), ("slipway_db_2", "present")],
        ),
        # what a host kept from its time as primary, or for one that has gone
        ([entry("slipway_db_2", active=False)], True, [("slipway_db_2", "absent")]),
        (
            [entry("slipway_db_2"), entry("slipway_db_3", active=False)],
            False,
            [("slipway_db_3", "absent")],
        ),
        # somebody else's
        ([entry("slipway_db_2"), entry("analytics", active=False)], False, []),
        ([entry("slipway_db_2"), entry("slipway_x", active=False, type="logical")], False, []),
    ],
)
def test_slots_are_for_the_standbys_and_for_nobody_else(
    slots: list[dict[str, Any]], standby: bool, expected: list[tuple[str, str]]
) -> None:
    found = slot_drift(PEERS, {"slots": slots}, standby)
    assert [(change["name"], change["state"]) for change in found] == expected


def test_a_slot_has_no_dashes() -> None:
    assert slot("prod-postgresql-2") == "slipway_prod_postgresql_2"


@pytest.mark.parametrize(
    ("standbys", "waits", "wanted", "message"),
    [
        ([STREAMING], False, False, ""),
        ([{**STREAMING, "sync": "quorum"}], True, True, ""),
        ([STREAMING], False, True, "synchronous replication is not configured yet"),
        ([], False, False, "does not stream"),
        ([{**STREAMING, "state": "catchup"}], False, False, "does not stream"),
        ([], True, True, "writes block"),
        ([{**STREAMING, "state": "catchup"}], True, True, "set postgresql_synchronous to false"),
    ],
)
def test_findings_about_standbys(standbys: list[Any], waits: bool, wanted: bool, message: str) -> None:
    found = standby_findings(PEERS, {"standbys": standbys, "synchronous": waits}, wanted)
    assert bool(found) is bool(message)
    assert message in " ".join(found)


ON, OFF = {"known": True, "listed": True, "status": "running"}, {"known": True, "listed": True, "status": "off"}
GONE, SILENT = {"known": True, "listed": False}, {"known": False, "reason": "timed out"}
RECOVERING = {"recovering": True, "received": "0/3000060"}


@pytest.mark.parametrize(
    ("state", "server", "by_hand", "action", "fence", "message"),
    [
        (RECOVERING, ON, "", "promote", True, ""),
        (RECOVERING, OFF, "", "promote", False, ""),
        (RECOVERING, GONE, "", "promote", False, ""),
        (RECOVERING, SILENT, "", "reject", False, "does not list it (timed out)"),
        (RECOVERING, SILENT, "db-1", "promote", False, ""),
        (RECOVERING, SILENT, "db-2", "reject", False, "cannot be fenced"),
        (RECOVERING, {**ON, "status": "stopping"}, "", "promote", True, ""),
        ({}, ON, "", "reject", True, "does not answer"),
        ({"recovering": False}, ON, "", "finish", False, ""),
    ],
)  # fmt: skip
def test_a_standby_is_promoted_only_over_a_fenced_primary(
    state: dict[str, Any], server: dict[str, Any], by_hand: str, action: str, fence: bool, message: str
) -> None:
    found = promotion("db-2", "db-1", state, server, by_hand)
    assert (found["action"], found["fence"]) == (action, fence)
    assert bool(found["faults"]) is bool(message)
    assert message in " ".join(found["faults"])
    assert found["steps"]


@pytest.mark.parametrize(
    ("received", "message"),
    [
        ({"db-2": "0/3000060", "db-3": "0/3000060"}, ""),
        ({"db-2": "1/0", "db-3": "0/FFFFFFFF"}, ""),
        ({"db-2": "0/3000060", "db-3": "0/3000100"}, "db-3 has WAL up to 0/3000100, db-2 up to 0/3000060"),
        ({"db-2": "0/3000060", "db-3": ""}, "the WAL position of db-3 is unknown"),
        ({"db-2": "", "db-3": "0/3000060"}, "the WAL position of db-2 is unknown"),
    ],
)
def test_the_standby_that_has_most_is_known(received: dict[str, str], message: str) -> None:
    found = ahead("db-2", received)
    assert bool(found) is bool(message) and message in " ".join(found)
