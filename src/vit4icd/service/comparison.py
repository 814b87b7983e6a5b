"""Two uploaded pictures against each other; it keeps neither."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ImageError
from vit4icd.images import read_image
from vit4icd.matches import Match, judge, too_plain, weigh
from vit4icd.overlap import find_overlap, local_features
from vit4icd.scores import ScoreNormalisation, normalise
from vit4icd.service.library import sha256_of_bytes
from vit4icd.thresholds import least_score
from vit4icd.types import DescriptorSet

__all__ = ["Comparing", "Pair"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a reference, as uploaded."""

    query: str
    query_data: bytes
    reference: str
    reference_data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Comparing:
    """Comparisons by one model, each proven if it can be."""

    describer: OnnxDescriber
    max_pixels: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Comparing) and self.describer is other.describer

    def __hash__(self) -> int:
        return hash(id(self.describer))

    @property
    def threshold(self) -> float:
        """The score from which on a pair is called a copy without proof."""
        return least_score(
            "auto", n_references=1, calibration=self.describer.calibration,
            known=self.describer.card.thresholds,
        )  # fmt: skip

    def run(self, items: Sequence[Pair]) -> list[Match | Exception]:
        """Compare the pairs one after another."""
        return [self._compared(item) for item in items]

    def _compared(self, pair: Pair) -> Match | Exception:
        try:
            query, reference = (self._read(data) for data in (pair.query_data, pair.reference_data))
        except ImageError as error:
            return error
        vectors = self.describer.describe_images([query, reference])
        similarity = float(vectors[0] @ vectors[1])
        score = similarity + self._bias(vectors[:1])
        calibration = self.describer.calibration
        probability = (
            None if calibration is None else float(calibration.probability(score, n_references=1))
        )
        overlap = find_overlap(local_features(query), local_features(reference))
        same_bytes = sha256_of_bytes(pair.query_data) == sha256_of_bytes(pair.reference_data)
        return Match(
            query=pair.query,
            reference=pair.reference,
            similarity=similarity,
            score=score,
            probability=weigh(probability, overlap=overlap, verified=True),
            verdict=judge(
                same_bytes=same_bytes, score=score, probability=probability, overlap=overlap,
                verified=True, least_score=self.threshold,
            ),
            overlap=overlap,
            verified=True,
        )  # fmt: skip

    def _read(self, data: bytes) -> np.ndarray:
        image = read_image(data, max_pixels=self.max_pixels)
        if (reason := too_plain(image)) is not None:
            raise ImageError("image_too_plain", f"{reason}: it would match everything like it")
        return image

    def _bias(self, query: np.ndarray) -> float:
        background, calibration = self.describer.background, self.describer.calibration
        if background is None or calibration is None:
            return 0.0
        config = ScoreNormalisation(factor=calibration.factor, neighbours=calibration.neighbours)
        one = DescriptorSet(ids=["query"], vectors=query, fingerprint=self.describer.fingerprint)
        return float(normalise(one, background, config=config).bias[0])
