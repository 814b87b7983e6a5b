"""Edits that move the picture: each is one 3 x 3 matrix, so that a run of them is one warp.

A matrix maps the unit square of the picture before the edit to that after it, in homogeneous
coordinates (x to the right, y down). ``aspect`` is width / height of the picture.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float64

from vit4icd.edits.colour import Image, Params

__all__ = [
    "apply_swirl",
    "draw_aspect",
    "draw_crop",
    "draw_flip",
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
    "matrix_rotate",
    "matrix_skew",
    "warp",
]

Matrix = Float64[np.ndarray, "3 3"]


def draw_flip(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw nothing: a flip has no parameters."""
    return {}


def matrix_flip_horizontally(params: Params, aspect: float) -> Matrix:
    """Exchange left and right."""
    return _affine(-1, 0, 1, 0, 1, 0)


def matrix_flip_vertically(params: Params, aspect: float) -> Matrix:
    """Exchange top and bottom."""
    return _affine(1, 0, 0, 0, -1, 1)


def draw_resized_crop(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a window of 0.3 to 1 of the area with an aspect change of 3/4 to 4/3."""
    area = 1 - edit_rng.uniform(0, 0.7) * strength
    ratio = math.exp(edit_rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    return _window(edit_rng, math.sqrt(area * ratio), math.sqrt(area / ratio))


def draw_crop(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a window that keeps 0.3 to 0.6 of the width and of the height."""
    width, height = 1 - edit_rng.uniform(0.4, 0.7, 2) * strength
    return _window(edit_rng, float(width), float(height))


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
    return {"fill": _colour(edit_rng)}


def matrix_pad_square(params: Params, aspect: float) -> Matrix:
    """Undo the stretch to a square: bars above and below, or left and right."""
    return _about_centre(_affine(min(aspect, 1), 0, 0, 0, min(1 / aspect, 1), 0))


def draw_pad(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the width of the border, 0 to 0.5 of each side, and its colour."""
    width, height = edit_rng.uniform(0, 0.5, 2) * strength
    return {"width": float(width), "height": float(height), "fill": _colour(edit_rng)}


def matrix_pad(params: Params, aspect: float) -> Matrix:
    """Put a border around the picture."""
    return _about_centre(
        _affine(1 / (1 + 2 * params["width"]), 0, 0, 0, 1 / (1 + 2 * params["height"]), 0)
    )


def draw_skew(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw how far the top is pushed against the bottom, -2 to 2 quarters of the width."""
    return {
        "shift": float(edit_rng.uniform(-2, 2) * strength / 4),
        "vertical": bool(edit_rng.random() < 0.5),
        "fill": _colour(edit_rng),
    }


def matrix_skew(params: Params, aspect: float) -> Matrix:
    """Shear the picture and fit it in again."""
    shift = params["shift"]
    fit = 1 / (1 + abs(shift))
    if params["vertical"]:
        return _about_centre(_affine(1, 0, 0, shift * fit, fit, 0))
    return _about_centre(_affine(fit, shift * fit, 0, 0, 1, 0))


def draw_perspective(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the corners' displacements, Gaussian of 10 to 50 px (of 256)."""
    sigma = edit_rng.uniform(10, 50) / 256 * strength
    moved = np.clip(edit_rng.normal(0, sigma, (4, 2)), -0.4, 0.4)
    return {"corners": moved.tolist(), "fill": _colour(edit_rng)}


def matrix_perspective(params: Params, aspect: float) -> Matrix:
    """Move the four corners."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    moved = corners + np.asarray(params["corners"], np.float32)
    matrix: Matrix = cv2.getPerspectiveTransform(corners, moved).astype(np.float64)
    return matrix


def draw_aspect(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a stretch of 0.5 to 2."""
    return {"stretch": float(2 ** (edit_rng.uniform(-1, 1) * strength)), "fill": _colour(edit_rng)}


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


def warp(image: Image, matrix: Matrix, *, size: int, fill: tuple[int, int, int]) -> Image:
    """Draw the picture's unit square through the matrix onto ``size`` x ``size`` pixels.

    A picture that shrinks by more than half is averaged down first, so that nothing aliases.
    """
    image = _shrunk(image, matrix, size)
    height, width = image.shape[:2]
    to_pixels = np.diag([size, size, 1.0]) @ matrix @ np.diag([1 / width, 1 / height, 1.0])
    centres = _affine(1, 0, -0.5, 0, 1, -0.5) @ to_pixels @ _affine(1, 0, 0.5, 0, 1, 0.5)
    return cv2.warpPerspective(
        image, centres, (size, size), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=fill,
    )  # fmt: skip


def _shrunk(image: Image, matrix: Matrix, size: int) -> Image:
    """Halve the picture until the warp at its centre shrinks it by less than a factor of 1.6."""
    height, width = image.shape[:2]
    scale = abs(np.linalg.det(matrix[:2, :2])) ** 0.5 * size / (height * width) ** 0.5
    factor = max(scale * 1.25, 16 / min(height, width))
    if factor >= 0.8:
        return image
    small = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA)


def _window(edit_rng: np.random.Generator, width: float, height: float) -> Params:
    width, height = min(width, 1.0), min(height, 1.0)
    left, top = edit_rng.random(2) * (1 - width, 1 - height)
    return {"width": width, "height": height, "left": float(left), "top": float(top)}


def _colour(edit_rng: np.random.Generator) -> list[int]:
    return [int(value) for value in edit_rng.integers(0, 256, 3)]


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
