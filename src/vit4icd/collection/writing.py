"""Rows on their way into a table, a commit at a time, beside what others store meanwhile."""

import time
from contextlib import suppress

import lance
import pyarrow as pa

from vit4icd.collection.blocks import files_of
from vit4icd.collection.descriptors import ids_having
from vit4icd.collection.records import Record, decode, encode
from vit4icd.collection.rows import Row, keeping, to_table
from vit4icd.collection.table import Table
from vit4icd.errors import StoreError

__all__ = ["Writer"]

_COMMIT_ROWS, _COMMIT_S = 256, 3.0  # rows, or seconds of work, that one commit holds
_COMPACT_EVERY = 32  # commits


class Writer:
    """The rows of one run."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows: dict[str, Row] = {}
        self._touched: list[Record] = []
        self._taken: set[str] = set()
        self._stored: dict[str, str | None] = {}
        self._holders: dict[str, str | None] = {}  # of the rows that wait
        self._began, self._n_commits = time.monotonic(), 0

    def add(self, row: Row) -> bool:
        """Take a row; False when this run has taken one of the same id already."""
        if row.record.id in self._taken:
            return False
        self._taken.add(row.record.id)
        self._rows[row.record.id] = row
        return True

    def touch(self, record: Record) -> None:
        """Take the new stamp of a row that is there, so that its file need not be read again."""
        self._touched.append(record)

    def flush_if_due(self) -> None:
        """Commit what waits, if it is enough or has waited for long."""
        n_waiting = max(len(self._rows), len(self._touched))
        if n_waiting >= _COMMIT_ROWS or time.monotonic() - self._began > _COMMIT_S:
            self.flush()

    def flush(self) -> None:
        """Commit what waits."""
        if self._rows:
            rows = to_table(list(self._rows.values()), self._table.schema)
            self._table.upsert(rows, beside=self._with_kept)
            self._stored |= self._holders
            self._rows.clear()
            self._count()
        if self._touched:
            self._table.restamp(self._touched)
            self._touched.clear()
            self._count()
        self._began = time.monotonic()

    def pop_stored(self) -> dict[str, str | None]:
        """Return the ids stored since it was asked last; with each, another of the same bytes."""
        stored, self._stored = self._stored, {}
        return stored

    def tidy(self) -> None:
        """Join the small files that many commits leave, once there are many of them."""
        if len(files_of(self._table)) > 2 * _COMPACT_EVERY:
            self._compact()

    def _with_kept(self, data: lance.LanceDataset, rows: pa.Table) -> pa.Table:
        """Return rows with the parts and local features that others have stored meanwhile.

        Who else holds the same bytes is noted by the way.
        """
        contents = [*map(_content, self._rows.values())]
        columns = ["id", "sha256", "features_check", "parts_check"]
        held = self._table.find(rows["id"].to_pylist(), columns, contents=contents, data=data)
        self._holders = self._same_bytes(held)
        lacking = {id_ for id_, row in self._rows.items() if row.parts is None}
        wanted = lacking & ids_having(held, "parts_check")
        lacking = {id_ for id_, row in self._rows.items() if row.features is None}
        wanted |= lacking & ids_having(held, "features_check")
        if not wanted:
            return rows
        kept = self._table.find([*map(encode, wanted)], rows.column_names, data=data)
        return keeping(rows, kept)

    def _same_bytes(self, held: pa.Table) -> dict[str, str | None]:
        """Return the ids that wait, and with each another id that has the same bytes, if any."""
        ids, contents = map(decode, held["id"].to_pylist()), held["sha256"].to_pylist()
        holders = zip(contents, ids, strict=True)
        first = {content: id_ for content, id_ in holders if id_ not in self._rows}
        holder = {id_: first.setdefault(_content(row), id_) for id_, row in self._rows.items()}
        return {id_: None if other == id_ else other for id_, other in holder.items()}

    def _count(self) -> None:
        self._n_commits += 1
        if self._n_commits % _COMPACT_EVERY == 0:
            self._compact()

    def _compact(self) -> None:
        with suppress(StoreError):  # what was added is stored, whatever becomes of old files
            self._table.compact()


def _content(row: Row) -> bytes:
    return bytes.fromhex(row.record.sha256)
