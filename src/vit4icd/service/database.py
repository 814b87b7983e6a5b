"""One SQLite file for what people decide and what waits for them; it knows no rules."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from vit4icd.errors import FormatError, StoreError

__all__ = ["DATABASE", "Database", "copy_database"]

DATABASE = "review.sqlite"
"""What the file is called in a service's folder."""

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
        FormatError: it is no such file, damaged, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        with _explained(path):
            self._connection = sqlite3.connect(
                path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def read(
        self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Return the rows that a statement selects."""
        with self._lock, _explained(self._path):
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run statements as one: all of them are kept, or none."""
        with self._lock, _explained(self._path):
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

    def _prepare(self) -> None:
        with _explained(self._path):
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            _require_whole(self._connection)
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


def copy_database(path: Path, out: Path) -> None:
    """Write the file as it is between two transactions; others may use it meanwhile.

    Raises:
        StoreError: one of the files cannot be opened, read or written.
        FormatError: it is no such file, or damaged.
    """
    address = f"{path.absolute().as_uri()}?mode=ro"
    with _explained(out), closing(sqlite3.connect(out)) as copy:
        with _explained(path), closing(sqlite3.connect(address, _WAIT_S, uri=True)) as whole:
            _require_whole(whole)
            whole.backup(copy)
        _require_whole(copy)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of trouble with the file, such as damage, a full disk or a long lock, where it is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # a rule of the tables was broken
            raise
        raise FormatError(
            f"{path} is damaged, or no file of the service: {error}; put a copy in the place of "
            "its folder"
        ) from error


def _require_whole(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(str(found).splitlines()[-1])


def _statements(script: str) -> Iterator[str]:
    text = ""
    for line in script.strip().splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""
