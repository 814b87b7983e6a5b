"""Edits that blur, sharpen, re-encode or disturb pixels; no geometry, no other pictures."""

from functools import lru_cache
from statistics import NormalDist

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float64

from vit4icd.edits.colour import Image, Params

__all__ = [
    "apply_blur",
    "apply_edge_enhance",
    "apply_halftone",
    "apply_jpeg",
    "apply_median",
    "apply_motion_blur",
    "apply_noise",
    "apply_pixelate",
    "apply_sharpen",
    "apply_shuffle_pixels",
    "draw_blur",
    "draw_halftone",
    "draw_jpeg",
    "draw_median",
    "draw_motion_blur",
    "draw_noise",
    "draw_pixelate",
    "draw_sharpen",
    "draw_shuffle_pixels",
]

_REFERENCE_SIDE = 256  # blur radii are pixels of a picture of this size; others scale


def draw_blur(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a Gaussian radius of 2 to 5 px (of 256)."""
    return {"radius": float(edit_rng.uniform(2, 5) * strength)}


def apply_blur(image: Image, params: Params) -> Image:
    """Blur with a Gaussian."""
    radius = params["radius"] * image.shape[0] / _REFERENCE_SIDE
    return cv2.GaussianBlur(image, (0, 0), max(radius, 0.1))


def draw_pixelate(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the share of the resolution that is left: 0.1 to 1."""
    return {"ratio": float(1 - edit_rng.uniform(0, 0.9) * strength)}


def apply_pixelate(image: Image, params: Params) -> Image:
    """Shrink, and enlarge again by repetition."""
    height, width = image.shape[:2]
    small = max(1, round(width * params["ratio"])), max(1, round(height * params["ratio"]))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_NEAREST)


def draw_noise(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw mean and variance of Gaussian noise, each 0 to 0.5 of the value range."""
    mean, variance = edit_rng.uniform(0, 0.5, 2) * strength
    return {"mean": float(mean), "variance": float(variance), "seed": int(edit_rng.integers(2**31))}


def apply_noise(image: Image, params: Params) -> Image:
    """Add Gaussian noise to every value, in 256 equally likely steps of the distribution."""
    noise_rng = np.random.default_rng(params["seed"])
    levels = 255 * (params["mean"] + params["variance"] ** 0.5 * _normal_steps())
    steps = np.frombuffer(noise_rng.bytes(image.size), np.uint8).reshape(image.shape)
    noise = cv2.LUT(steps, np.round(levels).astype(np.int16))
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def draw_jpeg(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a quality of 0 to 50."""
    return {"quality": int(50 + (1 - strength) * 45 - edit_rng.integers(0, 51) * strength)}


def apply_jpeg(image: Image, params: Params) -> Image:
    """Encode as JPEG and decode again."""
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=max(params["quality"], 1), colorsubsampling="420"
    )
    decoded: Image = simplejpeg.decode_jpeg(data, "RGB")
    return decoded


def draw_sharpen(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a factor of 2 to 20."""
    return {"factor": float(1 + edit_rng.uniform(1, 19) * strength)}


def apply_sharpen(image: Image, params: Params) -> Image:
    """Move away from a slightly smoothed picture, as Pillow's Sharpness does."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    smooth = cv2.filter2D(image, -1, kernel)
    return cv2.addWeighted(image, params["factor"], smooth, 1 - params["factor"], 0)


def apply_edge_enhance(image: Image, params: Params) -> Image:
    """Strengthen edges with a fixed 3 x 3 kernel."""
    kernel = np.array([[-1, -1, -1], [-1, 10, -1], [-1, -1, -1]], np.float32) / 2
    return cv2.filter2D(image, -1, kernel)


def draw_shuffle_pixels(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the share of pixels that change places: 0.1 to 0.5."""
    return {
        "share": float(edit_rng.uniform(0.1, 0.5) * strength),
        "seed": int(edit_rng.integers(2**31)),
    }


def apply_shuffle_pixels(image: Image, params: Params) -> Image:
    """Exchange randomly chosen pixels among themselves."""
    pixel_rng = np.random.default_rng(params["seed"])
    chosen = np.flatnonzero(pixel_rng.random(image.shape[:2], np.float32) < params["share"])
    flat = image.reshape(-1, 3).copy()
    flat[chosen] = flat[pixel_rng.permutation(chosen)]
    return flat.reshape(image.shape)


def draw_motion_blur(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a path of 8 to 40 px (of 256) and its direction."""
    return {
        "length": float(edit_rng.uniform(8, 40) * strength),
        "angle": float(edit_rng.uniform(0, 180)),
    }


def apply_motion_blur(image: Image, params: Params) -> Image:
    """Average along a straight path."""
    length = max(3, round(params["length"] * image.shape[0] / _REFERENCE_SIDE)) | 1
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    centre = (length // 2, length // 2)
    turn = cv2.getRotationMatrix2D(centre, params["angle"], 1)
    kernel = cv2.warpAffine(line, turn, (length, length))
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def draw_halftone(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the distance of the printing dots: 4 to 10 px (of 256)."""
    return {"cell": float(3 + edit_rng.uniform(1, 7) * strength)}


def apply_halftone(image: Image, params: Params) -> Image:
    """Print in dots whose size follows the darkness, as a newspaper does."""
    height, width = image.shape[:2]
    step = 2 * np.pi * _REFERENCE_SIDE / (params["cell"] * height)
    rows = np.arange(height, dtype=np.float32)[:, None] * step
    columns = np.arange(width, dtype=np.float32)[None, :] * step
    screen = (np.cos(rows) * np.cos(columns) + 1) * 127.5
    return np.where(image > screen[:, :, None], 255, 0).astype(np.uint8)


def draw_median(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the width of the window: 5 to 17 px (of 256)."""
    return {"width": float(3 + edit_rng.uniform(2, 14) * strength)}


def apply_median(image: Image, params: Params) -> Image:
    """Take the median of each window, which paints the picture in patches."""
    width = max(3, round(params["width"] * image.shape[0] / _REFERENCE_SIDE)) | 1
    return cv2.medianBlur(np.ascontiguousarray(image), width)


@lru_cache(maxsize=1)
def _normal_steps() -> Float64[np.ndarray, "256"]:
    """Return the normal distribution's values at 256 evenly spaced probabilities."""
    values = np.array([NormalDist().inv_cdf((step + 0.5) / 256) for step in range(256)])
    spread: Float64[np.ndarray, 256] = values / values.std()
    return spread
