"""What people decided about pairs of pictures: a log that only grows, by content; it shows none."""

import csv
import io
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from vit4icd.service.database import Database
from vit4icd.service.problems import Problem

__all__ = ["Decision", "Decisions", "State", "Subject", "Verb", "pair_of", "state_of", "to_csv"]

Verb = Literal["accept", "reject", "never", "undo"]
"""accept, reject: the pair is a copy, or not; never: the reference (a logo, a template) must not
match anything; undo: as if nobody had decided."""
State = Literal["undecided", "accepted", "rejected", "never"]
"""What the decisions on a pair come to."""
Subject = Literal["pair", "reference"]
"""What a decision is on."""

_COLUMNS = "number, at, kind, query, reference, fields"
_IS_LAST = "number = (SELECT max(number) FROM decisions AS later WHERE later.pair = decisions.pair)"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One line of the log; pictures are the SHA-256 of their content."""

    number: int
    at: str
    decision: Verb
    query: str
    """Empty for a decision on the reference alone."""
    reference: str
    fields: Mapping[str, Any]
    """What was known of the pair then: names, score, probability."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "number": self.number,
            "at": self.at,
            "decision": self.decision,
            "query": self.query or None,
            "reference": self.reference,
            **self.fields,
        }


class Decisions:
    """The log, and what it comes to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        verb: Verb,
        *,
        query: str,
        reference: str,
        fields: Mapping[str, Any] | None = None,
        believed: tuple[tuple[str, str, str], State] | None = None,
    ) -> Decision:
        """Write a decision; it is on the disk when this returns.

        Findings of the pair change their state in the same transaction. ``believed`` is what the
        one who decides takes for the state of a finding, told by its kind, query and reference.

        Raises:
            Problem: it has another, for somebody else decided meanwhile (conflict).

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> database = Database(Path(tempfile.mkdtemp()) / "review.sqlite")
            >>> decisions = Decisions(database)
            >>> decisions.add("reject", query="aa", reference="bb").number
            1
            >>> decisions.rejected("bb")
            frozenset({'aa'})
            >>> database.close()
        """
        if verb == "never":
            query = ""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = json.dumps(dict(fields or {}), ensure_ascii=True)
        pair = pair_of(query, reference)
        with self._database.writing() as connection:
            if believed is not None:
                subject, expected = believed
                state = state_of(connection, *subject)
                if state != expected:
                    raise Problem("conflict", f"somebody decided meanwhile: it is {state} now")
            row = connection.execute(
                "INSERT INTO decisions (at, kind, pair, query, reference, fields) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (at, verb, pair, query, reference, text),
            )
            number = int(row.lastrowid or 0)
            _settle(connection, query, reference)
        return Decision(
            number=number, at=at, decision=verb, query=query, reference=reference,
            fields=dict(fields or {}),
        )  # fmt: skip

    def rejected(self, picture: str) -> frozenset[str]:
        """Return the pictures that this one was said to be no copy of, nor they of it."""
        rows = self._database.read(
            "SELECT query, reference FROM decisions "  # noqa: S608 - constants only
            "WHERE (query = ? OR (reference = ? AND query != '')) "
            f"AND kind = 'reject' AND {_IS_LAST}",
            (picture, picture),
        )
        return frozenset(query if reference == picture else reference for query, reference in rows)

    def pairs(self) -> Mapping[str, Verb]:
        """Return the pairs that were judged, as :func:`pair_of` names them, and how."""
        rows = self._database.read(
            "SELECT pair, kind FROM decisions "  # noqa: S608 - constants only
            f"WHERE query != '' AND kind != 'undo' AND {_IS_LAST}"
        )
        return dict(rows)

    def never(self) -> frozenset[str]:
        """Return the pictures that must not match anything."""
        rows = self._database.read(
            "SELECT reference FROM decisions "  # noqa: S608 - constants only
            f"WHERE query = '' AND kind = 'never' AND {_IS_LAST}"
        )
        return frozenset(reference for (reference,) in rows)

    def page(self, *, after: int = 0, limit: int = 1_000) -> list[Decision]:
        """Return the next decisions after one, in their order."""
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM decisions WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608
            (after, limit),
        )
        return list(map(_decision, rows))

    def newest(
        self, limit: int, *, on: Subject | None = None, before: int | None = None
    ) -> list[Decision]:
        """Return the last decisions, the newest first; those that were undone are left out.

        ``on`` takes those on pairs only, or those on a reference alone; ``before`` those that are
        older than one.
        """
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM decisions "  # noqa: S608 - constants only
            "WHERE (:on IS NULL OR (query = '') = (:on = 'reference')) "
            "AND (:before IS NULL OR number < :before) "
            f"AND kind != 'undo' AND {_IS_LAST} ORDER BY number DESC LIMIT :limit",
            {"on": on, "before": before, "limit": limit},
        )
        return list(map(_decision, rows))


def pair_of(query: str, reference: str) -> str:
    """Return what a pair is known by: a pair has no direction."""
    return " ".join(sorted((query, reference)))


def to_csv(decisions: Iterable[Decision]) -> str:
    """Return decisions as CSV that no spreadsheet takes for formulas."""
    text = io.StringIO(newline="")
    rows = [decision.to_json() for decision in decisions]
    first = ["number", "at", "decision", "query", "reference"]
    columns = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def state_of(connection: sqlite3.Connection, kind: str, query: str, reference: str) -> State:
    """Return what the log says of a finding.

    Both pictures of a pair within a group are references.
    """
    states: Mapping[str, State] = {"accept": "accepted", "reject": "rejected", "never": "never"}
    alone = (reference, query) if kind == "group" else (reference,)
    for known in (pair_of(query, reference), *(pair_of("", one) for one in alone)):
        row = connection.execute(
            "SELECT kind FROM decisions WHERE pair = ? ORDER BY number DESC LIMIT 1", (known,)
        ).fetchone()
        if row is not None and row[0] in states:
            return states[row[0]]
    return "undecided"


def _settle(connection: sqlite3.Connection, query: str, reference: str) -> None:
    """Give the findings that a decision is about the state that follows from the log."""
    where = "pair = :pair" if query else "reference = :it OR (query = :it AND kind = 'group')"
    found = connection.execute(
        f"SELECT id, kind, query, reference FROM findings WHERE {where}",  # noqa: S608 - constants
        {"pair": pair_of(query, reference), "it": reference},
    ).fetchall()
    connection.executemany(
        "UPDATE findings SET state = ? WHERE id = ?",
        [(state_of(connection, *subject), id_) for id_, *subject in found],
    )


def _decision(row: tuple[Any, ...]) -> Decision:
    number, at, kind, query, reference, fields = row
    assert kind in get_args(Verb)
    return Decision(
        number=number, at=at, decision=kind, query=query, reference=reference,
        fields=json.loads(fields),
    )  # fmt: skip


def _plain(value: object) -> object:
    """Return a cell that a spreadsheet shows as it is."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
