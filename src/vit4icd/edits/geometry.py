"""Edits that move the picture: each is one 3 x 3 matrix, so that a run of them is one warp.

A matrix maps the unit square of the picture before the edit to that after it, in homogeneous
coordinates (x to the right, y down). ``aspect`` is width / height of the picture.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float64

from vit4icd.edits.colour import Image, Params, random_colour

__all__ = [
    "Move",
    "apply_swirl",
    "draw_aspect",
    "draw_crop",
    "draw_pad",
    "draw_pad_square",
    "draw_perspective",
    "draw_resized_crop",
    "draw_rotate",
    "draw_skew",
    "draw_swirl",
    "matrix_aspect",
    "matrix_crop",
    "matrix_flip_horizontally",
    "matrix_flip_vertically",
    "matrix_pad",
    "matrix_pad_square",
    "matrix_perspective",
    "matrix_resized_crop",
    "matrix_rotate",
    "matrix_skew",
    "move",
]

Matrix = Float64[np.ndarray, "3 3"]
Move = tuple[Matrix, tuple[int, int, int]]
"""Where a picture goes, and the colour of what it leaves free."""

_HORIZON = 1e-3  # least of a point's third coordinate that is drawn
_CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)  # of the unit square, in turn


def matrix_flip_horizontally(params: Params, aspect: float) -> Matrix:
    """Exchange left and right."""
    return _affine(-1, 0, 1, 0, 1, 0)


def matrix_flip_vertically(params: Params, aspect: float) -> Matrix:
    """Exchange top and bottom."""
    return _affine(1, 0, 0, 0, -1, 1)


def draw_resized_crop(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a window of 0.3 to 1 of the area, 3/4 to 4/3 as wide as high (torchvision's crop)."""
    x, y = edit_rng.random(2)
    return {
        "area": float(1 - edit_rng.uniform(0, 0.7) * strength),
        "ratio": math.exp(edit_rng.uniform(math.log(3 / 4), math.log(4 / 3))),
        "x": float(x),
        "y": float(y),
    }


def matrix_resized_crop(params: Params, aspect: float) -> Matrix:
    """Make a window of known area and shape the whole picture."""
    width = min(1.0, math.sqrt(params["area"] * params["ratio"] / aspect))
    height = min(1.0, math.sqrt(params["area"] / params["ratio"] * aspect))
    left, top = params["x"] * (1 - width), params["y"] * (1 - height)
    return matrix_crop({"width": width, "height": height, "left": left, "top": top}, aspect)


def draw_crop(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a window that keeps 0.3 to 0.6 of the width and of the height."""
    width, height = 1 - edit_rng.uniform(0.4, 0.7, 2) * strength
    left, top = edit_rng.random(2) * (1 - width, 1 - height)
    return {"width": float(width), "height": float(height), "left": float(left), "top": float(top)}


def matrix_crop(params: Params, aspect: float) -> Matrix:
    """Make a window of the picture the whole picture."""
    width, height = params["width"], params["height"]
    return _affine(1 / width, 0, -params["left"] / width, 0, 1 / height, -params["top"] / height)


def draw_rotate(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw an angle of 0 to 360 degrees (about upright with less strength)."""
    return {"degrees": float(edit_rng.uniform(-180, 180) * strength)}


def matrix_rotate(params: Params, aspect: float) -> Matrix:
    """Turn about the centre and cut out the largest upright rectangle without borders."""
    angle = math.radians(params["degrees"])
    cos, sin = math.cos(angle), math.sin(angle)
    turned = _affine(cos, -sin / aspect, 0, sin * aspect, cos, 0)
    zoom_x, zoom_y = _largest_upright(aspect, angle)
    return _about_centre(_affine(1 / zoom_x, 0, 0, 0, 1 / zoom_y, 0) @ turned)


def draw_pad_square(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the colour of the bars."""
    return {"fill": random_colour(edit_rng)}


def matrix_pad_square(params: Params, aspect: float) -> Matrix:
    """Undo the stretch to a square: bars above and below, or left and right."""
    return _about_centre(_affine(min(aspect, 1), 0, 0, 0, min(1 / aspect, 1), 0))


def draw_pad(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the width of the border, 0 to 0.5 of each side, and its colour."""
    width, height = edit_rng.uniform(0, 0.5, 2) * strength
    return {"width": float(width), "height": float(height), "fill": random_colour(edit_rng)}


def matrix_pad(params: Params, aspect: float) -> Matrix:
    """Put a border around the picture."""
    return _about_centre(
        _affine(1 / (1 + 2 * params["width"]), 0, 0, 0, 1 / (1 + 2 * params["height"]), 0)
    )


def draw_skew(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a slope of -2 to 2 and its direction."""
    return {
        "slope": float(edit_rng.uniform(-2, 2) * strength),
        "vertical": bool(edit_rng.random() < 0.5),
        "fill": _border_colour(edit_rng),
    }


def matrix_skew(params: Params, aspect: float) -> Matrix:
    """Shear the picture about its centre; what leaves the frame is lost (AugLy's skew)."""
    slope = params["slope"]
    if params["vertical"]:
        return _about_centre(_affine(1, 0, 0, -slope * aspect, 1, 0))
    return _about_centre(_affine(1, -slope / aspect, 0, 0, 1, 0))


def draw_perspective(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the corners' displacements: Gaussian of 10 to 50 px (of 256), less if they fold."""
    moved = edit_rng.normal(0, edit_rng.uniform(10, 50) / 256 * strength, (4, 2))
    while not _is_convex(_CORNERS + 1.1 * moved):
        moved *= 0.8
    return {"corners": moved.tolist(), "fill": _border_colour(edit_rng)}


def matrix_perspective(params: Params, aspect: float) -> Matrix:
    """Move the four corners."""
    moved = _CORNERS + np.asarray(params["corners"])
    matrix: Matrix = cv2.getPerspectiveTransform(
        _CORNERS.astype(np.float32), moved.astype(np.float32)
    )
    return matrix


def draw_aspect(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a stretch of 0.5 to 2."""
    return {
        "stretch": float(2 ** (edit_rng.uniform(-1, 1) * strength)),
        "fill": random_colour(edit_rng),
    }


def matrix_aspect(params: Params, aspect: float) -> Matrix:
    """Squeeze one side; what gets free is filled, since every output is a square anyway."""
    stretch = params["stretch"]
    return _about_centre(_affine(min(stretch, 1), 0, 0, 0, min(1 / stretch, 1), 0))


def draw_swirl(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a turn of up to 1.5 radians at the centre, or a lens distortion of up to 0.6."""
    return {
        "turn": float(edit_rng.uniform(-1.5, 1.5) * strength),
        "lens": float(edit_rng.uniform(-0.4, 0.6) * strength),
    }


def apply_swirl(image: Image, params: Params) -> Image:
    """Turn the middle more than the rim, and bulge or pinch it."""
    height, width = image.shape[:2]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    radius = np.sqrt(rows**2 + columns**2)
    inside = np.maximum(1 - radius, 0)
    angle, zoom = params["turn"] * inside**2, 1 - params["lens"] * inside
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    from_x = ((columns * cos - rows * sin) + 1) * ((width - 1) / 2)
    from_y = ((columns * sin + rows * cos) + 1) * ((height - 1) / 2)
    return cv2.remap(
        image, from_x.astype(np.float32), from_y.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip


def move(image: Image, moves: Sequence[Move], *, size: int) -> Image:
    """Carry out moves in order with one warp onto ``size`` x ``size`` pixels.

    The result is that of separate warps: what one move cuts away stays away, and each paints what
    it leaves free in its own colour.
    """
    after = np.eye(3)  # what the moves from here on do together
    for matrix, _ in moves:
        after = matrix @ after
    out = _warp(image, after, size=size)
    for matrix, fill in moves:
        if not _covers(after):
            _paint_outside(out, after, fill)
        after = after @ np.linalg.inv(matrix)
    return out


def _warp(image: Image, matrix: Matrix, *, size: int) -> Image:
    """Draw the picture's unit square through the matrix onto ``size`` x ``size`` pixels.

    A side that shrinks is averaged down first, so that nothing aliases. Outside of the square, the
    picture's rim goes on.
    """
    image = _shrunk(np.ascontiguousarray(image), matrix, size)
    height, width = image.shape[:2]
    to_pixels = np.diag([size, size, 1.0]) @ matrix @ np.diag([1 / width, 1 / height, 1.0])
    centres = _affine(1, 0, -0.5, 0, 1, -0.5) @ to_pixels @ _affine(1, 0, 0.5, 0, 1, 0.5)
    return cv2.warpPerspective(
        image, centres, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _is_convex(corners: Float64[np.ndarray, "4 2"]) -> bool:
    """Return whether the corners, in turn, all bend to the same side as the unit square's."""
    sides = np.roll(corners, -1, 0) - corners
    following = np.roll(sides, -1, 0)
    return bool((sides[:, 0] * following[:, 1] > sides[:, 1] * following[:, 0]).all())


def _covers(matrix: Matrix) -> bool:
    """Return whether the moved unit square covers the whole frame."""
    x, y, w = np.linalg.inv(matrix) @ np.vstack([_CORNERS.T, np.ones(4)])
    inside = np.stack([x / w, y / w])
    return bool(inside.min() > -1e-6 and inside.max() < 1 + 1e-6)


def _paint_outside(out: Image, matrix: Matrix, fill: tuple[int, int, int]) -> None:
    """Fill what lies outside the moved unit square, in place."""
    size = out.shape[0]
    x, y, w = _in_front(np.vstack([_CORNERS.T, np.ones(4)]).T @ matrix.T).T
    corners = np.stack([x / w, y / w], axis=1) * size - 0.5
    frame = _CORNERS * 3 * size - size
    # Two outlines: the even-odd rule leaves the inner one alone. Coordinates carry 4 binary
    # places.
    outlines = [
        np.round(np.clip(ring, -1e6, 1e6) * 16).astype(np.int32)
        for ring in (frame, corners)
        if len(ring)
    ]
    cv2.fillPoly(out, outlines, fill, cv2.LINE_AA, shift=4)


def _in_front(
    corners: Float64[np.ndarray, "corner 3"],
) -> Float64[np.ndarray, "corner_in_front 3"]:
    """Cut a polygon in homogeneous coordinates along a line just before the horizon.

    What lies beyond it would appear on the other side, turned inside out.
    """
    if (corners[:, 2] >= _HORIZON).all():
        return corners
    kept = list[np.ndarray]()
    for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if one[2] >= _HORIZON:
            kept.append(one)
        if (one[2] >= _HORIZON) != (other[2] >= _HORIZON):
            share = (_HORIZON - one[2]) / (other[2] - one[2])
            kept.append(one + share * (other - one))
    return np.array(kept).reshape(-1, 3)


def _shrunk(image: Image, matrix: Matrix, size: int) -> Image:
    """Average each side down to 1.25 times what the warp at the picture's centre leaves of it."""
    height, width = image.shape[:2]
    x, y, w = matrix @ (0.5, 0.5, 1.0)
    slopes = (matrix[:2, :2] - np.outer((x / w, y / w), matrix[2, :2])) / w
    wanted = 1.25 * size * np.linalg.norm(slopes, axis=0)
    small = [
        max(min(side, 16), round(float(pixels))) if pixels < 0.8 * side else side
        for side, pixels in zip((width, height), wanted, strict=True)
    ]
    if small == [width, height]:
        return image
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA)


def _border_colour(edit_rng: np.random.Generator) -> list[int]:
    """Draw black, as the sources of these edits leave borders, or in every second case a colour."""
    return random_colour(edit_rng) if edit_rng.random() < 0.5 else [0, 0, 0]


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> Matrix:
    matrix: Matrix = np.array([[a, b, c], [d, e, f], [0, 0, 1]], np.float64)
    return matrix


def _about_centre(matrix: Matrix) -> Matrix:
    centred: Matrix = _affine(1, 0, 0.5, 0, 1, 0.5) @ matrix @ _affine(1, 0, -0.5, 0, 1, -0.5)
    return centred


def _largest_upright(aspect: float, angle: float) -> tuple[float, float]:
    """Return the sides of the largest upright rectangle inside the turned picture, as shares."""
    sin, cos = abs(math.sin(angle)), abs(math.cos(angle))
    width, height = aspect, 1.0
    long, short = max(width, height), min(width, height)
    if short <= 2 * sin * cos * long or abs(sin - cos) < 1e-10:
        half = 0.5 * short
        inside = (half / sin, half / cos) if width >= height else (half / cos, half / sin)
    else:
        double = cos * cos - sin * sin
        inside = (
            (width * cos - height * sin) / double,
            (height * cos - width * sin) / double,
        )
    return inside[0] / width, inside[1] / height
