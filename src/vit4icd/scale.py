"""What similarities mean to one model, among so many references: scores, probabilities, thresholds.

It compares nothing and judges no pair.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from vit4icd.describer import OnnxDescriber
from vit4icd.matches import COPY_PROBABILITY
from vit4icd.scores import ScoreNormalisation, normalise
from vit4icd.thresholds import Threshold, least_score
from vit4icd.types import DescriptorSet

__all__ = ["Scale"]

_FEWEST = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How scores are made and read: by the model's background and calibration, if it has them.

    ``n_chances`` is how many pairs one query makes: one for each descriptor, of a reference or of
    its part, and view of the query. Fewer than 100 count as 100: pictures that are held together,
    or compared, are often of one kind, and more alike than the random ones of a calibration.
    """

    describer: OnnxDescriber
    n_chances: int

    def bias(self, queries: Float32[np.ndarray, "query dim"]) -> Float32[np.ndarray, " query"]:
        """Return what makes scores of similarities: nothing without a background."""
        background, calibration = self.describer.background, self.describer.calibration
        if background is None or calibration is None or not len(queries):
            return np.zeros(len(queries), np.float32)
        config = ScoreNormalisation(factor=calibration.factor, neighbours=calibration.neighbours)
        names = [str(row) for row in range(len(queries))]
        query_set = DescriptorSet(
            ids=names, vectors=queries, fingerprint=self.describer.fingerprint
        )
        return normalise(query_set, background, config=config).bias

    def probability(self, score: float) -> float | None:
        """Return how likely a pair of this score is a copy; None without a calibration."""
        return self.probabilities(np.array([score]))[0]

    def probabilities(self, scores: Float[np.ndarray, " pair"]) -> list[float | None]:
        """Return how likely each pair is a copy; None without a calibration."""
        calibration = self.describer.calibration
        if calibration is None:
            return [None] * len(scores)
        told = calibration.probability(scores, n_references=max(_FEWEST, self.n_chances))
        return [float(probability) for probability in told]

    def threshold(self, asked: Threshold, *, auto_probability: float = COPY_PROBABILITY) -> float:
        """Return the score from which on a pair is a match.

        Raises:
            ConfigError: no threshold, or one that the model cannot tell.
        """
        return least_score(
            asked,
            n_references=max(_FEWEST, self.n_chances),
            calibration=self.describer.calibration,
            known=self.describer.card.thresholds,
            auto_probability=auto_probability,
        )

    @property
    def auto(self) -> float | None:
        """The threshold "auto"; None for a model that has no calibration and states no P90."""
        if self.describer.calibration is None and "P90" not in self.describer.card.thresholds:
            return None
        return self.threshold("auto")
