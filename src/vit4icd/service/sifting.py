"""Matches on their way out: what was judged is held back, the rest may be kept for review."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vit4icd.collection import Record
from vit4icd.errors import DataError
from vit4icd.headers import read_header
from vit4icd.matches import Match
from vit4icd.service.answers import (
    Basis,
    MatchBody,
    QueryBody,
    SearchAnswer,
    image_body,
    match_body,
)
from vit4icd.service.decisions import Decisions
from vit4icd.service.findings import Finding, Findings, finding_id
from vit4icd.service.handles import handle_of_query
from vit4icd.service.library import Found, Query, Searching, Shelf, sha256_of_bytes
from vit4icd.service.previews import Previews

__all__ = ["Sifted", "SiftedSearching", "Sifting"]

_MAX_SPARE = 100  # matches beyond k that are asked for, to take the place of those held back

Kept = list[tuple[Match, Record | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sifted:
    """What a search found, and what of it may be shown."""

    shelf: Shelf
    query: Query
    sha256: str
    """Of the query."""
    basis: Mapping[str, Any]
    kept: Kept
    nearest: Match | None
    """The best reference that may be shown, as far as one is known."""
    n_rejected: int
    n_never: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sifting:
    """What makes answers of what was sifted, and keeps it for review if asked."""

    findings: Findings
    previews: Previews

    def answer(self, sifted: Sifted) -> SearchAnswer:
        """Return the answer to a query of which nothing is kept; it waits for nothing."""
        body = QueryBody(name=sifted.query.name, sha256=sifted.sha256)
        bodies = [_body(sifted.shelf, match, record) for match, record in sifted.kept]
        return _answer(sifted, body, bodies)

    def remember(self, sifted: Sifted) -> SearchAnswer:
        """Return the answer to a query that is kept, as its matches are, until they are judged."""
        body = _query_body(sifted.query, sifted.sha256, is_kept=bool(sifted.kept))
        return _answer(sifted, body, self._remembered(sifted, body))

    def _remembered(self, sifted: Sifted, body: QueryBody) -> list[MatchBody]:
        shelf = sifted.shelf
        if sifted.kept:
            self.previews.keep(sifted.query.data)
        bodies, shas = {}, {}
        for match, record in sifted.kept:
            if record is not None:  # removed meanwhile
                id_ = finding_id(shelf.name, body.sha256, match.reference)
                bodies[id_], shas[id_] = _body(shelf, match, record, id_=id_), record.sha256
        findings = self.findings.put(
            Finding(
                id=id_,
                collection=shelf.name,
                query=body.sha256,
                reference=shas[id_],
                level=_level(bodies[id_]),
                fields=_fields(sifted.basis, body, bodies[id_]),
            )
            for id_ in bodies
        )
        return [bodies[found.id].model_copy(update={"state": found.state}) for found in findings]


@dataclass(frozen=True, slots=True)
class SiftedSearching:
    """Searches with the same options whose answers are sifted: a kind of work for the engine."""

    decisions: Decisions
    searching: Searching
    look_up: bool = False

    def pictures(self, item: Query) -> Sequence[bytes]:
        """Return what will be decoded."""
        return self.searching.pictures(item)

    def run(self, items: Sequence[Query]) -> list[Sifted | Exception]:
        """Search, and hold back what was judged; there may be k matches beside that.

        References are looked up where somebody judged, and everywhere with ``look_up``. A picture
        that cannot be searched costs only itself.
        """
        never, shas = self.decisions.never(), [sha256_of_bytes(query.data) for query in items]
        judged = [_Judged(self.decisions.rejected(sha256), never) for sha256 in shas]
        rows_of = defaultdict[int, list[int]](list)
        for row, one in enumerate(judged):
            rows_of[self.searching.k + min(one.n_pictures, _MAX_SPARE)].append(row)
        results: dict[int, Sifted | Exception] = {}
        for k, rows in rows_of.items():
            found = replace(self.searching, k=k).run([items[row] for row in rows])
            for row, result in zip(rows, found, strict=True):
                results[row] = (
                    result
                    if isinstance(result, Exception)
                    else self._sifted(items[row], shas[row], result, judged[row])
                )
        return [results[row] for row in range(len(items))]

    def _sifted(self, query: Query, sha256: str, found: Found, judged: "_Judged") -> Sifted:
        """Keep the k best matches that may be shown, and count the better ones that may not."""
        is_looked_up = self.look_up or judged.n_pictures > 0
        kept: Kept = []
        held_back: list[str] = []
        for match in found.answer.matches:
            if len(kept) == self.searching.k:
                break
            record = _record(self.searching.shelf, match.reference) if is_looked_up else None
            why = judged.why(record)
            if why is None:
                kept.append((match, record))
            else:
                held_back.append(why)
        return Sifted(
            shelf=self.searching.shelf,
            query=query,
            sha256=sha256,
            basis=found.basis,
            kept=kept,
            nearest=_nearest(self.searching.shelf, found, kept, judged),
            n_rejected=held_back.count("rejected"),
            n_never=held_back.count("never"),
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    """References that one query must not show."""

    rejected: frozenset[str]
    never: frozenset[str]

    @property
    def n_pictures(self) -> int:
        return len(self.rejected | self.never)

    def why(self, record: Record | None) -> Literal["rejected", "never"] | None:
        """Return why a reference is held back, if it is."""
        if record is None:
            return None
        if record.sha256 in self.never:
            return "never"
        return "rejected" if record.sha256 in self.rejected else None


def _nearest(shelf: Shelf, found: Found, kept: Kept, judged: _Judged) -> Match | None:
    nearest = found.answer.nearest
    if nearest is None or not judged.n_pictures:
        return nearest
    if judged.why(_record(shelf, nearest.reference)) is None:
        return nearest
    return kept[0][0] if kept else None


def _answer(sifted: Sifted, query: QueryBody, matches: list[MatchBody]) -> SearchAnswer:
    shelf, nearest = sifted.shelf, sifted.nearest
    return SearchAnswer(
        basis=Basis(**sifted.basis),
        query=query,
        matches=matches,
        nearest=None if nearest is None else match_body(nearest, collection=shelf.name),
        n_rejected=sifted.n_rejected,
        n_never=sifted.n_never,
    )


def _record(shelf: Shelf, id_: str) -> Record | None:
    try:
        return shelf.collection.get(id_)
    except DataError:
        return None


def _body(
    shelf: Shelf, match: Match, record: Record | None, *, id_: str | None = None
) -> MatchBody:
    image = None if record is None else image_body(shelf.name, record)
    return match_body(match, collection=shelf.name, image=image, id_=id_)


def _query_body(query: Query, sha256: str, *, is_kept: bool) -> QueryBody:
    if not is_kept:
        return QueryBody(name=query.name, sha256=sha256)
    header = read_header(query.data)
    return QueryBody(
        name=query.name,
        sha256=sha256,
        width=header.width,
        height=header.height,
        picture=handle_of_query(sha256),
    )


def _level(body: MatchBody) -> float:
    return body.score if body.probability is None else body.probability


def _fields(basis: Mapping[str, Any], query: QueryBody, match: MatchBody) -> Mapping[str, Any]:
    return {
        "basis": dict(basis),
        "query": query.model_dump(),
        "match": match.model_dump(exclude={"id", "state"}),
    }
