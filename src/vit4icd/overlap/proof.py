"""What two pictures have in common: proposed by features, measured by geometry and pixels."""

import math
from dataclasses import dataclass, replace

import cv2
import faiss
import numpy as np
from jaxtyping import Float32, Float64

from vit4icd.errors import ConfigError
from vit4icd.overlap.features import DIM, GRID, WORKING_SIZE, LocalFeatures
from vit4icd.overlap.geometry import (
    area,
    clipped,
    decomposed,
    frame,
    homography,
    project,
    slope,
)

__all__ = ["Overlap", "OverlapConfig", "find_overlap"]

_RADIUS = 4.0  # working pixels by which a matched point may miss its place
_AGREE = 0.80  # cosine of RootSIFT from which two features in the right places are the same
_MIN_SEEDS = 5  # matches that a first guess at the geometry must rest on
_MAX_STRETCH = 8.0  # of one direction against the other, of the nearest end against the farthest
_CELL = 8.0  # working pixels: matches that share such a cell count once
_MIRRORED_ORIENTATIONS = [0, 7, 6, 5, 4, 3, 2, 1]

Polygon = Float64[np.ndarray, "corner 2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlapConfig:
    """How local features are taken and what counts as proof.

    Raises:
        ConfigError: a field out of range.
    """

    ratio: float = 0.8
    """Lowe's ratio: the second nearest feature must be this much further away."""
    min_matches: int = 14
    """Places that must agree on the geometry."""
    min_share: float = 0.01
    """Share of either picture that the common part must have."""
    min_support: float = 0.08
    """Share of the common part over which matches must be spread: text or a logo is less."""

    def __post_init__(self) -> None:
        if self.min_matches < 4:
            raise ConfigError(f"min_matches must be at least 4, not {self.min_matches}")
        for name in ("ratio", "min_share", "min_support"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} lies between 0 and 1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Overlap:
    """The part that a query and a reference have in common, and how it lies in each.

    Polygons are corners x, y in shares of width and height, from the top left corner. The matrix
    takes such reference coordinates to query coordinates. Angles are degrees clockwise.
    """

    n_matches: int
    """Places at which the local features agree."""
    query_polygon: Polygon
    reference_polygon: Polygon
    query_share: float
    reference_share: float
    """Share of each picture's area that the common part covers."""
    support: float
    """Share of the common part over which the matches are spread."""
    agreement: float
    """Correlation of the pixels there, -1 to 1, one picture laid on the other."""
    matrix: Float64[np.ndarray, "3 3"]
    flipped: bool
    rotation: float
    scale: float
    """Query pixels per reference pixel, at the middle of the common part."""
    perspective: float
    """How much larger the nearest corner of the common part is drawn than the farthest; 0: not."""

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {
            "matches": self.n_matches,
            "query_share": round(self.query_share, 4),
            "reference_share": round(self.reference_share, 4),
            "support": round(self.support, 4),
            "agreement": round(self.agreement, 4),
            "query_polygon": self.query_polygon.round(4).tolist(),
            "reference_polygon": self.reference_polygon.round(4).tolist(),
            "flipped": self.flipped,
            "rotation": round(self.rotation, 1),
            "scale": round(self.scale, 4),
            "perspective": round(self.perspective, 3),
            "matrix": self.matrix.tolist(),
        }


def find_overlap(
    query: LocalFeatures, reference: LocalFeatures, config: OverlapConfig | None = None
) -> Overlap | None:
    """Return what the two pictures have in common, or None where nothing is proven.

    Distinctive matches propose a homography (MAGSAC), for the query as it is and mirrored; then
    every feature that finds its like where the homography says is counted, and the count must reach
    ``min_matches`` in places that are apart.

    Source: Barath et al., MAGSAC++, 2020, in OpenCV's implementation.
    """
    config = config or OverlapConfig()
    if min(len(query), len(reference)) < config.min_matches:
        return None
    ours, theirs = _Side.of(query, WORKING_SIZE), _Side.of(reference, WORKING_SIZE)
    both = ours.vectors, _mirrored(ours.vectors)
    best: Overlap | None = None
    for flipped, vectors, seeds in _proposals(both, theirs.vectors, config.ratio):
        # MAGSAC knows no mirrors: a mirrored query is turned back first
        mirror = np.array([[-1.0, 0, ours.size[0]], [0, 1, 0], [0, 0, 1]]) if flipped else np.eye(3)
        targets = project(ours.points[seeds[:, 0]], mirror)
        matrix = homography(theirs.points[seeds[:, 1]], targets, cv2.USAC_MAGSAC)
        if matrix is None:
            continue
        matrix = mirror @ matrix
        found = _measured(_Side(ours.size, ours.points, vectors), theirs, matrix, config)
        if found is not None and (best is None or found.n_matches > best.n_matches):
            best = found
    if best is None:
        return None
    return replace(best, agreement=_agreement(query, reference, best.matrix))


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One picture in working pixels, its features of length 1."""

    size: Float64[np.ndarray, "2"]
    points: Float32[np.ndarray, "feature 2"]
    vectors: Float32[np.ndarray, "feature 128"]

    @classmethod
    def of(cls, features: LocalFeatures, long_side: int) -> "_Side":
        size = np.array([features.width, features.height], np.float64)
        size *= long_side / size.max()
        vectors = features.descriptors.astype(np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return cls(size, (features.places / GRID * size).astype(np.float32), vectors)


def _agreement(
    query: LocalFeatures, reference: LocalFeatures, unit: Float64[np.ndarray, "3 3"]
) -> float:
    """Return the correlation of the thumbnails where they overlap, the reference laid on the query.

    Of the two, the one that shows the part larger is reduced to the other's size.
    """
    ours, theirs = query.thumbnail, reference.thumbnail
    to_query = np.diag([ours.shape[1], ours.shape[0], 1.0])
    matrix = to_query @ unit @ np.diag([1 / theirs.shape[1], 1 / theirs.shape[0], 1.0])
    if abs(np.linalg.det(matrix[:2, :2])) > 1:  # the reference is enlarged: go the other way
        matrix, ours, theirs = np.linalg.inv(matrix), theirs, ours
    size = ours.shape[1], ours.shape[0]
    warped = cv2.warpPerspective(theirs, matrix, size, flags=cv2.INTER_AREA)
    inside = cv2.warpPerspective(np.full_like(theirs, 255), matrix, size) > 250
    if inside.sum() < 16:
        return 0.0
    left, right = ours[inside].astype(np.float64), warped[inside].astype(np.float64)
    left, right = left - left.mean(), right - right.mean()
    spread = math.sqrt(float((left @ left) * (right @ right)))
    return float(left @ right) / spread if spread > 0 else 0.0


def _mirrored(vectors: Float32[np.ndarray, "feature 128"]) -> Float32[np.ndarray, "feature 128"]:
    """Return the features that the mirrored picture would have: rows and turns reversed."""
    bins = vectors.reshape(-1, 4, 4, 8)[:, ::-1][..., _MIRRORED_ORIENTATIONS]
    mirrored: Float32[np.ndarray, "feature 128"] = np.ascontiguousarray(bins.reshape(-1, DIM))
    return mirrored


def _proposals(
    both: tuple[np.ndarray, np.ndarray], theirs: np.ndarray, ratio: float
) -> list[tuple[bool, np.ndarray, np.ndarray]]:
    """Return (flipped, query vectors, distinctive matches [match, (query, reference)])."""
    cosines, rows = faiss.knn(np.concatenate(both), theirs, 2, metric=faiss.METRIC_INNER_PRODUCT)
    distances = np.sqrt(np.maximum(2.0 - 2.0 * cosines, 0.0))
    distinctive = distances[:, 0] < ratio * distances[:, 1]
    proposals = []
    for half, vectors in enumerate(both):
        start = half * len(vectors)
        mine = np.flatnonzero(distinctive[start : start + len(vectors)])
        seeds = np.stack([mine, rows[start + mine, 0]], axis=1)
        if len(seeds) >= _MIN_SEEDS:
            proposals.append((bool(half), vectors, seeds))
    return proposals


def _measured(
    ours: _Side, theirs: _Side, matrix: np.ndarray, config: OverlapConfig
) -> Overlap | None:
    """Count the features that agree with the geometry, twice, and say what it means."""
    matches = np.empty((0, 2), np.intp)
    for _ in range(2):
        matches = _guided(ours, theirs, matrix)
        if len(matches) < config.min_matches:
            return None
        refined = homography(theirs.points[matches[:, 1]], ours.points[matches[:, 0]])
        matrix = matrix if refined is None else refined
    matches = _apart(ours, theirs, _guided(ours, theirs, matrix))
    if len(matches) < config.min_matches:
        return None
    return _described(ours, theirs, matrix, matches, config)


def _guided(ours: _Side, theirs: _Side, matrix: np.ndarray) -> np.ndarray:
    """Return the pairs that are each other's most alike among those in the right place."""
    projected = project(theirs.points, matrix)
    apart = np.square(ours.points[:, None, 0] - projected[None, :, 0])
    apart += np.square(ours.points[:, None, 1] - projected[None, :, 1])
    rows, columns = np.nonzero(apart <= _RADIUS**2)
    alike = np.einsum("id,id->i", ours.vectors[rows], theirs.vectors[columns])
    best_row = np.full(len(ours.points), _AGREE, np.float32)
    best_column = np.full(len(theirs.points), _AGREE, np.float32)
    np.maximum.at(best_row, rows, alike)
    np.maximum.at(best_column, columns, alike)
    mutual = (alike >= best_row[rows]) & (alike >= best_column[columns])
    return np.stack([rows[mutual], columns[mutual]], axis=1)


def _apart(ours: _Side, theirs: _Side, matches: np.ndarray) -> np.ndarray:
    """Keep one match of those that share a cell in either picture."""
    for side, column in ((ours, 0), (theirs, 1)):
        cells = (side.points[matches[:, column]] // _CELL).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        matches = matches[np.sort(first)]
    return matches


def _described(
    ours: _Side, theirs: _Side, matrix: np.ndarray, matches: np.ndarray, config: OverlapConfig
) -> Overlap | None:
    """Return the common part; None where the geometry is none that a picture goes through."""
    warped = project(frame(theirs.size), matrix)
    nearness = (np.c_[frame(theirs.size), np.ones(4)] @ matrix.T)[:, 2]
    if nearness.min() <= 0 or not cv2.isContourConvex(warped.astype(np.float32)):
        return None
    query_polygon = clipped(warped, ours.size)
    covered = abs(area(query_polygon))
    if len(query_polygon) < 3 or covered < 1:
        return None
    reference_polygon = project(query_polygon, np.linalg.inv(matrix))
    shares = covered / ours.size.prod(), abs(area(reference_polygon)) / theirs.size.prod()
    hull = cv2.convexHull(ours.points[matches[:, 0]])
    support = min(1.0, cv2.contourArea(hull) / covered)
    middle = reference_polygon.mean(axis=0)
    flipped, rotation, scale, stretch = decomposed(slope(matrix, middle))
    weights = (np.c_[reference_polygon, np.ones(len(reference_polygon))] @ matrix.T)[:, 2]
    perspective = float(weights.max() / weights.min() - 1)
    if stretch > _MAX_STRETCH or perspective > _MAX_STRETCH - 1:
        return None
    if min(shares) < config.min_share or support < config.min_support:
        return None
    to_query, to_reference = np.diag([*(1 / ours.size), 1]), np.diag([*theirs.size, 1])
    unit = to_query @ matrix @ to_reference
    return Overlap(
        n_matches=len(matches),
        query_polygon=(query_polygon / ours.size).clip(0, 1),
        reference_polygon=(reference_polygon / theirs.size).clip(0, 1),
        query_share=float(min(1.0, shares[0])),
        reference_share=float(min(1.0, shares[1])),
        support=float(support),
        agreement=0.0,
        matrix=unit / unit[2, 2],
        flipped=flipped,
        rotation=rotation,
        scale=scale,
        perspective=perspective,
    )
