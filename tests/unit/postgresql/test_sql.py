"""The SQL files of the roles: no template in them, and lists that agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.static.repository import REPOSITORY, load

ROLES = tuple(REPOSITORY / "roles" / name for name in ("postgresql", "postgresql_replication", "verify"))
FILES = [path for role in ROLES for path in sorted((role / "files/sql").glob("*.sql"))]
VARIABLES = load(REPOSITORY / "roles/postgresql_replication/vars/main.yml")


def functions(name: str) -> set[str]:
    """Signatures of functions in an SQL file."""
    (text,) = (path.read_text() for path in FILES if path.name == name)
    return set(re.findall(r"'(pg_\w+\((?:text|bigint|boolean|,)+\))'", text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_sql_file_has_no_template(path: Path) -> None:
    """A value belongs into a psql variable; the lookup of the file does not render templates."""
    assert not re.search(r"\{\{|\{%", path.read_text())


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_sql_file_is_used(role: Path) -> None:
    texts = [path.read_text() for folder in ("tasks", "vars") for path in (role / folder).glob("*.yml")]
    files = {path.name for path in FILES if path.is_relative_to(role)}
    assert files and files == set(re.findall(r"'sql/([\w.]+)'", " ".join(texts)))


def test_the_rewind_functions_that_are_granted_are_those_that_are_counted() -> None:
    granted = functions("grant_rewind.sql")
    assert granted == functions("state.sql")
    assert f"rewind_grants < {len(granted)}" in VARIABLES["__postgresql_replication_rewind_grants_missing"]


def test_no_comment_is_in_the_text_that_becomes_one_line() -> None:
    assert "--" not in (REPOSITORY / "roles/postgresql/files/sql/pooler_lookup.sql").read_text()
