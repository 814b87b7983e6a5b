"""Queries against a collection: candidates, proof and judgement; it stores nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from vit4icd.collection.descriptors import PART_MARGIN
from vit4icd.collection.features import FEATURE_COLUMNS, features_in, in_parts
from vit4icd.collection.memory import Held, Memory
from vit4icd.collection.pictures import Pictures, sha256_of
from vit4icd.collection.records import RECORD_COLUMNS, Record, records_in
from vit4icd.collection.views import n_views, part_name, picture_of, views_of
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ConfigError
from vit4icd.helpers import helpers
from vit4icd.images import read_image
from vit4icd.matches import Match, rank_key
from vit4icd.overlap import LocalFeatures, Overlap, features_of, find_overlap
from vit4icd.preprocessing import prepare
from vit4icd.scale import Scale
from vit4icd.storage import name_fields
from vit4icd.stream import Described, Prepared, Skipped, described
from vit4icd.thresholds import Threshold

__all__ = ["Answer", "Basis", "Searching"]

_TRIED, _MOST_TRIED = 10, 50  # of each query's nearest: as many as k, but not fewer or more

_MAY_BE_SAME = 0.9  # similarity of a file to itself, though it was decoded at another size


@dataclass(frozen=True, kw_only=True, slots=True)
class Basis:
    """What the answers of one run of queries rest on."""

    version: int
    """Of the collection."""
    n_images: int
    """Pictures of that version."""
    threshold: float
    """The score from which on a pair is a match."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a collection says to one query."""

    query: str
    basis: Basis
    matches: tuple[Match, ...] = ()
    """References from the threshold on, or proven: the best first."""
    nearest: Match | None = None
    """The best reference, a match or not; None where the collection is empty."""
    records: Mapping[str, Record] = field(default_factory=dict)
    """What is stored of these references, by id, in the version that was searched."""
    untried: tuple[str, ...] = ()
    """References that no proof could be tried for, though it was asked for: their local features
    are missing or cannot be read."""
    skipped: Skipped | None = None
    """Why the query could not be searched, if it could not."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return name_fields("query", self.query) | {
            "matches": [match.to_json() for match in self.matches],
            "nearest": None if self.nearest is None else self.nearest.to_json(),
            "skipped": None if self.skipped is None else self.skipped.to_json(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Searching:
    """One run of queries, and how they are searched.

    Raises:
        ConfigError: k below 1.
    """

    memory: Memory
    describer: OnnxDescriber
    k: int
    threshold: Threshold
    verify: bool
    flip: bool
    rotate: bool
    regions: bool
    max_pixels: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"at least 1 match must be asked for, not {self.k}")

    @property
    def _n_tried(self) -> int:
        """How many of a query's nearest references a proof is tried for."""
        return min(max(self.k, _TRIED), _MOST_TRIED) if self.verify else 0

    def over(
        self,
        pictures: Pictures,
        names: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Answer]:
        """Answer the queries in their order, all by one version of the collection."""
        most = n_views(flip=self.flip, rotate=self.rotate, regions=self.regions)
        ground, n_done = _Ground.of(self.memory.newest(), self, n_views=most), 0
        for batch in described(
            range(len(pictures)),
            lambda row: self._prepared(pictures, names[row], row),
            self.describer,
            name=names.__getitem__,
            n_views=most,
        ):
            yield from self._answers(batch, ground)
            n_done += len(batch)
            if progress is not None:
                progress(n_done, len(pictures))

    def _prepared(self, pictures: Pictures, name: str, row: int) -> "Prepared[_Query]":
        source, preprocessing = pictures.read(row), self.describer.preprocessing
        if not isinstance(source, bytes):
            source = read_image(source, max_pixels=self.max_pixels)
        sha256 = sha256_of(source, max_pixels=self.max_pixels)
        image = picture_of(source, preprocessing, regions=self.regions, max_pixels=self.max_pixels)
        views = {  # one after the other, so that a large picture is there twice at most
            view: prepare(turned, preprocessing)[None]
            for view, turned in views_of(
                image,
                flip=self.flip,
                rotate=self.rotate,
                regions=self.regions,
                at_least=preprocessing.at_least,
            )
        }
        features = None
        if self.verify:
            features = features_of(source, image, max_pixels=self.max_pixels)
        query = _Query(name=name, sha256=sha256, views=tuple(views), features=features)
        pixels = list(views.values())
        return Prepared(pixels[0] if len(pixels) == 1 else np.concatenate(pixels), query)

    def _answers(
        self, batch: Sequence["Described[_Query] | Skipped"], ground: "_Ground"
    ) -> Iterator[Answer]:
        queries = [item for item in batch if isinstance(item, Described)]
        candidates = self._candidates(queries, ground)
        threshold = ground.basis.threshold
        told: Sequence[Sequence[_Candidate]] = [self._told(few, threshold) for few in candidates]
        known = self._known(told, ground.held)
        if not all(of_query[0].reference in known for of_query in told if of_query):
            told = candidates  # the nearest was removed meanwhile
            known = self._known(told, ground.held)
        proofs = self._proofs([query.rest for query in queries], told, known)
        answers = iter(
            [
                self._judged(query.rest, of_query, known, tried, ground)
                for query, of_query, tried in zip(queries, told, proofs, strict=True)
            ]
        )
        for item in batch:
            if isinstance(item, Skipped):
                yield Answer(query=item.name, basis=ground.basis, skipped=item)
            else:
                yield next(answers)

    def _candidates(
        self, queries: Sequence["Described[_Query]"], ground: "_Ground"
    ) -> list[list["_Candidate"]]:
        """Return each query's nearest references over all its views, the best first."""
        held = ground.held
        if not queries or not len(held):
            return [[] for _ in queries]
        vectors = np.concatenate([query.vectors for query in queries])
        bias, depth = ground.scale.bias(vectors), max(self.k, self._n_tried)
        nearest = held.nearest(vectors, depth)
        rows = nearest.rows.ravel()
        name = dict(zip(rows.tolist(), held.names(rows), strict=True))
        found, first = [], 0
        for query in queries:
            best: dict[str, _Candidate] = {}
            for view, orientation in enumerate(query.rest.views, first):
                for row, similarity, number in nearest.of(view):
                    similarity = min(similarity, 1.0)  # half precision may round past it
                    score = similarity - PART_MARGIN * (number > 0) + float(bias[view])
                    part = part_name(number)
                    candidate = _Candidate(name[row], row, similarity, score, orientation, part)
                    other = best.setdefault(candidate.reference, candidate)
                    if score > other.score:
                        best[candidate.reference] = candidate
            first += len(query.rest.views)
            found.append(sorted(best.values(), key=lambda one: (-one.score, one.reference))[:depth])
        return found

    def _told(self, candidates: Sequence["_Candidate"], threshold: float) -> Sequence["_Candidate"]:
        """Return those that an answer may tell of; most queries match nothing."""
        if self.verify:
            return candidates
        return [
            candidate
            for rank, candidate in enumerate(candidates)
            if rank == 0 or candidate.score >= threshold or candidate.similarity >= _MAY_BE_SAME
        ]

    def _known(
        self, candidates: Sequence[Sequence["_Candidate"]], held: Held
    ) -> dict[str, "_Reference"]:
        """Return what judging needs of these references, by id."""
        rows = {candidate.row for of_query in candidates for candidate in of_query}
        if not rows:
            return {}
        features: dict[str, LocalFeatures] = {}
        if self.verify:
            for part in in_parts(partial(held.read, columns=FEATURE_COLUMNS), sorted(rows)):
                features |= features_in(part).readable
        return {
            record.id: _Reference(record, features.get(record.id))
            for record in records_in(held.read(sorted(rows), RECORD_COLUMNS))
        }

    def _proofs(
        self,
        queries: Sequence["_Query"],
        candidates: Sequence[Sequence["_Candidate"]],
        known: Mapping[str, "_Reference"],
    ) -> list[dict[str, Overlap | None]]:
        """Try to prove each query's nearest candidates; say by reference what came out.

        What has no local features that can be read is not among the outcome.
        """
        tried = [
            (row, query.features, candidate.reference, features)
            for row, (query, of_query) in enumerate(zip(queries, candidates, strict=True))
            for candidate in of_query[: self._n_tried]
            if query.features is not None
            and candidate.reference in known
            and (features := known[candidate.reference].features) is not None
        ]
        proofs: list[dict[str, Overlap | None]] = [{} for _ in queries]
        pool = helpers("prove", self.describer.n_threads)
        found = pool.map(lambda one: find_overlap(one[1], one[3]), tried)
        for (row, _, reference, _), overlap in zip(tried, found, strict=True):
            proofs[row][reference] = overlap
        return proofs

    def _judged(
        self,
        query: "_Query",
        candidates: Sequence["_Candidate"],
        known: Mapping[str, "_Reference"],
        proofs: Mapping[str, Overlap | None],
        ground: "_Ground",
    ) -> Answer:
        told = [candidate for candidate in candidates if candidate.reference in known]
        scores = np.array([candidate.score for candidate in told])
        found = [
            _match(query, candidate, probability, known[candidate.reference].record, proofs, ground)
            for candidate, probability in zip(told, ground.scale.probabilities(scores), strict=True)
        ]
        found.sort(key=rank_key)
        kept = [
            match
            for match in found
            if match.score >= ground.basis.threshold
            or match.overlap is not None
            or match.verdict == "exact"
        ]
        tried = [candidate.reference for candidate in candidates[: self._n_tried]]
        shown = kept[: self.k] + found[:1]
        return Answer(
            query=query.name,
            basis=ground.basis,
            matches=tuple(kept[: self.k]),
            nearest=found[0] if found else None,
            records={match.reference: known[match.reference].record for match in shown},
            untried=tuple(name for name in tried if name in known and name not in proofs),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Ground:
    """One version of the collection, and what similarities mean in it."""

    held: Held
    scale: Scale
    basis: Basis

    @classmethod
    def of(cls, held: Held, searching: Searching, *, n_views: int) -> "_Ground":
        """Each view of a query meets every descriptor that is held."""
        scale = Scale(describer=searching.describer, n_chances=held.n_descriptors * n_views)
        threshold = scale.threshold(searching.threshold)
        basis = Basis(version=held.version, n_images=len(held), threshold=threshold)
        return cls(held=held, scale=scale, basis=basis)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Query:
    name: str
    sha256: str
    views: tuple[str, ...]
    features: LocalFeatures | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A reference that is near one view of a query."""

    reference: str
    row: int
    similarity: float
    score: float
    orientation: str
    part: str


@dataclass(frozen=True, slots=True)
class _Reference:
    record: Record
    features: LocalFeatures | None


def _match(
    query: _Query,
    candidate: _Candidate,
    probability: float | None,
    record: Record,
    proofs: Mapping[str, Overlap | None],
    ground: _Ground,
) -> Match:
    return Match.judged(
        query.name,
        candidate.reference,
        similarity=candidate.similarity,
        score=candidate.score,
        probability=probability,
        overlap=proofs.get(record.id),
        verified=record.id in proofs,
        same_bytes=query.sha256 == record.sha256,
        least_score=ground.basis.threshold,
        orientation=candidate.orientation,
        reference_part=candidate.part,
        metadata=record.metadata,
    )
