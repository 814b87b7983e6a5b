"""One SQLite file for what people decide and what waits for them; it knows no rules."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit4icd.errors import FormatError, StoreError

__all__ = ["Database"]

_WAIT_S = 30.0  # for other processes that write
_SCHEMA_1 = """
CREATE TABLE decisions (
  number INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('accept', 'reject', 'never', 'undo')),
  pair TEXT NOT NULL,
  query TEXT NOT NULL,
  reference TEXT NOT NULL,
  fields TEXT NOT NULL
);
CREATE INDEX decisions_of_pair ON decisions (pair, number);
CREATE INDEX decisions_of_query ON decisions (query);
CREATE INDEX decisions_of_reference ON decisions (reference);
CREATE TRIGGER decisions_stay BEFORE DELETE ON decisions
  BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END;
CREATE TRIGGER decisions_keep BEFORE UPDATE ON decisions
  BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END;
CREATE TABLE findings (
  id TEXT PRIMARY KEY,
  at TEXT NOT NULL,
  state TEXT NOT NULL,
  collection TEXT NOT NULL,
  pair TEXT NOT NULL,
  query TEXT NOT NULL,
  reference TEXT NOT NULL,
  level REAL NOT NULL,
  fields TEXT NOT NULL
);
CREATE INDEX findings_by_level ON findings (state, level DESC, id);
CREATE INDEX findings_of_pair ON findings (pair);
CREATE INDEX findings_of_query ON findings (query);
CREATE INDEX findings_of_reference ON findings (reference);
CREATE TABLE holders (
  holder BLOB PRIMARY KEY,
  sha256 TEXT NOT NULL
);
CREATE INDEX holders_of_picture ON holders (sha256);
CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  at TEXT NOT NULL,
  state TEXT NOT NULL,
  collection TEXT NOT NULL,
  fields TEXT NOT NULL
);
"""
_SCHEMA_2 = """
ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN beat REAL NOT NULL DEFAULT 0;
"""
_SCHEMA_3 = """
ALTER TABLE findings ADD COLUMN kind TEXT NOT NULL DEFAULT 'search';
ALTER TABLE findings ADD COLUMN place TEXT NOT NULL DEFAULT '';
UPDATE findings SET place = printf('%012.9f %s', 10 - level, id);
DROP INDEX findings_by_level;
CREATE INDEX findings_by_place ON findings (state, place);
"""
_STEPS = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3)  # each makes of a file one of the next version
_VERSION = len(_STEPS)


class Database:
    """The file, open in one connection that threads take turns with.

    What a transaction wrote is on the disk when it ends; several processes may use one file.

    Raises:
        StoreError: the file cannot be opened, read or written, as on a full disk.
        FormatError: it is no such file, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise FormatError(f"{path} is damaged, or no file of the service: {error}") from error
        except BaseException:
            self._connection.close()
            raise

    def read(
        self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Return the rows that a statement selects."""
        with self._lock, self._explained():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run statements as one: all of them are kept, or none."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of trouble around the file, such as a full disk or a long lock, where it is."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self._path} cannot be used: {error}") from error

    def _prepare(self) -> None:
        with self._explained():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
        with self.writing():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise FormatError(
                    f"{self._path} has format {version}; this version reads up to {_VERSION}: "
                    "upgrade vit4icd"
                )
            for statement in _statements("".join(_STEPS[version:])):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")


def _statements(script: str) -> Iterator[str]:
    text = ""
    for line in script.strip().splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""
