"""The state of a server, read by one psql, and what differs from the declaration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.postgresql import PostgresqlError
from ansible_collections.slipway.platform.plugins.module_utils.postgresql_state import PSQL, Run, read, script
from ansible_collections.slipway.platform.plugins.modules.postgresql_state import result

SERVER: dict[str, Any] = {"accounts": {"postgres": {}, "anna": {}}, "catalogue": {"postgres": {"acl": {}}, "old": {}}}
GIVEN: dict[str, Any] = {
    "server_query": "SELECT server",
    "database_query": "SELECT database",
    "standby": False,
    "databases": [{"name": "app"}],
    "roles": [{"name": "app", "database": "app"}],
    "verifier_digests": {"app": "a"},
    "lookup_digest": "digest",
}


def answering(*states: Any, code: int = 0, errors: str = "") -> tuple[Run, list[str]]:
    """A psql that prints the states, and the inputs that it got."""
    inputs: list[str] = []

    def run(command: Sequence[str], text: str) -> tuple[int, str, str]:
        assert tuple(command) == PSQL
        inputs.append(text)
        return code, "\n,\n".join(json.dumps(state) for state in states).join("[]"), errors

    return run, inputs


def test_each_database_that_exists_is_read_by_a_connection_of_its_own() -> None:
    lines = script("SELECT 1", "SELECT 2", ["postgres", "app"]).splitlines()
    assert lines[:2] == ["\\echo [", "SELECT 1;"] and lines[-1] == "\\echo ]"
    for name in ("postgres", "app"):
        start = lines.index(f"\\connect {name}")
        assert lines[start - 2 : start] == [
            f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') AS present \\gset",
            "\\if :present",
        ]
        assert lines[start + 1 : start + 4] == ["\\echo ,", "SELECT 2;", "\\endif"]


@pytest.mark.parametrize("name", ["app'; DROP TABLE x; --", "App", "", "app\n\\! id"])
def test_a_name_that_is_none_is_not_sent_to_psql(name: str) -> None:
    with pytest.raises(PostgresqlError, match="not a valid name of a database"):
        script("SELECT 1", "SELECT 2", [name])


def test_the_states_of_databases_have_their_names() -> None:
    run, _ = answering(SERVER, {"database": "postgres"}, {"database": "app", "extensions": []})
    assert read(run, "a", "b", ["postgres", "app"]) == (
        SERVER,
        {"postgres": {"database": "postgres"}, "app": {"database": "app", "extensions": []}},
    )


def test_a_server_that_does_not_answer_is_a_fault_with_its_reason() -> None:
    run, _ = answering(code=2, errors="psql: error: connection to server failed:\n  No such file")
    with pytest.raises(PostgresqlError, match=r"psql failed \(2\): psql: error: connection .* failed: No such file"):
        read(run, "a", "b", [])


def test_a_primary_is_compared_with_its_declaration() -> None:
    run, _ = answering(SERVER, {"database": "postgres", "extensions": ["pg_stat_statements"]})
    found = result(run, GIVEN)
    assert found["state"] == SERVER
    assert [entry["name"] for entry in found["drift"]["databases"]] == ["app"]
    assert "app" in found["drift"]["missing"] and found["drift"]["lookup"] == ["digest"]
    assert found["undeclared"] == ["database old", "role anna"]


def test_the_databases_of_a_standby_are_not_read() -> None:
    run, inputs = answering(SERVER | {"accounts": {"standby": {}, "anna": {}}})
    found = result(run, GIVEN | {"standby": True})
    assert found["drift"] == {} and found["undeclared"] == ["database old", "role anna"]
    assert "connect" not in inputs[0]
