"""Matches on their way out: what was judged is held back, the rest may be kept for review."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vit4icd.collection import Record
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Sifted:
    """What a search found, and what of it may be shown."""

    shelf: Shelf
    query: Query
    sha256: str
    """What decisions know the query by."""
    basis: Mapping[str, Any]
    kept: Sequence[Match]
    records: Mapping[str, Record]
    """Of these references."""
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
        query = QueryBody(name=sifted.query.name, sha256=sifted.sha256)
        return _answer(sifted, query, [_body(sifted, match) for match in sifted.kept])

    def remember(self, sifted: Sifted) -> SearchAnswer:
        """Return the answer to a query that is kept, as its matches are, until they are judged.

        Raises:
            StoreError: the query's preview cannot be written, or nothing be kept.
        """
        if not sifted.kept:
            return self.answer(sifted)
        query = _query_body(sifted.query, sifted.sha256)
        if sifted.query.sha256 is None:  # else it is a reference, which has its preview
            self.previews.keep(sifted.query.data, sifted.sha256)
        bodies = [_body(sifted, match) for match in sifted.kept]
        findings = [
            _finding(sifted, query, match, body)
            for match, body in zip(sifted.kept, bodies, strict=True)
        ]
        states = self.findings.put(findings)
        self._drop_replaced(sifted, findings)
        return _answer(
            sifted,
            query,
            [
                body.model_copy(update={"id": finding.id, "state": states[finding.id]})
                for body, finding in zip(bodies, findings, strict=True)
            ],
        )

    def _drop_replaced(self, sifted: Sifted, findings: Sequence[Finding]) -> None:
        """Keep nothing of references that went while they were searched; later ones tell of it."""
        there = sifted.shelf.collection.find(match.reference for match in sifted.kept)
        self.findings.drop(
            finding
            for match, finding in zip(sifted.kept, findings, strict=True)
            if match.reference not in there or there[match.reference].sha256 != finding.reference
        )


@dataclass(frozen=True, slots=True)
class SiftedSearching:
    """Searches with the same options whose answers are sifted: a kind of work for the engine."""

    decisions: Decisions
    searching: Searching

    def pictures(self, item: Query) -> Sequence[bytes]:
        """Return what will be decoded."""
        return self.searching.pictures(item)

    def run(self, items: Sequence[Query]) -> list[Sifted | Exception]:
        """Search, and hold back what was judged; there may be k matches beside that.

        A picture that cannot be searched costs only itself.
        """
        never = self.decisions.never()
        shas = [query.sha256 or sha256_of_bytes(query.data) for query in items]
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
        records = found.answer.records
        kept: list[Match] = []
        held_back: list[str] = []
        for match in found.answer.matches:
            if len(kept) == self.searching.k:
                break
            why = judged.why(records[match.reference])
            if why is None:
                kept.append(match)
            else:
                held_back.append(why)
        nearest = found.answer.nearest
        if nearest is not None and judged.why(records[nearest.reference]) is not None:
            nearest = kept[0] if kept else None
        return Sifted(
            shelf=self.searching.shelf,
            query=query,
            sha256=sha256,
            basis=found.basis,
            kept=kept,
            records=records,
            nearest=nearest,
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

    def why(self, record: Record) -> Literal["rejected", "never"] | None:
        """Return why a reference is held back, if it is."""
        if record.sha256 in self.never:
            return "never"
        return "rejected" if record.sha256 in self.rejected else None


def _answer(sifted: Sifted, query: QueryBody, matches: list[MatchBody]) -> SearchAnswer:
    nearest = sifted.nearest
    return SearchAnswer(
        basis=Basis(**sifted.basis),
        query=query,
        matches=matches,
        nearest=None if nearest is None else match_body(nearest, collection=sifted.shelf.name),
        n_rejected=sifted.n_rejected,
        n_never=sifted.n_never,
    )


def _body(sifted: Sifted, match: Match) -> MatchBody:
    name = sifted.shelf.name
    image = image_body(name, sifted.records[match.reference])
    return match_body(match, collection=name, image=image)


def _query_body(query: Query, sha256: str) -> QueryBody:
    header = read_header(query.data)
    return QueryBody(
        name=query.name,
        sha256=sha256,
        width=header.width,
        height=header.height,
        picture=handle_of_query(sha256),
    )


def _finding(sifted: Sifted, query: QueryBody, match: Match, body: MatchBody) -> Finding:
    name, record = sifted.shelf.name, sifted.records[match.reference]
    return Finding(
        id=finding_id(name, sifted.sha256, record.id),
        collection=name,
        query=sifted.sha256,
        reference=record.sha256,
        level=_level(body),
        fields={
            "basis": dict(sifted.basis),
            "query": query.model_dump(),
            "match": body.model_dump(exclude={"id", "state"}),
        },
    )


def _level(body: MatchBody) -> float:
    return body.score if body.probability is None else body.probability
