"""Pairs that wait for somebody's judgement, kept until they are judged; it judges none."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from vit4icd.service.database import Database
from vit4icd.service.decisions import State, pair_of, state_of

__all__ = ["Finding", "Findings", "Kind", "Queue", "State", "finding_id", "group_id", "place_of"]

Kind = Literal["search", "group"]
"""search: a query's match; group: two pictures of one group of copies within a collection."""

_BINS = 100  # of the histogram that a threshold's live count is read from
_COLUMNS = "id, at, state, collection, query, reference, level, kind, place, fields"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A pair with what is needed to show it."""

    id: str
    collection: str
    query: str
    reference: str
    """SHA-256 of the contents."""
    level: float
    """The probability, or the score of a model without any."""
    fields: Mapping[str, Any]
    kind: Kind = "search"
    place: str = ""
    """In the queue; see :func:`place_of`."""
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
            "kind": self.kind,
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
    """The table of findings.

    Of more than ``keep`` undecided ones the oldest are forgotten; ``on_forgotten`` is told the
    pictures that are needed less.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep: int = 20_000,
        on_forgotten: Callable[[str], None] = lambda picture: None,
    ) -> None:
        self._database, self._keep, self._on_forgotten = database, keep, on_forgotten

    def put(self, findings: Iterable[Finding]) -> dict[str, State]:
        """Keep findings, in place of earlier ones of the same pairs; return their states by id."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        states: dict[str, State] = {}
        with self._database.writing() as connection:
            for finding in findings:
                pair = pair_of(finding.query, finding.reference)
                state = state_of(connection, finding.kind, finding.query, finding.reference)
                place = finding.place or place_of(finding.level, finding.id)
                connection.execute(
                    "INSERT OR REPLACE INTO findings "
                    "(id, at, state, collection, pair, query, reference, level, kind, place, "
                    "fields) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        finding.id, at, state, finding.collection, pair, finding.query,
                        finding.reference, finding.level, finding.kind, place,
                        json.dumps(dict(finding.fields)),
                    ),
                )  # fmt: skip
                states[finding.id] = state
        if states:
            self._prune()
        return states

    def get(self, id_: str) -> Finding | None:
        """Return a finding."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM findings WHERE id = ?", (id_,))  # noqa: S608
        return _finding(rows[0]) if rows else None

    def forget(self, collection: str, id_: str, sha256: str) -> None:
        """Drop the undecided findings of a picture that an id of a collection has no more."""
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM findings WHERE "  # noqa: S608 - constants only
            "state = 'undecided' AND collection = :collection "
            "AND (reference = :it OR (query = :it AND kind = 'group'))",
            {"collection": collection, "it": sha256},
        )
        self.drop(one for one in map(_finding, rows) if _is_about(one, id_, sha256))

    def drop(self, findings: Iterable[Finding]) -> None:
        """Keep findings no more, unless somebody has judged them."""
        dropped = list(findings)
        if not dropped:
            return
        with self._database.writing() as connection:
            connection.executemany(
                "DELETE FROM findings WHERE id = ? AND state = 'undecided'",
                [(one.id,) for one in dropped],
            )
        for picture in sorted({it for one in dropped for it in (one.query, one.reference)}):
            self._on_forgotten(picture)

    @property
    def n_undecided(self) -> int:
        """How many wait for judgement."""
        statement = "SELECT count(*) FROM findings WHERE state = 'undecided'"
        return int(self._database.read(statement)[0][0])

    def queue(
        self, state: State, *, kind: Kind | None = None, after: str = "", limit: int = 100
    ) -> Queue:
        """Return the next findings of a state after a place, the highest level first.

        The pairs of one group stand together.
        """
        which, values = "state = :state AND (:kind IS NULL OR kind = :kind)", {
            "state": state, "kind": kind, "after": after, "limit": limit,
        }  # fmt: skip
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM findings WHERE {which} "  # noqa: S608 - constants only
            "AND place > :after ORDER BY place LIMIT :limit",
            values,
        )
        levels = [row[0] for row in self._database.read(
            f"SELECT level FROM findings WHERE {which}", values  # noqa: S608 - constants only
        )]  # fmt: skip
        counts, sums = _spread(levels)
        return Queue(
            findings=tuple(map(_finding, rows)), n_all=len(levels), counts=counts, sums=sums
        )

    def _prune(self) -> None:
        with self._database.writing() as connection:
            rows = connection.execute(
                "SELECT id, query FROM findings WHERE state = 'undecided' "
                "ORDER BY at DESC, id LIMIT -1 OFFSET ?",
                (self._keep,),
            ).fetchall()
            connection.executemany("DELETE FROM findings WHERE id = ?", [(id_,) for id_, _ in rows])
        for query in sorted({query for _, query in rows}):
            self._on_forgotten(query)


def finding_id(collection: str, query: str, reference_id: str) -> str:
    """Return the opaque name of a match; the same match has the same one."""
    text = "\0".join((collection, query, reference_id)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:32]


def group_id(collection: str, first: str, first_id: str) -> str:
    """Return the opaque name of a group, by its largest picture."""
    return finding_id(collection, first, first_id)[:16]


def place_of(level: float, id_: str, *, group: tuple[float, str] | None = None) -> str:
    """Return what the queue is sorted by: the level, the highest first, then the id.

    Pairs of a group (its highest level, its name) stand together, where the best of them would.

    Example:
        >>> places = [place_of(0.9, "b"), place_of(0.5, "d", group=(0.95, "g")), place_of(0.1, "a")]
        >>> sorted(places) == [places[1], places[0], places[2]]
        True
    """
    own = f"{10 - level:012.9f} {id_}"
    return own if group is None else f"{10 - group[0]:012.9f} {group[1]} {own}"


def _is_about(finding: Finding, id_: str, sha256: str) -> bool:
    """Return whether one of a finding's pictures is this content under this id."""
    if finding.id == finding_id(finding.collection, finding.query, id_):
        return finding.reference == sha256
    group = finding.fields.get("group")
    return group is not None and group["id"] == group_id(finding.collection, sha256, id_)


def _finding(row: Sequence[Any]) -> Finding:
    id_, at, state, collection, query, reference, level, kind, place, fields = row
    return Finding(
        id=id_, at=at, state=state, collection=collection, query=query, reference=reference,
        level=level, kind=kind, place=place, fields=json.loads(fields),
    )  # fmt: skip


def _spread(levels: Sequence[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    values = np.clip(np.array(levels, np.float64), 0.0, 1.0)
    bins = np.minimum((values * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    sums = np.bincount(bins, weights=values, minlength=_BINS)
    return tuple(counts.tolist()), tuple(sums.round(6).tolist())
