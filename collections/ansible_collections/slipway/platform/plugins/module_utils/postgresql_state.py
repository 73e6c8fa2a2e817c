"""Reads the state of a PostgreSQL server and of its databases in one run of psql."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from .postgresql import NAME, PostgresqlError

Run = Callable[[Sequence[str], str], tuple[int, str, str]]
"""Runs a command with a standard input: exit code, output, errors."""
PSQL = (
    "psql", "--username=postgres", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"
)  # fmt: skip


def script(server_query: str, database_query: str, databases: Sequence[str]) -> str:
    """psql's input: a JSON list with the state of the server, then that of each of the databases that exist."""
    lines = ["\\echo [", f"{server_query};"]
    for name in databases:
        if not NAME.fullmatch(name):
            raise PostgresqlError(f"{name!r} is not a valid name of a database.")
        lines += [
            f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') AS present \\gset",
            *("\\if :present", f"\\connect {name}", "\\echo ,", f"{database_query};", "\\endif"),
        ]
    return "\n".join([*lines, "\\echo ]"]) + "\n"


def read(
    run: Run, server_query: str, database_query: str, databases: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The state of the server, and of each database by its name."""
    code, output, errors = run(PSQL, script(server_query, database_query, databases))
    if code != 0:
        raise PostgresqlError(f"psql failed ({code}): {' '.join(errors.split())[:500] or 'no output'}")
    server, *found = json.loads(output)
    return server, {state["database"]: state for state in found}
