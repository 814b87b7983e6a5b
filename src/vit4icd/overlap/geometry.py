"""Homographies and convex polygons: pure functions of points; it sees no pictures."""

import math

import cv2
import numpy as np

__all__ = ["area", "clipped", "decomposed", "frame", "homography", "project", "slope"]


def homography(
    source: np.ndarray, target: np.ndarray, *, radius: float, method: int, min_inside: int
) -> np.ndarray | None:
    """Return the homography from source to target points, or None where there is none.

    Of the points, ``min_inside`` must come within ``radius`` of their targets; ``method`` is one of
    OpenCV's robust estimators.
    """
    try:
        matrix, inside = cv2.findHomography(
            source, target, method, radius, maxIters=3000, confidence=0.999
        )
    except cv2.error:  # all points in one place or on one line
        return None
    found = np.asarray(matrix, np.float64)  # where there is none, OpenCV gives nothing, or nan
    if found.shape != (3, 3) or not np.isfinite(found).all() or inside.sum() < min_inside:
        return None
    return found


def project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return where a homography takes points."""
    lifted = np.c_[points, np.ones(len(points))] @ matrix.T
    flat = lifted[:, :2] / np.where(np.abs(lifted[:, 2:]) < 1e-12, 1e-12, lifted[:, 2:])
    return np.asarray(flat)


def frame(size: np.ndarray) -> np.ndarray:
    """Return the corners of a picture, clockwise from the top left."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return np.asarray(corners * size)


def clipped(polygon: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the part of a convex polygon inside a frame (Sutherland and Hodgman)."""
    for axis, sign, limit in ((0, 1, 0.0), (0, -1, -size[0]), (1, 1, 0.0), (1, -1, -size[1])):
        depths = sign * polygon[:, axis] - limit  # positive inside
        corners = []
        for here, there, depth, other in zip(
            polygon, np.roll(polygon, -1, axis=0), depths, np.roll(depths, -1), strict=True
        ):
            if depth >= 0:
                corners.append(here)
            if depth * other < 0:
                corners.append(here + (there - here) * depth / (depth - other))
        polygon = np.array(corners).reshape(-1, 2)
    return polygon


def area(polygon: np.ndarray) -> float:
    """Return the area of a polygon, negative where its corners go anticlockwise."""
    x, y = polygon.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def slope(matrix: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the 2 x 2 derivative of the homography at a point."""
    lifted = matrix @ np.array([*at, 1.0])
    slope: np.ndarray = (matrix[:2, :2] - np.outer(lifted[:2] / lifted[2], matrix[2, :2])) / lifted[
        2
    ]
    return np.asarray(slope)


def decomposed(slope: np.ndarray) -> tuple[bool, float, float, float]:
    """Return (mirrored, degrees clockwise, scale, stretch) of a 2 x 2 map, mirrored first."""
    flipped = bool(np.linalg.det(slope) < 0)
    upright = slope @ np.diag([-1.0, 1.0]) if flipped else slope
    left, lengths, right = np.linalg.svd(upright)
    turn = left @ right
    degrees = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
    stretch = float(lengths[0] / max(lengths[1], 1e-9))
    return flipped, float(degrees), float(np.sqrt(lengths.prod())), stretch
