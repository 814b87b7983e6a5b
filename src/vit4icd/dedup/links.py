"""Which contents are taken for copies of each other: searched, looked at, proven if asked.

A pair within one set of files has no original that is known: its score is the similarity less the
higher background level of the two, so that it never claims more than either direction would.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from vit4icd.dedup.cache import Cache, Files, Look, read_content
from vit4icd.dedup.pool import in_order
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ImageError
from vit4icd.images import MAX_PIXELS, read_image
from vit4icd.matches import COPY_PROBABILITY, Match
from vit4icd.overlap import LocalFeatures, Overlap, find_overlap, local_features
from vit4icd.scale import Scale
from vit4icd.search import best_pairs, self_pairs
from vit4icd.stream import Skipped
from vit4icd.thresholds import Threshold
from vit4icd.types import DescriptorSet, Pairs

__all__ = ["MAX_PAIRS", "Finder", "Links"]

MAX_PAIRS = 1_000_000
"""Pairs that are judged at most; of more, the best."""

_WORTH_A_PROOF = 0.01  # probability from which "auto" has a pair proven
_FEATURES_HELD = 512  # pictures whose local features are held: 31 kB each
_DETAIL = 512  # pixels of the short side that local features need

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it, and of how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """Pairs of contents (their hashes) that are taken for copies, and what could not be judged."""

    matches: tuple[Match, ...]
    looks: Mapping[str, Look]
    threshold: float
    skipped: tuple[Skipped, ...] = ()
    is_cut: bool = False
    """Whether there were more pairs than are judged."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Finder:
    """How copies among contents are found."""

    describer: OnnxDescriber
    cache: Cache
    contents: Mapping[str, Files]
    threshold: Threshold = "auto"
    verify: bool = False
    max_pixels: int = MAX_PIXELS
    n_threads: int | None = None
    progress: Progress | None = None

    def within(self, candidates: DescriptorSet, references: DescriptorSet) -> Links:
        """Return the links among candidates, and from candidates to references."""
        n_others = len(candidates) + len(references) - 1
        scale = Scale(describer=self.describer, n_chances=n_others)
        threshold, levels = self._threshold(scale), -scale.bias(candidates.vectors)
        inside = self_pairs(
            candidates,
            threshold=threshold,
            bias=-levels,
            max_pairs=MAX_PAIRS + 1,  # one more tells that there are more
            n_threads=self.n_threads,
            progress=self._told("comparing"),
        )
        level = dict(zip(candidates.ids, levels.tolist(), strict=True))
        across = self._across(candidates, levels, references, threshold)
        is_cut = len(across) > MAX_PAIRS
        level |= _levels_of(references, set(across.references), scale)
        higher = [max(level[query], level[reference]) for query, reference in _names(across)]
        across = replace(across, scores=across.scores + [level[q] for q in across.queries] - higher)
        pairs = _joined(inside, across.only(np.flatnonzero(across.scores >= threshold)))
        is_cut |= len(pairs) > MAX_PAIRS
        pairs = _best(pairs)
        taken_off = [max(level[query], level[reference]) for query, reference in _names(pairs)]
        links = self._judged(pairs, np.array(taken_off), threshold, scale)
        return replace(links, is_cut=is_cut)

    def between(self, queries: DescriptorSet, references: DescriptorSet, *, k: int) -> Links:
        """Return the links of each query to its ``k`` best references, as a search would."""
        scale = Scale(describer=self.describer, n_chances=len(references))
        threshold, levels = self._threshold(scale), -scale.bias(queries.vectors)
        pairs = best_pairs(
            queries,
            references,
            per_query=k,
            threshold=threshold,
            bias=-levels,
            n_threads=self.n_threads,
            progress=self._told("comparing"),
        )
        level = dict(zip(queries.ids, levels.tolist(), strict=True))
        taken_off = np.array([level[query] for query in pairs.queries])
        return self._judged(pairs, taken_off, threshold, scale)

    def _threshold(self, scale: Scale) -> float:
        """Return the score from which on a pair is looked at."""
        probability = _WORTH_A_PROOF if self.verify else COPY_PROBABILITY
        return scale.threshold(self.threshold, auto_probability=probability)

    def _across(
        self,
        candidates: DescriptorSet,
        levels: Float32[np.ndarray, " image"],
        references: DescriptorSet,
        threshold: float,
    ) -> Pairs:
        """Return pairs of candidates with references, normalised by the candidates alone."""
        if not len(candidates) or not len(references):
            return Pairs(queries=[], references=[], scores=np.empty(0))
        return best_pairs(
            candidates,
            references,
            max_pairs=MAX_PAIRS + 1,
            threshold=threshold,
            bias=-levels,
            n_threads=self.n_threads,
        )

    def _judged(self, pairs: Pairs, taken_off: np.ndarray, threshold: float, scale: Scale) -> Links:
        """Leave out what is too plain or gone, prove if asked, and say what each pair is."""
        names = dict.fromkeys([*pairs.queries, *pairs.references])
        looks = self.cache.looks(
            {name: self.contents[name] for name in names},
            max_pixels=self.max_pixels,
            n_workers=self.n_threads,
        )
        sound = {name for name, look in looks.items() if look.plain is None}
        rows = [row for row, pair in enumerate(_names(pairs)) if sound.issuperset(pair)]
        pairs, taken_off = pairs.only(rows), taken_off[rows]
        proofs = self._proofs(pairs) if self.verify else [_Proof()] * len(pairs)
        matches = [
            self._match(*pair, score, score + off, probability, proof, threshold)
            for pair, score, off, probability, proof in zip(
                _names(pairs), pairs.scores.tolist(), taken_off.tolist(),
                scale.probabilities(pairs.scores), proofs, strict=True,
            )
        ]  # fmt: skip
        return Links(
            matches=tuple(match for match in matches if match.is_copy or not self.verify),
            looks=looks,
            threshold=threshold,
            skipped=tuple(self._unjudged(names, looks)),
        )

    def _match(
        self,
        query: str,
        reference: str,
        score: float,
        similarity: float,
        probability: float | None,
        proof: "_Proof",
        threshold: float,
    ) -> Match:
        return Match.judged(
            query,
            reference,
            similarity=similarity,
            score=score,
            probability=probability,
            overlap=proof.overlap,
            verified=proof.is_tried,
            least_score=threshold,
        )

    def _proofs(self, pairs: Pairs) -> list["_Proof"]:
        """Try to prove each pair; what cannot be read any more is not tried."""

        @lru_cache(maxsize=_FEATURES_HELD)
        def features(name: str) -> LocalFeatures:
            data = read_content(self.contents[name])
            image = read_image(data, max_pixels=self.max_pixels, at_least=_DETAIL)
            return local_features(image)

        def proof(pair: tuple[str, str]) -> _Proof:
            try:
                return _Proof(find_overlap(features(pair[0]), features(pair[1])), is_tried=True)
            except ImageError:
                return _Proof()

        tell, proofs = self._told("proving"), []
        for found in in_order(proof, _names(pairs), n_workers=self.n_threads):
            proofs.append(found)
            if tell is not None:
                tell(len(proofs), len(pairs))
        return proofs

    def _unjudged(self, names: Iterable[str], looks: Mapping[str, Look]) -> Iterable[Skipped]:
        for name in names:
            look = looks.get(name)
            if look is None:
                why = "unreadable_file", "it was described, but cannot be read now"
            elif look.plain is not None:
                why = "image_too_plain", look.plain
            else:
                continue
            for file in self.contents[name]:
                yield Skipped(file.path, *why)

    def _told(self, what: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, n: progress(what, done, n)


@dataclass(frozen=True, slots=True)
class _Proof:
    """What two pictures have in common, and whether that was looked for."""

    overlap: Overlap | None = None
    is_tried: bool = False


def _best(pairs: Pairs) -> Pairs:
    """Return the pairs in their order, of too many the best."""
    if len(pairs) <= MAX_PAIRS:
        return pairs
    return pairs.only(np.sort(np.argsort(-pairs.scores, kind="stable")[:MAX_PAIRS]))


def _levels_of(descriptors: DescriptorSet, names: set[str], scale: Scale) -> dict[str, float]:
    """Return what the background takes off similarities of the images that are named."""
    part = descriptors.only([row for row, name in enumerate(descriptors.ids) if name in names])
    return dict(zip(part.ids, (-scale.bias(part.vectors)).tolist(), strict=True))


def _names(pairs: Pairs) -> list[tuple[str, str]]:
    return list(zip(pairs.queries, pairs.references, strict=True))


def _joined(inside: Pairs, across: Pairs) -> Pairs:
    return Pairs(
        queries=[*inside.queries, *across.queries],
        references=[*inside.references, *across.references],
        scores=np.concatenate([inside.scores, across.scores]),
    )
