"""A reference laid over the query it was found in, drawn from their previews; it proves nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from vit4icd.images import read_image
from vit4icd.overlap import find_overlap, local_features
from vit4icd.service.previews import encode_jpeg

__all__ = ["Proving", "draw_overlay", "prove"]

_ACCENT = (37, 99, 174)  # RGB of the outline
_FADED = 0.25  # how much of the query's colour is left outside of the common part

Image = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True, slots=True)
class Proving:
    """Proofs of kept matches, from their two previews: a kind of work for the engine's queue."""

    def pictures(self, item: tuple[bytes, bytes]) -> Sequence[bytes]:
        """Return nothing: previews are small."""
        return ()

    def run(self, items: Sequence[tuple[bytes, bytes]]) -> list[dict[str, Any] | None]:
        """Prove the pairs one after another."""
        return [prove(*item) for item in items]


def prove(query: bytes, reference: bytes) -> dict[str, Any] | None:
    """Return what two previews have in common, as JSON; None where nothing is proven."""
    sides = [local_features(read_image(data)) for data in (query, reference)]
    overlap = find_overlap(sides[0], sides[1])
    return None if overlap is None else overlap.to_json()


def draw_overlay(query: bytes, reference: bytes, overlap: Mapping[str, Any]) -> bytes:
    """Return a JPEG of the query, faded, with the reference in its place, outlined."""
    below, above = read_image(query), read_image(reference)
    height, width = below.shape[:2]
    matrix = _in_pixels(overlap["matrix"], below, above)
    laid = cv2.warpPerspective(above, matrix, (width, height), flags=cv2.INTER_AREA)
    inside = cv2.warpPerspective(np.full(above.shape[:2], 255, np.uint8), matrix, (width, height))
    faded = (255 - (255 - below.astype(np.float32)) * _FADED).astype(np.uint8)
    drawn = np.where(inside[:, :, None] > 127, laid, faded)
    corners = np.asarray(overlap["query_polygon"], np.float64) * [width, height]
    thickness = max(2, round(max(width, height) / 300))
    cv2.polylines(drawn, [corners.round().astype(np.int32)], True, _ACCENT, thickness, cv2.LINE_AA)
    return encode_jpeg(drawn)


def _in_pixels(
    matrix: Sequence[Sequence[float]], query: Image, reference: Image
) -> Float64[np.ndarray, "3 3"]:
    """Return the map from reference to query in pixels; the overlap's own is in shares of sides."""
    to_query = np.diag([query.shape[1], query.shape[0], 1.0])
    from_reference = np.diag([1 / reference.shape[1], 1 / reference.shape[0], 1.0])
    return to_query @ np.asarray(matrix, np.float64) @ from_reference
