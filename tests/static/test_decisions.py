"""Decision records are numbered without a hole, and short."""

from __future__ import annotations

from tests.static.repository import REPOSITORY

LINES = 40


def test_decisions_are_numbered_and_short() -> None:
    records = sorted((REPOSITORY / "docs/adr").glob("*.md"))
    assert [record.name[:5] for record in records] == [f"{number:04}-" for number in range(1, len(records) + 1)]
    assert {record.name for record in records if len(record.read_text().splitlines()) > LINES} == set()
    for number, record in enumerate(records, 1):
        assert record.read_text().startswith(f"# {number:04}: "), record.name
