"""A picture's local features: places, what they look like, and a thumbnail, as few bytes."""

import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from vit4icd.errors import FormatError

__all__ = ["DIM", "GRID", "WORKING_SIZE", "LocalFeatures", "local_features"]

WORKING_SIZE = 512
"""Pixels of the long side at which features are taken."""
DIM = 128
"""Numbers that say what a feature looks like."""
GRID = 65_535.0
"""A place is stored in these parts of the picture's width and height."""

_FORMAT = 1
_N_FEATURES = 1_000  # strongest features kept of a picture
_THUMBNAIL = 96  # pixels of its long side
_ROOT_SCALE = 512.0  # a component of RootSIFT is stored in these parts of 1, up to 255

Picture = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalFeatures:
    """A picture's local features: RootSIFT in bytes, 132 bytes a feature, strongest first.

    Source: Lowe, Distinctive image features from scale-invariant keypoints, 2004; Arandjelović and
    Zisserman, Three things everyone should know to improve object retrieval, 2012 (RootSIFT).
    """

    width: int
    height: int
    """Of the picture itself, in pixels."""
    places: UInt16[np.ndarray, "feature 2"]
    """x and y in 65,535ths of width and height."""
    descriptors: UInt8[np.ndarray, "feature 128"]
    thumbnail: UInt8[np.ndarray, "thumbnail_height thumbnail_width"]
    """The picture in gray, small: what pixels are compared by."""

    def __len__(self) -> int:
        return len(self.places)

    def to_bytes(self) -> bytes:
        """Return the features as bytes: a head of little-endian uint32, then the arrays."""
        rows, columns = self.thumbnail.shape
        head = np.array([_FORMAT, self.width, self.height, len(self), rows, columns], "<u4")
        parts = head, self.places.astype("<u2"), self.descriptors, self.thumbnail
        return b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "LocalFeatures":
        """Read what :meth:`to_bytes` gave.

        Raises:
            FormatError: of another length than it says, or of another version.
        """
        head = np.frombuffer(data[:24].ljust(24, b"\0"), "<u4").tolist()
        version, width, height, n_features, rows, columns = head
        places, thumbnail = 24 + 4 * n_features, 24 + (4 + DIM) * n_features
        if version != _FORMAT or len(data) != thumbnail + rows * columns or not width * height:
            raise FormatError(
                f"{len(data)} bytes of format {version} are no local features of this version; "
                "add the picture again"
            )
        return cls(
            width=width,
            height=height,
            places=np.frombuffer(data[24:places], "<u2").reshape(-1, 2).astype(np.uint16),
            descriptors=np.frombuffer(data[places:thumbnail], np.uint8).reshape(-1, DIM),
            thumbnail=np.frombuffer(data[thumbnail:], np.uint8).reshape(rows, columns),
        )


def local_features(image: Picture) -> LocalFeatures:
    """Return the strongest local features of an RGB picture, taken at the working size."""
    height, width = image.shape[:2]
    scale = WORKING_SIZE / max(height, width)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    filtering = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=filtering)
    points, vectors = _sift(_N_FEATURES).detectAndCompute(gray, None)
    if not points:
        points, vectors = (), np.empty((0, DIM), np.float32)
    order = np.argsort([-point.response for point in points], kind="stable")[:_N_FEATURES]
    order = order.astype(np.intp)
    places = np.array([point.pt for point in points], np.float64).reshape(-1, 2)[order]
    places = (places + 0.5) / np.array(size)
    roots = np.sqrt(vectors[order] / np.maximum(vectors[order].sum(axis=1, keepdims=True), 1e-9))
    return LocalFeatures(
        width=width,
        height=height,
        places=(places.clip(0, 1) * GRID).round().astype(np.uint16),
        descriptors=(roots * _ROOT_SCALE).round().clip(0, 255).astype(np.uint8),
        thumbnail=_thumbnail(gray),
    )


_of_this_thread = threading.local()  # a detector keeps its pyramid: threads must not share one


def _sift(n_features: int) -> Any:
    detectors: dict[int, Any] = _of_this_thread.__dict__.setdefault("detectors", {})
    if n_features not in detectors:
        detectors[n_features] = cv2.SIFT.create(
            nfeatures=n_features, contrastThreshold=0.01, edgeThreshold=15
        )
    return detectors[n_features]


def _thumbnail(gray: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "rows columns"]:
    height, width = gray.shape
    scale = _THUMBNAIL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small: UInt8[np.ndarray, "rows columns"] = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return small
