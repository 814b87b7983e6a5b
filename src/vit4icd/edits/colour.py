"""Edits that change colours and leave every pixel in its place; no geometry, no other pictures."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage

__all__ = [
    "Image",
    "Params",
    "apply_brightness",
    "apply_channel_change",
    "apply_colour_jitter",
    "apply_grayscale",
    "apply_palette",
    "apply_saturation",
    "apply_solarise",
    "apply_vignette",
    "draw_brightness",
    "draw_channel_change",
    "draw_colour_jitter",
    "draw_nothing",
    "draw_palette",
    "draw_saturation",
    "draw_solarise",
    "draw_vignette",
    "random_colour",
]

Image = UInt8[np.ndarray, "_ _ 3"]
Params = dict[str, Any]


def draw_nothing(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw no parameters: the edit has none."""
    return {}


def random_colour(edit_rng: np.random.Generator) -> list[int]:
    """Draw a colour, red, green and blue from 0 to 255."""
    return [int(value) for value in edit_rng.integers(0, 256, 3)]


def draw_channel_change(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw one of: channels rolled apart by up to 40 px of 256, permuted, or some inverted."""
    kind = ("roll", "permute", "invert")[edit_rng.integers(3)]
    return {
        "kind": kind,
        "shift": float(edit_rng.uniform(0, 40 / 256) * strength),
        "order": [int(channel) for channel in edit_rng.permutation(3)],
        "inverted": [bool(flag) for flag in edit_rng.random(3) < 0.5],
    }


def apply_channel_change(image: Image, params: Params) -> Image:
    """Roll red and blue apart diagonally and crop, permute the channels, or invert some."""
    if params["kind"] == "permute":
        return np.ascontiguousarray(image[:, :, params["order"]])
    if params["kind"] == "invert":
        return image ^ np.where(params["inverted"], 255, 0).astype(np.uint8)
    height, width = image.shape[:2]
    shift = min(int(params["shift"] * min(height, width)), min(height, width) // 4)
    if not shift:
        return image
    red = np.roll(image[:, :, 0], (shift, -shift), (0, 1))
    blue = np.roll(image[:, :, 2], (-shift, shift), (0, 1))
    rolled = np.stack([red, image[:, :, 1], blue], axis=2)[shift:-shift, shift:-shift]
    return cv2.resize(rolled, (width, height), interpolation=cv2.INTER_LINEAR)


def apply_grayscale(image: Image, params: Params) -> Image:
    """Take the luma (.299, .587, .114)."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def draw_colour_jitter(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw brightness, contrast, saturation factors and a hue turn: jitter (3, 4, 4, .5)."""
    return {
        "brightness": _factor(edit_rng, 3 * strength),
        "contrast": _factor(edit_rng, 4 * strength),
        "saturation": _factor(edit_rng, 4 * strength),
        "hue": float(edit_rng.uniform(-0.5, 0.5) * strength),
    }


def apply_colour_jitter(image: Image, params: Params) -> Image:
    """Scale brightness, contrast about the mean luma, and saturation; turn the hue."""
    image = cv2.LUT(image, _ramp(params["brightness"], 0.0))
    luma = float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])
    image = _saturated(cv2.LUT(image, _ramp(params["contrast"], luma)), params["saturation"])
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    turned = (np.arange(256) + round(params["hue"] * 180)) % 180  # OpenCV's hues run to 180
    hsv[:, :, 0] = cv2.LUT(hsv[:, :, 0], turned.astype(np.uint8))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def draw_brightness(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a factor of 0.1 to 1.9."""
    return {"factor": float(1 + edit_rng.uniform(-0.9, 0.9) * strength)}


def apply_brightness(image: Image, params: Params) -> Image:
    """Multiply all values."""
    return cv2.LUT(image, _ramp(params["factor"], 0.0))


def draw_saturation(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a factor of 2 to 5."""
    return {"factor": float(1 + edit_rng.uniform(1, 4) * strength)}


def apply_saturation(image: Image, params: Params) -> Image:
    """Move colours away from their luma."""
    return _saturated(image, params["factor"])


def draw_palette(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw 2 to 16 colours (fewer with strength)."""
    return {"n_colours": round(16 - float(edit_rng.uniform(0, 14)) * strength)}


def apply_palette(image: Image, params: Params) -> Image:
    """Leave the picture a few colours of its own: median cut without dithering.

    The colours are chosen on a thumbnail, which is forty times faster than on every pixel.
    """
    plain = PillowImage.Dither.NONE
    thumbnail = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    palette = PillowImage.fromarray(thumbnail).quantize(params["n_colours"], dither=plain)
    indexed = PillowImage.fromarray(image).quantize(palette=palette, dither=plain)
    return np.asarray(indexed.convert("RGB"))


def draw_solarise(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the value above which the picture is inverted: 255 down to 64."""
    return {"threshold": int(255 - edit_rng.uniform(0.3, 1) * 191 * strength)}


def apply_solarise(image: Image, params: Params) -> Image:
    """Invert the values above the threshold."""
    values = np.arange(256)
    table = np.where(values > params["threshold"], 255 - values, values)
    return cv2.LUT(image, table.astype(np.uint8))


def draw_vignette(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw how much light the corners lose: 0.4 to 1."""
    return {"loss": float(edit_rng.uniform(0.4, 1) * strength)}


def apply_vignette(image: Image, params: Params) -> Image:
    """Darken with the squared distance from the centre."""
    height, width = image.shape[:2]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    light = 1 - np.float32(params["loss"]) * np.minimum((rows + columns) / 1.5, 1)
    darkened: Image = (image * light[:, :, None]).astype(np.uint8)
    return darkened


def _factor(edit_rng: np.random.Generator, spread: float) -> float:
    """Draw uniformly between max(0, 1 - spread) and 1 + spread, as torchvision's jitter does."""
    return float(edit_rng.uniform(max(0.0, 1 - spread), 1 + spread))


def _saturated(image: Image, factor: float) -> Image:
    luma = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, luma, 1 - factor, 0)


def _ramp(factor: float, pivot: float) -> UInt8[np.ndarray, "256"]:
    values = (np.arange(256) - pivot) * factor + pivot
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
