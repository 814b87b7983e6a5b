"""Matches that wait for somebody's judgement, kept until they are judged; it judges none."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from vit4icd.service.database import Database
from vit4icd.service.decisions import pair_of, state_of

__all__ = ["Finding", "Findings", "Queue", "State", "finding_id"]

State = Literal["undecided", "accepted", "rejected", "never"]

_BINS = 100  # of the histogram that a threshold's live count is read from
_COLUMNS = "id, at, state, collection, query, reference, level, fields"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A match with what is needed to show it."""

    id: str
    collection: str
    query: str
    reference: str
    """SHA-256 of the contents."""
    level: float
    """What the queue is sorted by: the probability, or the score of a model without any."""
    fields: Mapping[str, Any]
    state: State = "undecided"
    at: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "id": self.id,
            "at": self.at,
            "state": self.state,
            "collection": self.collection,
            "level": self.level,
            **self.fields,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """A page of findings of one state, and how all of that state are spread."""

    findings: tuple[Finding, ...]
    n_all: int
    counts: tuple[int, ...]
    """Findings by level, in hundredths from 0 to 1."""
    sums: tuple[float, ...]
    """The sum of their levels, from which the share of copies is estimated."""


class Findings:
    """The table of findings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, findings: Iterable[Finding]) -> list[Finding]:
        """Keep findings, in place of earlier ones of the same pairs; return them as they stand."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        kept = []
        with self._database.writing() as connection:
            for finding in findings:
                pair = pair_of(finding.query, finding.reference)
                state = state_of(connection, pair, finding.reference)
                connection.execute(
                    "INSERT OR REPLACE INTO findings "
                    "(id, at, state, collection, pair, query, reference, level, fields) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        finding.id, at, state, finding.collection, pair, finding.query,
                        finding.reference, finding.level, json.dumps(dict(finding.fields)),
                    ),
                )  # fmt: skip
                kept.append(finding.id)
        return [found for id_ in kept if (found := self.get(id_)) is not None]

    def get(self, id_: str) -> Finding | None:
        """Return a finding."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM findings WHERE id = ?", (id_,))  # noqa: S608
        return _finding(rows[0]) if rows else None

    def queue(
        self, state: State, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> Queue:
        """Return the next findings of a state, the highest level first, after one of them."""
        level, id_ = after or (float("inf"), "")
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM findings WHERE state = ? "  # noqa: S608 - constants only
            "AND (level < ? OR (level = ? AND id > ?)) ORDER BY level DESC, id LIMIT ?",
            (state, level, level, id_, limit),
        )
        levels = [row[0] for row in self._database.read(
            "SELECT level FROM findings WHERE state = ?", (state,)
        )]  # fmt: skip
        counts, sums = _spread(levels)
        return Queue(
            findings=tuple(map(_finding, rows)), n_all=len(levels), counts=counts, sums=sums
        )

    def prune(self, *, keep: int) -> list[str]:
        """Forget the oldest undecided ones beyond so many; return their queries."""
        with self._database.writing() as connection:
            rows = connection.execute(
                "SELECT id, query FROM findings WHERE state = 'undecided' "
                "ORDER BY at DESC, id LIMIT -1 OFFSET ?",
                (keep,),
            ).fetchall()
            connection.executemany("DELETE FROM findings WHERE id = ?", [(id_,) for id_, _ in rows])
        return sorted({query for _, query in rows})


def finding_id(collection: str, query: str, reference_id: str) -> str:
    """Return the opaque name of a match; the same match has the same one."""
    text = "\0".join((collection, query, reference_id)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:32]


def _finding(row: Sequence[Any]) -> Finding:
    id_, at, state, collection, query, reference, level, fields = row
    return Finding(
        id=id_, at=at, state=state, collection=collection, query=query, reference=reference,
        level=level, fields=json.loads(fields),
    )  # fmt: skip


def _spread(levels: Sequence[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    values = np.clip(np.array(levels, np.float64), 0.0, 1.0)
    bins = np.minimum((values * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    sums = np.bincount(bins, weights=values, minlength=_BINS)
    return tuple(counts.tolist()), tuple(sums.round(6).tolist())
