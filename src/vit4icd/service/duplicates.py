"""Groups of copies within one collection, from its descriptors alone; it proves none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vit4icd.groups import Strictness, group_pairs
from vit4icd.scores import ScoreNormalisation, normalise
from vit4icd.search import self_pairs
from vit4icd.service.library import Shelf
from vit4icd.service.problems import Problem
from vit4icd.thresholds import Threshold

__all__ = ["MAX_IMAGES", "Grouping", "Groups"]

MAX_IMAGES = 200_000
"""Pictures of the largest collection that is grouped within one request."""

_MAX_PAIRS = 1_000_000


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of ids, and the score from which on two are linked."""

    groups: Sequence[Sequence[str]]
    threshold: float


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of one collection."""

    shelf: Shelf
    threshold: Threshold
    strictness: Strictness

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
        threshold = self.shelf.least_score(self.threshold)
        describer = self.shelf.collection.describer
        background, calibration = describer.background, describer.calibration
        bias = np.zeros(len(descriptors), np.float32)
        if background is not None and calibration is not None and len(descriptors):
            config = ScoreNormalisation(
                factor=calibration.factor, neighbours=calibration.neighbours
            )
            bias = normalise(descriptors, background, config=config).bias
        pairs = self_pairs(descriptors, threshold=threshold, bias=bias, max_pairs=_MAX_PAIRS)
        return Groups(group_pairs(descriptors.ids, pairs, strictness=self.strictness), threshold)
