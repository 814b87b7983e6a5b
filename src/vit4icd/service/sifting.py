"""Matches on their way out: what was judged is held back, the rest may be kept for review."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from vit4icd.service.library import Found, Query, Shelf, sha256_of_bytes
from vit4icd.service.previews import Previews

__all__ = ["Sifting"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sifting:
    """What answers pass through before anybody sees them."""

    decisions: Decisions
    findings: Findings
    previews: Previews
    keep_findings: int

    def answer(self, shelf: Shelf, query: Query, found: Found, *, review: bool) -> SearchAnswer:
        """Return the answer to a query; with ``review``, its matches are kept until judged.

        References are looked up only where that is needed: for review, and where somebody judged.
        """
        sha256 = sha256_of_bytes(query.data)
        rejected, never = self.decisions.rejected(sha256), self.decisions.never()
        kept: list[tuple[Match, Record | None]] = []
        n_rejected = n_never = 0
        for match in found.answer.matches:
            needed = review or rejected or never
            record = _record(shelf, match.reference) if needed else None
            if record is not None and record.sha256 in never:
                n_never += 1
            elif record is not None and record.sha256 in rejected:
                n_rejected += 1
            else:
                kept.append((match, record))
        body = _query_body(query, sha256, is_kept=review and bool(kept))
        if review:
            bodies = self._remembered(shelf, query, body, kept)
        else:
            bodies = [_body(shelf, match, record) for match, record in kept]
        nearest = found.answer.nearest
        return SearchAnswer(
            basis=Basis(**found.basis),
            query=body,
            matches=bodies,
            nearest=None if nearest is None else match_body(nearest, collection=shelf.name),
            n_rejected=n_rejected,
            n_never=n_never,
        )

    def _remembered(
        self,
        shelf: Shelf,
        query: Query,
        body: QueryBody,
        kept: list[tuple[Match, Record | None]],
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
        if findings:
            for forgotten in self.findings.prune(keep=self.keep_findings):
                self.previews.sweep(forgotten)
        return [bodies[found.id].model_copy(update={"state": found.state}) for found in findings]


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
