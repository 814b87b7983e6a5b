"""What two pictures have in common: proposed by features, measured by geometry and pixels."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

from vit4icd.errors import ConfigError
from vit4icd.overlap.codes import mirrored
from vit4icd.overlap.features import LocalFeatures
from vit4icd.overlap.geometry import area, clipped, decomposed, frame, homography, project, slope
from vit4icd.overlap.pixels import measure_agreement

__all__ = ["Overlap", "OverlapConfig", "find_overlap"]

_RATIO = 0.8  # Lowe's: the second nearest feature is this much further away
_RADIUS = 3.0  # working pixels by which a matched point may miss its place
_ALIKE = 0.55  # inner product from which two features in the right places are the same
_MIN_SEEDS = 5  # distinctive matches that a guess at the geometry must rest on
_CELL = 6.0  # working pixels: matches that share such a cell count once
_MAX_STRETCH = 8.0  # of one direction against the other, of the nearest end against the farthest
_WHOLE = 0.95  # share of both pictures from which they are laid on each other whole
_UPRIGHT = 0.5  # degrees, likewise: colours are compared so, for features place them less well
_SMALLEST = 0.01  # share of either picture that can be the common part
_CERTAIN = 0.8  # certainty from which no other geometry is tried

Polygon = Float64[np.ndarray, "corner 2"]
Matrix = Float64[np.ndarray, "3 3"]
Matches = Int64[np.ndarray, "_ 2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlapConfig:
    """What counts as proof.

    Raises:
        ConfigError: a field out of range.
    """

    min_certainty: float = 0.55
    """Mean of agreement and consensus: look-alikes fall short in one or the other."""
    min_agreement: float = 0.4
    """Of what the common part shows, the share that must agree in pixels."""
    min_consensus: float = 0.4
    """Of the distinctive matches there, the share that must agree on the geometry."""
    min_matches: int = 8
    """Places at which local features must agree, unless the pictures agree whole."""
    min_share: float = 0.3
    """Share of one of the pictures that the common part must cover: a logo in both is less."""
    min_support: float = 0.2
    """Share of one of the pictures that must be seen to be the same: a line of text is less."""

    def __post_init__(self) -> None:
        if self.min_matches < 4:
            raise ConfigError(f"min_matches must be at least 4, not {self.min_matches}")
        for name, value in asdict(self).items():
            if name != "min_matches" and not 0 <= value <= 1:
                raise ConfigError(f"{name} lies between 0 and 1, not {value}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Overlap:
    """The part that a query and a reference have in common, and how it lies in each.

    Polygons are corners x, y in shares of width and height, from the top left corner. The matrix
    takes such reference coordinates to query coordinates. Angles are degrees clockwise.
    """

    agreement: float
    """Of what the common part shows, the share that agrees in pixels."""
    consensus: float
    """Of the distinctive matches of features there, the share that agrees on the geometry."""
    n_matches: int
    """Places at which features agree; 0 where pictures without features agree whole."""
    support: float
    """Share that is seen to be the same, of the picture of which the common part is more."""
    difference: float
    """Mean absolute difference of the common part's colours, in levels of 255."""
    alteration: float
    """The same of the small patch that differs most: what was drawn, written or wiped out there."""
    query_polygon: Polygon
    reference_polygon: Polygon
    query_share: float
    reference_share: float
    """Share of each picture's area that the common part covers."""
    matrix: Matrix
    flipped: bool
    """Whether the query shows it mirrored; the rotation is that of the mirrored picture."""
    rotation: float
    scale: float
    """Query pixels per reference pixel, at the middle of the common part."""
    perspective: float
    """How much larger the nearest corner of the common part is drawn than the farthest; 0: not."""

    @property
    def certainty(self) -> float:
        """Mean of agreement and consensus: a look-alike falls short in one of them, 0 to 1."""
        return (self.agreement + self.consensus) / 2

    @property
    def motion(self) -> str:
        """How the reference was moved to lie in the query, in words.

        It is mirrored left to right first, then turned clockwise and scaled.
        """
        words = [
            *(["mirrored"] if self.flipped else []),
            *([f"turned by {self.rotation:.0f}°"] if abs(self.rotation) >= 1 else []),
            f"scale {self.scale:.2f}",
            *([f"perspective {self.perspective:.2f}"] if self.perspective >= 0.05 else []),
        ]
        return ", ".join(words)

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {
            "certainty": round(self.certainty, 4),
            "agreement": round(self.agreement, 4),
            "consensus": round(self.consensus, 4),
            "support": round(self.support, 4),
            "matches": self.n_matches,
            "difference": round(self.difference, 2),
            "alteration": round(self.alteration, 2),
            "query_share": round(self.query_share, 4),
            "reference_share": round(self.reference_share, 4),
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

    Distinctive matches of local features propose a homography (MAGSAC), for the query as it is and
    mirrored; beside them, the pictures are laid on each other whole. Then one thumbnail is laid on
    the other, and the common part must agree in pixels, and in most of the distinctive matches that
    lie in it: photographs of the same thing agree in some places only.

    Source: Barath et al., MAGSAC++, 2020, in OpenCV's implementation.
    """
    config = config or OverlapConfig()
    best: Overlap | None = None
    for proposal in _proposals(_Side.of(query), _Side.of(reference)):
        found = _measured(query, reference, proposal)
        if found is None or not _is_proof(found, config):
            continue
        if best is None or found.certainty > best.certainty:
            best = found
        if best.certainty >= _CERTAIN:
            break
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One picture's features in working pixels."""

    size: Float64[np.ndarray, "2"]
    points: Float32[np.ndarray, "feature 2"]
    vectors: Float32[np.ndarray, "feature dim"]

    @classmethod
    def of(cls, features: LocalFeatures) -> "_Side":
        return cls(features.size, features.points, features.vectors)

    def in_the_mirror(self) -> "_Side":
        flipped = project(self.points, _mirror(self.size)).astype(np.float32)
        return _Side(self.size, flipped, mirrored(self.vectors))


@dataclass(frozen=True, slots=True, eq=False)
class _Proposal:
    """A geometry, from reference to query in working pixels, and what speaks for it."""

    matrix: Matrix
    query: _Side
    """Mirrored where the geometry is for the mirrored query."""
    reference: _Side
    matches: Matches
    seeds: Matches
    is_mirrored: bool

    @property
    def full_matrix(self) -> Matrix:
        return _mirror(self.query.size) @ self.matrix if self.is_mirrored else self.matrix


def _proposals(query: _Side, reference: _Side) -> Iterator[_Proposal]:
    """Give the geometries worth measuring, for the query as it is and mirrored.

    Distinctive matches propose them; pictures that have none are laid on each other whole.
    """
    for is_mirrored in (False, True):
        side = query.in_the_mirror() if is_mirrored else query  # MAGSAC knows no mirrors
        seeds = _distinctive(side, reference)
        if len(seeds) < _MIN_SEEDS:
            matrix: Matrix | None = np.diag([*(query.size / reference.size), 1.0])
        else:
            matrix = _fitted(side, reference, seeds, cv2.USAC_MAGSAC)
        if matrix is not None:
            yield _refined(matrix, side, reference, seeds, is_mirrored)


def _refined(
    matrix: Matrix, query: _Side, reference: _Side, seeds: Matches, is_mirrored: bool
) -> _Proposal:
    for _ in range(2):
        fitted = _fitted(query, reference, _guided(query, reference, matrix), cv2.RANSAC)
        matrix = matrix if fitted is None else fitted
    matches = _apart(query, reference, _guided(query, reference, matrix))
    return _Proposal(matrix, query, reference, matches, seeds, is_mirrored)


def _distinctive(query: _Side, reference: _Side) -> Matches:
    """Return each query feature with its nearest reference feature, where the second is far."""
    if min(len(query.points), len(reference.points)) < _MIN_SEEDS:
        return np.empty((0, 2), np.int64)
    alike = query.vectors @ reference.vectors.T
    rows = np.arange(len(alike))
    nearest = alike.argmax(axis=1)
    first = alike[rows, nearest]
    alike[rows, nearest] = -1
    second = alike.max(axis=1)
    is_distinctive = 1 - first < _RATIO**2 * (1 - second)  # |a - b|^2 = 2 - 2 <a, b>
    return np.stack([rows[is_distinctive], nearest[is_distinctive]], axis=1)


def _fitted(query: _Side, reference: _Side, matches: Matches, method: int) -> Matrix | None:
    if len(matches) < _MIN_SEEDS:
        return None
    source, target = reference.points[matches[:, 1]], query.points[matches[:, 0]]
    return homography(source, target, radius=_RADIUS, method=method, min_inside=_MIN_SEEDS)


def _guided(query: _Side, reference: _Side, matrix: Matrix) -> Matches:
    """Return the pairs that are each other's most alike among those in the right place."""
    there = project(reference.points, matrix)
    distances = np.square(query.points[:, None, 0] - there[None, :, 0])
    distances += np.square(query.points[:, None, 1] - there[None, :, 1])
    rows, columns = np.nonzero(distances <= _RADIUS**2)
    alike = np.einsum("md,md->m", query.vectors[rows], reference.vectors[columns])
    best_row = np.full(len(query.points), _ALIKE, np.float32)
    best_column = np.full(len(reference.points), _ALIKE, np.float32)
    np.maximum.at(best_row, rows, alike)
    np.maximum.at(best_column, columns, alike)
    mutual = (alike >= best_row[rows]) & (alike >= best_column[columns])
    return np.stack([rows[mutual], columns[mutual]], axis=1)


def _apart(query: _Side, reference: _Side, matches: Matches) -> Matches:
    """Keep one match of those that share a cell in either picture."""
    for side, column in ((query, 0), (reference, 1)):
        cells = (side.points[matches[:, column]] // _CELL).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        matches = matches[np.sort(first)]
    return matches


def _measured(
    query: LocalFeatures, reference: LocalFeatures, proposal: _Proposal
) -> Overlap | None:
    """Return the common part; None where no picture can be moved so."""
    matrix, sizes = proposal.full_matrix, (proposal.query.size, proposal.reference.size)
    query_polygon = _common_part(matrix, *sizes)
    if query_polygon is None:
        return None
    reference_polygon = project(query_polygon, np.linalg.inv(matrix))
    flipped, rotation, scale, stretch = decomposed(slope(matrix, reference_polygon.mean(axis=0)))
    nearness = (np.c_[reference_polygon, np.ones(len(reference_polygon))] @ matrix.T)[:, 2]
    perspective = float(nearness.max() / nearness.min() - 1)
    if max(stretch, perspective + 1) > _MAX_STRETCH:
        return None
    shares = (
        min(1.0, float(abs(area(query_polygon)) / sizes[0].prod())),
        min(1.0, float(abs(area(reference_polygon)) / sizes[1].prod())),
    )
    unit = np.diag([*(1 / sizes[0]), 1]) @ matrix @ np.diag([*sizes[1], 1])
    agreement = measure_agreement(query.pixels, reference.pixels, unit)
    laid = agreement
    if min(shares) >= _WHOLE and not flipped and abs(rotation) <= _UPRIGHT:
        laid = measure_agreement(query.pixels, reference.pixels, np.eye(3))
    to_pixels = (query.width / sizes[0][0]) / (reference.width / sizes[1][0])
    return Overlap(
        agreement=agreement.share,
        consensus=_consensus(proposal),
        n_matches=len(proposal.matches),
        support=agreement.support * max(shares),
        difference=laid.difference,
        alteration=laid.alteration,
        query_polygon=(query_polygon / sizes[0]).clip(0, 1),
        reference_polygon=(reference_polygon / sizes[1]).clip(0, 1),
        query_share=shares[0],
        reference_share=shares[1],
        matrix=unit / unit[2, 2],
        flipped=flipped,
        rotation=rotation,
        scale=float(scale * to_pixels),
        perspective=perspective,
    )


def _consensus(proposal: _Proposal) -> float:
    """Return the share of distinctive matches inside the common part that agree on it.

    Where there are hardly any, nothing speaks for or against: one half.
    """
    source = proposal.reference.points[proposal.seeds[:, 1]]
    target = proposal.query.points[proposal.seeds[:, 0]]
    there, back = project(source, proposal.matrix), project(target, np.linalg.inv(proposal.matrix))
    inside = ((there >= 0) & (there <= proposal.query.size)).all(axis=1)
    inside &= ((back >= 0) & (back <= proposal.reference.size)).all(axis=1)
    if inside.sum() < _MIN_SEEDS:
        return 0.5
    return float((np.linalg.norm(there - target, axis=1)[inside] <= _RADIUS).mean())


def _common_part(
    matrix: Matrix, query_size: np.ndarray, reference_size: np.ndarray
) -> Polygon | None:
    corners = frame(reference_size)
    nearness = (np.c_[corners, np.ones(4)] @ matrix.T)[:, 2]
    warped = project(corners, matrix)
    if nearness.min() <= 0 or not cv2.isContourConvex(warped.astype(np.float32)):
        return None
    polygon = clipped(warped, query_size)
    return polygon if len(polygon) >= 3 and abs(area(polygon)) >= 1 else None


def _is_proof(overlap: Overlap, config: OverlapConfig) -> bool:
    smaller, larger = sorted((overlap.query_share, overlap.reference_share))
    return (
        overlap.certainty >= config.min_certainty
        and overlap.agreement >= config.min_agreement
        and overlap.consensus >= config.min_consensus
        and (overlap.n_matches >= config.min_matches or smaller >= _WHOLE)
        and larger >= config.min_share
        and smaller >= _SMALLEST
        and overlap.support >= config.min_support
    )


def _mirror(size: np.ndarray) -> Matrix:
    return np.array([[-1.0, 0, size[0]], [0, 1, 0], [0, 0, 1]])
