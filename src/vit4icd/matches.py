"""What a found pair is called: its verdict, and the probability that its proof leaves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from vit4icd.errors import ImageError
from vit4icd.overlap import Overlap, OverlapConfig
from vit4icd.storage import name_fields

__all__ = [
    "COPY_PROBABILITY",
    "Match",
    "Verdict",
    "judge",
    "probability_text",
    "rank_key",
    "refuse_plain",
    "too_plain",
    "weigh",
    "what_differs",
]

COPY_PROBABILITY = 0.9
"""Probability from which a pair is called a copy without proof."""
_PROVEN_PROBABILITY = 0.5  # likewise, with a proof
_POSSIBLE = 0.1  # the probability from which a pair is at least called similar

Verdict = Literal["exact", "copy", "similar", "none"]
"""exact: the same bytes, or the same picture whole; copy: proven, or probable enough; similar:
looks alike, but is not believed to be a copy; none: nothing of the kind."""

# Natural logarithms by which odds change: by the least certain proof, by certainty beyond it, and
# where no proof was found. Measured: docs/decisions/0009-proof.md.
_LEAST_PROOF, _PER_CERTAINTY, _NO_PROOF = 2.0, 20.0, -2.0
_LEAST_CERTAINTY = OverlapConfig().min_certainty
_WHOLE = 0.97  # share of both pictures from which they are the same picture
_SAME_PIXELS = 0.98  # share that agrees in pixels, likewise
_SAME_COLOURS = 5.0  # mean difference in levels: JPEG 30 or half the size is 4, gray 6 or more
_SAME_PATCH = 24.0  # levels by which a small patch may differ: JPEG 80 stays below, writing not
_UPRIGHT = 0.5  # degrees, likewise
_PLAIN_SIDE, _CELLS = 32, 8  # pixels and cells along a side at which structure is looked for
_FLAT = 2.0  # standard deviation of gray levels below which a cell is empty
_GRAINY = 8.0  # the same of all pixels, from which what is flat when reduced is not one colour
_MIN_STRUCTURE = 0.05  # share of cells that must not be empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A query, a reference, and what is to be thought of the two."""

    query: str
    reference: str
    similarity: float
    """Inner product of the descriptors."""
    score: float
    """The similarity, normalised by the background where the model has one."""
    probability: float | None
    """How likely the pair is a copy, its proof considered; None without a calibration."""
    verdict: Verdict
    overlap: Overlap | None
    """What the pictures have in common; None where that was not proven, or not tried."""
    verified: bool
    """Whether a proof was tried."""
    same_bytes: bool = False
    """Whether the two are the same file, byte for byte; from memory: the same pixels."""
    orientation: str = "upright"
    """How the query was turned or mirrored to be found, and which part of it is nearest."""
    reference_part: str = "whole"
    """Which part of the reference is nearest; if not the whole, the score is less by a margin."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What is stored beside the reference."""

    @classmethod
    def judged(
        cls,
        query: str,
        reference: str,
        *,
        similarity: float,
        score: float,
        probability: float | None,
        overlap: Overlap | None,
        verified: bool,
        same_bytes: bool = False,
        least_score: float | None = None,
        orientation: str = "upright",
        reference_part: str = "whole",
        metadata: Mapping[str, str] | None = None,
    ) -> "Match":
        """Return a pair with its verdict; ``probability`` is that of before the proof."""
        verdict = judge(
            same_bytes=same_bytes,
            score=score,
            probability=probability,
            overlap=overlap,
            verified=verified,
            least_score=least_score,
        )
        return cls(
            query=query,
            reference=reference,
            similarity=similarity,
            score=score,
            probability=weigh(probability, overlap=overlap, verified=verified),
            verdict=verdict,
            overlap=overlap,
            verified=verified,
            same_bytes=same_bytes,
            orientation=orientation,
            reference_part=reference_part,
            metadata={} if metadata is None else metadata,
        )

    @property
    def query_part(self) -> str:
        """Which part of the query, turned and mirrored as ``orientation`` says, is nearest."""
        return self.orientation.partition(", ")[2] or "whole"

    @property
    def is_copy(self) -> bool:
        """Whether the verdict is exact or copy."""
        return self.verdict in ("exact", "copy")

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {
            **name_fields("query", self.query),
            **name_fields("reference", self.reference),
            "verdict": self.verdict,
            "same_bytes": self.same_bytes,
            "probability": self.probability,
            "score": round(self.score, 6),
            "similarity": round(self.similarity, 6),
            "verified": self.verified,
            "orientation": self.orientation,
            "query_part": self.query_part,
            "reference_part": self.reference_part,
            "overlap": None if self.overlap is None else self.overlap.to_json(),
            "metadata": dict(self.metadata),
        }


def judge(
    *,
    same_bytes: bool,
    score: float,
    probability: float | None,
    overlap: Overlap | None,
    verified: bool,
    least_score: float | None = None,
) -> Verdict:
    """Return what a pair is called.

    ``probability`` is the calibrated one, before the proof: :func:`weigh` is applied here. A proof
    makes a pair a copy unless something else is likelier even then, as where one reference out of a
    million happens to share a little. A model without calibration calls a pair without proof a copy
    from ``least_score`` on, if it is given; what reaches that is at least similar.

    Example:
        >>> judge(same_bytes=False, score=0.7, probability=0.97, overlap=None, verified=False)
        'copy'
        >>> judge(same_bytes=False, score=0.7, probability=0.97, overlap=None, verified=True)
        'similar'
    """
    if same_bytes or (overlap is not None and what_differs(overlap) is None):
        return "exact"
    weighed = weigh(probability, overlap=overlap, verified=verified)
    if weighed is not None:
        is_copy = weighed >= (COPY_PROBABILITY if overlap is None else _PROVEN_PROBABILITY)
    elif overlap is None:
        is_copy = not verified and least_score is not None and score >= least_score
    else:
        is_copy = True
    if is_copy:
        return "copy"
    is_listed = least_score is not None and score >= least_score
    is_possible = weighed is not None and weighed >= _POSSIBLE
    is_alike = is_listed or is_possible or score > 0 or overlap is not None
    return "similar" if is_alike else "none"


def what_differs(overlap: Overlap) -> str | None:
    """Return what tells two pictures apart although one lies in the other; None: they are one.

    Small copies are compared: what is too small to be seen at 128 pixels is not seen here.
    """
    if overlap.flipped or abs(overlap.rotation) > _UPRIGHT:
        return "one is turned or mirrored against the other"
    if min(overlap.query_share, overlap.reference_share) < _WHOLE:
        return "one shows more than the other"
    if (
        overlap.agreement < _SAME_PIXELS
        or overlap.difference > _SAME_COLOURS
        or overlap.alteration > _SAME_PATCH
    ):
        return "their pixels differ visibly"
    return None


def weigh(probability: float | None, *, overlap: Overlap | None, verified: bool) -> float | None:
    """Return how likely a pair is a copy once its proof was tried.

    By Bayes' rule the odds change by how much more often such a proof is found for copies than for
    pairs that look alike, which grows with its certainty: e^2 times at the least certain proof,
    e^11 times at a perfect one. Where none is found they fall by e^2: some copies cannot be proven.

    Example:
        >>> weigh(0.5, overlap=None, verified=True) < 0.25
        True
    """
    if probability is None or not verified or probability in (0.0, 1.0):
        return probability
    change = _NO_PROOF
    if overlap is not None:
        change = _LEAST_PROOF + _PER_CERTAINTY * (overlap.certainty - _LEAST_CERTAINTY)
    return 1 / (1 + math.exp(-change) * (1 - probability) / probability)


def rank_key(match: Match) -> tuple[bool, float, str]:
    """Return what matches are sorted by: exact and proven ones first, by certainty plus score.

    Among look-alikes a high score misleads; the certainty of a proof tells them from copies.
    """
    certainty = 0.0 if match.overlap is None else match.overlap.certainty
    if match.verdict == "exact":
        certainty = 1.0
    return not certainty, -(certainty + match.score), match.reference


def probability_text(probability: float | None) -> str:
    """Return two decimals, but never a certainty that is none; nothing where it is not known.

    Example:
        >>> probability_text(0.9996), probability_text(0.934), probability_text(0.001)
        ('>.99', '.93', '<.01')
    """
    if probability is None:
        return ""
    if probability >= 0.995:
        return ">.99"
    return "<.01" if probability < 0.005 else f"{probability:.2f}".lstrip("0")


def refuse_plain(image: UInt8[np.ndarray, "_ _ 3"]) -> None:
    """Refuse a picture that cannot be judged.

    Raises:
        ImageError: it is too plain ("image_too_plain").
    """
    if (reason := too_plain(image)) is not None:
        raise ImageError("image_too_plain", f"{reason}: it would match everything like it")


def too_plain(image: UInt8[np.ndarray, "_ _ 3"]) -> str | None:
    """Return why a picture cannot be judged (blank, one colour, hardly any structure), or None.

    Such pictures resemble each other whatever they are; callers refuse them with the reason
    "image_too_plain".

    Example:
        >>> too_plain(np.full((40, 60, 3), 255, np.uint8))
        'the picture is one colour'
    """
    size = (_PLAIN_SIDE, _PLAIN_SIDE)
    small = cv2.resize(_halved(image), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    if float(cv2.meanStdDev(small)[1].max()) < _FLAT:
        grain = float(cv2.meanStdDev(image)[1].max())
        plain = "one colour" if grain < _GRAINY else "fine grain or stripes, without structure"
        return f"the picture is {plain}"
    variances = _cell_means(small**2) - _cell_means(small) ** 2
    if float((variances.max(axis=2) >= _FLAT**2).mean()) < _MIN_STRUCTURE:
        return "the picture has hardly any structure"
    return None


def _halved(image: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return a picture halved as often as it stays twice as large as what is looked at.

    Means of 2 x 2 pixels take a fifth of the time that OpenCV needs for a mean of any others.
    """
    while min(image.shape[:2]) >= 4 * _PLAIN_SIDE:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * height, : 2 * width]
        image = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
    return image


def _cell_means(
    small: Float32[np.ndarray, "side side 3"],
) -> Float32[np.ndarray, "cell cell 3"]:
    means: Float32[np.ndarray, "cell cell 3"] = cv2.resize(
        small, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA
    )
    return means
