"""Groups of copies within one collection, from its descriptors alone; it proves none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vit4icd.groups import Strictness, group_pairs
from vit4icd.scale import Scale
from vit4icd.search import self_pairs
from vit4icd.service.decisions import Decisions, pair_of
from vit4icd.service.library import Shelf
from vit4icd.service.problems import Problem
from vit4icd.thresholds import Threshold
from vit4icd.types import Pairs

__all__ = ["MAX_IMAGES", "Grouping", "Groups", "Link"]

MAX_IMAGES = 200_000
"""Pictures of the largest collection that is grouped within one request."""

_MAX_PAIRS = 1_000_000


@dataclass(frozen=True, slots=True)
class Link:
    """How alike two pictures of a group are."""

    similarity: float
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Groups of ids, and the score from which on two are linked."""

    groups: Sequence[Sequence[str]]
    links: Mapping[frozenset[str], Link]
    """Of two ids within one group, as far as they are linked themselves."""
    threshold: float
    n_images: int
    is_complete: bool
    """Whether all pairs were looked at, not only the most alike million."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of one collection; pairs that were rejected, and what never matches, link none."""

    shelf: Shelf
    decisions: Decisions
    threshold: Threshold
    strictness: Strictness = "clique"

    def pictures(self, item: None) -> Sequence[bytes]:
        """Return nothing: descriptors are all that is read."""
        return ()

    def run(self, items: Sequence[None]) -> list[Groups | Exception]:
        """Group once, for all who ask."""
        return [self._grouped()] * len(items)

    def _grouped(self) -> Groups:
        descriptors = self.shelf.collection.descriptors()
        if len(descriptors) > MAX_IMAGES:
            raise Problem(
                "invalid_option",
                f"{len(descriptors)} pictures are more than {MAX_IMAGES}; use: vit4icd dedup",
            )
        scale = Scale(describer=self.shelf.collection.describer, n_chances=len(descriptors))
        threshold, bias = scale.threshold(self.threshold), scale.bias(descriptors.vectors)
        found = self_pairs(descriptors, threshold=threshold, bias=bias, max_pairs=_MAX_PAIRS)
        pairs = self._undenied(found)
        groups = group_pairs(descriptors.ids, pairs, strictness=self.strictness)
        return Groups(
            groups=groups,
            links=_links(groups, pairs, dict(zip(descriptors.ids, bias.tolist(), strict=True))),
            threshold=threshold,
            n_images=len(descriptors),
            is_complete=len(found) < _MAX_PAIRS,
        )

    def _undenied(self, pairs: Pairs) -> Pairs:
        """Return the pairs that nobody said to be no copies."""
        judged, never = self.decisions.pairs(), self.decisions.never()
        rejected = {pair for pair, verb in judged.items() if verb == "reject"}
        if not rejected and not never:
            return pairs
        known = self.shelf.collection.find({*pairs.queries, *pairs.references})
        sha256 = {id_: record.sha256 for id_, record in known.items()}

        def is_denied(query: str, reference: str) -> bool:
            both = sha256.get(query, ""), sha256.get(reference, "")
            return pair_of(*both) in rejected or not never.isdisjoint(both)

        names = zip(pairs.queries, pairs.references, strict=True)
        return pairs.only([row for row, both in enumerate(names) if not is_denied(*both)])


def _links(
    groups: Sequence[Sequence[str]], pairs: Pairs, bias: Mapping[str, float]
) -> dict[frozenset[str], Link]:
    group_of = {id_: number for number, group in enumerate(groups) for id_ in group}
    return {
        frozenset((query, reference)): Link(score - min(bias[query], bias[reference]), score)
        for query, reference, score in zip(
            pairs.queries, pairs.references, pairs.scores.tolist(), strict=True
        )
        if group_of.get(query, -1) == group_of.get(reference, -2)
    }
