"""Two uploaded pictures against each other; it keeps neither."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vit4icd.compare import compare
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ImageError
from vit4icd.images import Source, read_image
from vit4icd.matches import Match
from vit4icd.scale import Scale

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
    flip: bool = False
    """Whether the mirrored query is compared too; what is more alike counts."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Comparing)
            and self.describer is other.describer
            and self.flip == other.flip
        )

    def __hash__(self) -> int:
        return hash((id(self.describer), self.flip))

    @property
    def threshold(self) -> float | None:
        """The score from which on a pair is called a copy without proof, if the model knows it."""
        return Scale(describer=self.describer, n_chances=1).auto

    def pictures(self, item: Pair) -> Sequence[bytes]:
        """Return what will be decoded."""
        return item.query_data, item.reference_data

    def run(self, items: Sequence[Pair]) -> list[Match | Exception]:
        """Compare the pairs one after another."""
        return [self._compared(item) for item in items]

    def _compared(self, pair: Pair) -> Match | Exception:
        try:
            matches = [self._judged(pair.query_data, pair, "upright")]
            if self.flip:
                upright = read_image(pair.query_data, max_pixels=self.max_pixels)
                mirrored = np.ascontiguousarray(upright[:, ::-1])
                matches.append(self._judged(mirrored, pair, "flipped"))
        except ImageError as error:
            return error
        return max(matches, key=lambda match: (match.is_copy, match.probability or 0, match.score))

    def _judged(self, query: Source, pair: Pair, orientation: str) -> Match:
        match = compare(
            query, pair.reference_data, describer=self.describer, max_pixels=self.max_pixels
        )
        return replace(match, query=pair.query, reference=pair.reference, orientation=orientation)
