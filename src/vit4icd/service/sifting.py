"""Matches on their way out: what was judged is held back, the rest may be kept for review."""

from collections.abc import Mapping
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

__all__ = ["Sifting"]

_MAX_SPARE = 100  # matches beyond k that are asked for, to take the place of those held back

Kept = list[tuple[Match, Record | None]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sifting:
    """What answers pass through before anybody sees them."""

    decisions: Decisions
    findings: Findings
    previews: Previews

    def widened(self, searching: Searching, query: Query) -> Searching:
        """Return a search for as many matches more as may be held back, so that k remain."""
        judged = self._judged(sha256_of_bytes(query.data))
        return replace(searching, k=searching.k + min(judged.n_pictures, _MAX_SPARE))

    def answer(
        self, searching: Searching, query: Query, found: Found, *, review: bool
    ) -> SearchAnswer:
        """Return the answer to a query; with ``review``, its matches are kept until judged.

        ``found`` is what :meth:`widened` found. References are looked up only where that is
        needed: for review, and where somebody judged.
        """
        shelf, sha256 = searching.shelf, sha256_of_bytes(query.data)
        judged = self._judged(sha256)
        kept, held_back = _sifted(searching, found, judged, look_up=review or judged.n_pictures > 0)
        body = _query_body(query, sha256, is_kept=review and bool(kept))
        if review:
            bodies = self._remembered(shelf, query, body, kept)
        else:
            bodies = [_body(shelf, match, record) for match, record in kept]
        nearest = _nearest(shelf, found, kept, judged)
        return SearchAnswer(
            basis=Basis(**found.basis),
            query=body,
            matches=bodies,
            nearest=None if nearest is None else match_body(nearest, collection=shelf.name),
            n_rejected=held_back.count("rejected"),
            n_never=held_back.count("never"),
        )

    def _judged(self, sha256: str) -> "_Judged":
        return _Judged(rejected=self.decisions.rejected(sha256), never=self.decisions.never())

    def _remembered(
        self,
        shelf: Shelf,
        query: Query,
        body: QueryBody,
        kept: Kept,
    ) -> list[MatchBody]:
        if kept:
            self.previews.keep(query.data)
        bodies, shas = {}, {}
        for match, record in kept:
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
                fields=_fields(body, bodies[id_]),
            )
            for id_ in bodies
        )
        return [bodies[found.id].model_copy(update={"state": found.state}) for found in findings]


@dataclass(frozen=True, kw_only=True, slots=True)
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


def _sifted(
    searching: Searching, found: Found, judged: _Judged, *, look_up: bool
) -> tuple[Kept, list[str]]:
    """Return the k best matches that may be shown, and why better ones are held back."""
    kept: Kept = []
    held_back: list[str] = []
    for match in found.answer.matches:
        if len(kept) == searching.k:
            break
        record = _record(searching.shelf, match.reference) if look_up else None
        why = judged.why(record)
        if why is None:
            kept.append((match, record))
        else:
            held_back.append(why)
    return kept, held_back


def _nearest(shelf: Shelf, found: Found, kept: Kept, judged: _Judged) -> Match | None:
    """Return the best reference that may be shown, as far as one is known."""
    nearest = found.answer.nearest
    if nearest is None or not judged.n_pictures:
        return nearest
    if judged.why(_record(shelf, nearest.reference)) is None:
        return nearest
    return kept[0][0] if kept else None


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


def _fields(query: QueryBody, match: MatchBody) -> Mapping[str, Any]:
    return {
        "query": query.model_dump(),
        "match": match.model_dump(exclude={"id", "state"}),
    }
