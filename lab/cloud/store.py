"""SQLite, one transaction per request.

The daemon is the only writer, so all objects are also held in memory and reads never access the file. A transaction
changes the memory and saves the previous values; its end writes all changed objects in one SQLite transaction with
`synchronous=FULL` before the response is sent. After an error the memory is restored from the previous values.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, cast

from pydantic import TypeAdapter

from lab.cloud.domain.objects import KINDS, Job, Object

FIRST_ID = 100_000
"""Ids have a realistic length and are short enough for the names of namespaces and links."""

RENAMED_WORK = {"sync_leg": "sync_attachment"}
"""Work of jobs in a database of an older version → its present name."""

Clock = Callable[[], float]
"""Seconds since the epoch."""


class Transaction:
    """A consistent view of all objects, and the only way to change them."""

    def __init__(self, tables: dict[type[Object], dict[int, Object]], next_id: int, now: float) -> None:
        self._tables = tables
        self._before: dict[tuple[type[Object], int], Object | None] = {}
        self.next_id = next_id
        self.time = now
        self.now = datetime.fromtimestamp(int(now), UTC).isoformat()
        self.jobs: list[Job] = []
        """Jobs that this transaction creates, in order."""

    def new_id(self) -> int:
        """Ids are one sequence over all kinds and are never reused."""
        self.next_id += 1
        return self.next_id - 1

    def get[T: Object](self, kind: type[T], id: int | None) -> T | None:
        return cast("T | None", self._tables[kind].get(id)) if id is not None else None

    def all[T: Object](self, kind: type[T]) -> list[T]:
        """All objects of a kind, oldest first."""
        return cast("list[T]", list(self._tables[kind].values()))

    def put[T: Object](self, obj: T) -> T:
        self._save_previous(obj)
        self._tables[type(obj)][obj.id] = obj
        if isinstance(obj, Job):
            self.jobs.append(obj)
        return obj

    def drop(self, obj: Object) -> None:
        self._save_previous(obj)
        self._tables[type(obj)].pop(obj.id, None)

    def _save_previous(self, obj: Object) -> None:
        self._before.setdefault((type(obj), obj.id), self._tables[type(obj)].get(obj.id))

    def changes(self) -> Iterator[tuple[type[Object], int, Object | None]]:
        for kind, id in self._before:
            yield kind, id, self._tables[kind].get(id)

    def undo(self) -> None:
        for (kind, id), old in self._before.items():
            table = self._tables[kind]
            if old is None:
                table.pop(id, None)
            elif id in table:
                table[id] = old
            else:
                table[id] = old
                self._tables[kind] = dict(sorted(table.items()))


class Store:
    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self.committed: Callable[[list[Job]], None] = lambda jobs: None
        """Called with the jobs of each transaction after it is committed, in the order of the transactions."""
        self._adapters: dict[type[Object], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in KINDS}
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file contains user data, and passwords of hosts that are being created.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=FULL")
        self._sql.execute(
            "CREATE TABLE IF NOT EXISTS object (kind TEXT, id INTEGER, body TEXT NOT NULL, PRIMARY KEY (kind, id)) "
            "WITHOUT ROWID"
        )
        self._sql.execute("CREATE TABLE IF NOT EXISTS sequence (next_id INTEGER NOT NULL)")
        self._load()

    def _load(self) -> None:
        row = self._sql.execute("SELECT next_id FROM sequence").fetchone()
        if row is None:
            self._sql.execute("INSERT INTO sequence VALUES (?)", (FIRST_ID,))
        self._next_id: int = row[0] if row else FIRST_ID
        self._tables: dict[type[Object], dict[int, Object]] = {kind: {} for kind in KINDS}
        kinds = {kind.TYPE: kind for kind in KINDS}
        for name, id, body in self._sql.execute("SELECT kind, id, body FROM object ORDER BY id"):
            kind = kinds[name]
            obj = self._adapters[kind].validate_json(body)
            if isinstance(obj, Job):
                obj = replace(obj, work=RENAMED_WORK.get(obj.work, obj.work))
            self._tables[kind][id] = obj

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All changes are written to disk, or none."""
        with self._lock:
            tx = Transaction(self._tables, self._next_id, self._clock())
            try:
                yield tx
                self._write(tx)
            except BaseException:
                tx.undo()
                raise
            self._next_id = tx.next_id
            self.committed(tx.jobs)

    def _write(self, tx: Transaction) -> None:
        changed, deleted = [], []
        for kind, id, obj in tx.changes():
            if obj is None:
                deleted.append((kind.TYPE, id))
            else:
                changed.append((kind.TYPE, id, self._adapters[kind].dump_json(obj).decode()))
        if not changed and not deleted and tx.next_id == self._next_id:
            return
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            self._sql.executemany("INSERT OR REPLACE INTO object VALUES (?, ?, ?)", changed)
            self._sql.executemany("DELETE FROM object WHERE kind = ? AND id = ?", deleted)
            self._sql.execute("UPDATE sequence SET next_id = ?", (tx.next_id,))
            self._sql.execute("COMMIT")
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise

    def close(self) -> None:
        with self._lock:
            self._sql.close()
