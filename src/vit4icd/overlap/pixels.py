"""Whether two pictures agree in pixels once one is laid on the other; it knows no features."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from vit4icd.overlap.geometry import slope

__all__ = ["Agreement", "measure_agreement"]

_WINDOW = 9  # pixels of the side of what is compared
_SMOOTH = 17  # pixels of the side over which the mean is taken away: slow gradients are no proof
_GRAIN = 3.0  # standard deviation of gray levels from which a window shows something
_ALIKE = 0.6  # correlation of two windows from which they show the same
_FINEST = 0.7  # a picture reduced by less than this is smoothed first
_MIN_PIXELS = 64  # that must show something
_PATCH = 5  # pixels of the side of what is seen to be altered: edges that moved a little cancel out

Pixels = UInt8[np.ndarray, "_ _ 3"]
Gray = Float32[np.ndarray, "height width"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far the common part of two pictures is the same picture."""

    share: float
    """Of what shows something, the share that shows the same: 0 to 1."""
    support: float
    """Of the whole common part, the share that shows the same."""
    difference: float
    """Mean absolute difference of the colours, in levels of 255."""
    alteration: float
    """The same of the patch of 5 x 5 pixels that differs most, by its mean colour."""


def measure_agreement(
    query: Pixels, reference: Pixels, matrix: Float64[np.ndarray, "3 3"]
) -> Agreement:
    """Lay one picture on the other and compare windows of 9 x 9 pixels by their correlation.

    ``matrix`` takes reference to query coordinates, both in shares of width and height. The picture
    that shows the common part larger is reduced to the other's grid. Correlation ignores brightness
    and contrast; windows that are flat in both pictures say nothing and do not count.
    """
    fixed, moved, inside = _laid(query, reference, matrix)
    left, right = _detail(fixed, inside), _detail(moved, inside)
    alike, spread, covered = _correlations(left, right, inside)
    telling = (inside > 0) & (covered > 0.5) & (spread > _GRAIN)
    if telling.sum() < _MIN_PIXELS:
        return Agreement(share=0.0, support=0.0, difference=255.0, alteration=255.0)
    change = np.where(inside[..., None] > 0, fixed - moved, 0)
    same = float((alike[telling] > _ALIKE).sum())
    return Agreement(
        share=same / float(telling.sum()),
        support=same / float(inside.sum()),
        difference=float(np.abs(change)[inside > 0].mean()),
        alteration=float(np.abs(cv2.blur(change, (_PATCH, _PATCH))).max()),
    )


def _laid(
    query: Pixels, reference: Pixels, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Gray]:
    """Return one picture, the other one warped onto it, and 1 where both are."""
    fixed, moved, to_fixed = query, reference, _between(query, reference, matrix)
    middle = np.array([reference.shape[1] / 2, reference.shape[0] / 2])
    factor = math.sqrt(abs(float(np.linalg.det(slope(to_fixed, middle)))))
    if factor > 1:
        fixed, moved, to_fixed = reference, query, np.linalg.inv(to_fixed)
        factor = 1 / factor
    if factor < _FINEST:
        moved = cv2.GaussianBlur(moved, (0, 0), 0.5 * math.sqrt(1 / factor**2 - 1))
    size = fixed.shape[1], fixed.shape[0]
    warped = cv2.warpPerspective(moved.astype(np.float32), to_fixed, size)
    inside = cv2.warpPerspective(np.ones(moved.shape[:2], np.float32), to_fixed, size)
    return fixed.astype(np.float32), warped, (inside > 0.99).astype(np.float32)


def _between(query: Pixels, reference: Pixels, matrix: np.ndarray) -> np.ndarray:
    """Return the matrix between pixel numbers, which count from the middle of a pixel."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    to_query = np.diag([query.shape[1], query.shape[0], 1.0])
    to_shares = np.diag([1 / reference.shape[1], 1 / reference.shape[0], 1.0])
    return np.asarray(np.linalg.inv(half) @ to_query @ matrix @ to_shares @ half)


def _detail(pixels: np.ndarray, inside: Gray) -> Gray:
    """Return the gray picture less its local mean, 0 outside."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    mean = _mean(gray * inside, _SMOOTH) / np.maximum(_mean(inside, _SMOOTH), 1e-6)
    return np.asarray((gray - mean) * inside)


def _correlations(left: Gray, right: Gray, inside: Gray) -> tuple[Gray, Gray, Gray]:
    """Return each window's correlation, its larger standard deviation, and its share inside."""
    covered = _mean(inside)
    weight = np.maximum(covered, 1e-6)
    mean_left, mean_right = _mean(left) / weight, _mean(right) / weight
    variance_left = _mean(left * left) / weight - mean_left**2
    variance_right = _mean(right * right) / weight - mean_right**2
    product = _mean(left * right) / weight - mean_left * mean_right
    scale = np.sqrt(np.maximum(variance_left, 1) * np.maximum(variance_right, 1))
    spread = np.sqrt(np.maximum(np.maximum(variance_left, variance_right), 0))
    return product / scale, spread, covered


def _mean(values: Gray, side: int = _WINDOW) -> Gray:
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT))
