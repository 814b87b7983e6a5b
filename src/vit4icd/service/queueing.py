"""Groups of copies, pair by pair, into the queue of what people judge; it finds no groups."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit4icd.collection import Record
from vit4icd.matches import Match
from vit4icd.scale import Scale
from vit4icd.service.answers import QueryBody, image_body, match_body
from vit4icd.service.decisions import Decisions, pair_of
from vit4icd.service.duplicates import Groups, Link
from vit4icd.service.findings import Finding, Findings, finding_id, group_id, place_of
from vit4icd.service.handles import handle_of_reference
from vit4icd.service.library import Shelf
from vit4icd.storage import name_fields

__all__ = ["Queueing"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Queueing:
    """What puts cliques into the queue: the largest picture of each beside every other one."""

    decisions: Decisions
    findings: Findings

    def put(self, shelf: Shelf, groups: Groups, *, limit: int) -> tuple[int, int]:
        """Queue so many pairs that nobody judged, the likeliest groups first.

        Returns how many were queued, and how many are left for another time.
        """
        ranked = sorted(groups.groups, key=lambda group: -_best(group, groups.links))
        records = shelf.collection.find(id_ for group in ranked for id_ in group)
        telling = _Telling.of(shelf, groups)
        judged, queued, n_left = self.decisions.pairs(), list[Finding](), 0
        for group in ranked:
            there = [records[id_] for id_ in group if id_ in records]
            for finding in telling.findings(there):
                if pair_of(finding.query, finding.reference) in judged:
                    continue
                if len(queued) < limit:
                    queued.append(finding)
                else:
                    n_left += 1
        self.findings.put(queued)
        return len(queued), n_left


def _best(group: Sequence[str], links: Mapping[frozenset[str], Link]) -> float:
    return max(links[frozenset((group[0], other))].score for other in group[1:])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Telling:
    """What the pairs of all groups are told by."""

    shelf: Shelf
    groups: Groups
    scale: Scale
    basis: Mapping[str, Any]

    @classmethod
    def of(cls, shelf: Shelf, groups: Groups) -> "_Telling":
        scale = Scale(describer=shelf.collection.describer, n_chances=groups.n_images - 1)
        return cls(shelf=shelf, groups=groups, scale=scale, basis=shelf.basis(groups.threshold))

    def findings(self, group: Sequence[Record]) -> Iterator[Finding]:
        """Yield the pairs of one group."""
        if len(group) < 2:  # removed meanwhile
            return
        first, *others = sorted(group, key=_worth)
        matches = [(other, self._match(first, other)) for other in others]
        best = max(_level(match) for _, match in matches)
        name = group_id(self.shelf.name, first.sha256, first.id)
        for other, match in matches:
            id_ = finding_id(self.shelf.name, first.sha256, other.id)
            image = image_body(self.shelf.name, other)
            body = match_body(match, collection=self.shelf.name, image=image)
            yield Finding(
                id=id_,
                collection=self.shelf.name,
                query=first.sha256,
                reference=other.sha256,
                level=_level(match),
                kind="group",
                place=place_of(_level(match), id_, group=(best, name)),
                fields={
                    "basis": dict(self.basis),
                    "query": _query(self.shelf, first).model_dump(),
                    "match": body.model_dump(exclude={"id", "state"}),
                    "group": {"id": name, "n_images": len(group)},
                },
            )

    def _match(self, first: Record, other: Record) -> Match:
        link = self.groups.links[frozenset((first.id, other.id))]
        return Match.judged(
            first.id,
            other.id,
            similarity=link.similarity,
            score=link.score,
            probability=self.scale.probability(link.score),
            overlap=None,
            verified=False,
            same_bytes=first.sha256 == other.sha256,
            least_score=self.groups.threshold,
            metadata=other.metadata,
        )


def _worth(record: Record) -> tuple[int, str, str]:
    """Return what the pictures of a group are sorted by: the largest, then the oldest first."""
    return -record.width * record.height, record.added.isoformat(), record.id


def _query(shelf: Shelf, record: Record) -> QueryBody:
    return QueryBody(
        name=name_fields("id", record.id)["id"],
        sha256=record.sha256,
        width=record.width,
        height=record.height,
        picture=handle_of_reference(shelf.name, record.id, record.sha256),
    )


def _level(match: Match) -> float:
    return match.score if match.probability is None else match.probability
