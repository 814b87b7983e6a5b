"""Edits that draw onto the picture or frame it: text, emoji, stripes, captions, screenshots.

Every mark is drawn here: no fonts, emoji or templates of others are shipped. Text uses the font
inside Pillow (Aileron, CC0; ASCII alone) and the Hershey strokes inside OpenCV.
"""

import string
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from vit4icd.edits.colour import Image, Params, random_colour

__all__ = [
    "apply_emoji",
    "apply_meme",
    "apply_screenshot",
    "apply_stripes",
    "apply_text",
    "draw_emoji",
    "draw_meme",
    "draw_screenshot",
    "draw_stripes",
    "draw_text",
]

_GLYPHS = string.ascii_letters + string.digits + string.punctuation  # what the fonts cover
_FONTS = {
    "aileron": None,
    "simplex": cv2.FONT_HERSHEY_DUPLEX,
    "complex": cv2.FONT_HERSHEY_COMPLEX,
    "triplex": cv2.FONT_HERSHEY_TRIPLEX,
    "script": cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
}
_INK = (40, 30, 20)  # outlines and faces of emoji
_THUMB = (
    (0.02, 0.45), (0.25, 0.45), (0.42, 0.3), (0.48, 0.03), (0.58, 0.02), (0.64, 0.12),
    (0.61, 0.37), (0.92, 0.38), (0.98, 0.5), (0.94, 0.65), (0.88, 0.85), (0.78, 0.96),
    (0.4, 0.96), (0.25, 0.88), (0.02, 0.88),
)  # fmt: skip
_FONT_SIZES = 4  # fonts are cached at multiples of this many pixels


def draw_text(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw 1 to 20 glyphs, font, size 0.05 to 1 of the height, opacity 0 to 1, colour, place."""
    x, y = edit_rng.uniform(0, 0.5, 2)
    return {
        "text": "".join(edit_rng.choice(list(_GLYPHS), int(edit_rng.integers(1, 21)))),
        "font": str(edit_rng.choice(list(_FONTS))),
        "size": float(0.05 + edit_rng.uniform(0, 0.95) * strength),
        "opacity": float(edit_rng.uniform(0, 1)),
        "colour": random_colour(edit_rng),
        "x": float(x),
        "y": float(y),
    }


def apply_text(image: Image, params: Params) -> Image:
    """Write a line of text."""
    height, width = image.shape[:2]
    size = max(4.0, params["size"] * height)
    fitting = params["text"][: 1 + int(4 * width / size)]  # glyphs are wider than a quarter
    mask = _text_mask(fitting, size, params["font"])
    return _tint(image, mask, params, int(params["x"] * width), int(params["y"] * height))


def draw_meme(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a caption of 1 to 10 letters on a band of 0.15 to 0.5 of the picture's height."""
    n_letters = int(edit_rng.integers(1, 11))
    letters = edit_rng.choice(list(string.ascii_letters), n_letters, replace=False)
    return {
        "text": "".join(letters),
        "font": str(edit_rng.choice(list(_FONTS))),
        "band": float(0.1 + edit_rng.uniform(0.05, 0.4) * strength),
        "opacity": float(edit_rng.uniform(0, 1)),
        "colour": random_colour(edit_rng),
        "paper": random_colour(edit_rng),
        "border": float(edit_rng.uniform(0, 0.08) * strength),
    }


def apply_meme(image: Image, params: Params) -> Image:
    """Put the picture under a captioned band, with a border around it."""
    height, width = image.shape[:2]
    out = np.full_like(image, params["paper"])
    band, border = round(params["band"] * height), round(params["border"] * width)
    inside = width - 2 * border, height - band - border
    out[band : band + inside[1], border : border + inside[0]] = cv2.resize(
        image, inside, interpolation=cv2.INTER_AREA
    )
    mask = _text_mask(params["text"], 0.7 * band, params["font"])
    left, top = max(0, (width - mask.shape[1]) // 2), max(0, (band - mask.shape[0]) // 2)
    return _tint(out, mask[:band], params, left, top)


def draw_stripes(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw width, density, angle, colour and opacity of stripes, each over its whole range."""
    return {
        "width": float(edit_rng.uniform(0, 1)),
        "density": float(edit_rng.uniform(0, 1) * strength),
        "degrees": int(edit_rng.integers(0, 361)),
        "opacity": float(edit_rng.uniform(0, 1) * strength),
        "colour": random_colour(edit_rng),
    }


def apply_stripes(image: Image, params: Params) -> Image:
    """Lay parallel stripes over the picture."""
    height, width = image.shape[:2]
    angle = np.deg2rad(params["degrees"])
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    columns = np.arange(width, dtype=np.float32)[None, :] / width
    phase = (columns * np.cos(angle) + rows * np.sin(angle)) * (2 + 18 * params["density"])
    mask = np.where(phase % 1 < params["width"], 255, 0).astype(np.uint8)
    return _tint(image, mask, params, 0, 0)


def draw_emoji(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a face or a symbol: size 0.2 to 1 of the height, opacity 0.2 to 1, place 0 to 0.5."""
    x, y = edit_rng.uniform(0, 0.5, 2)
    return {
        "shape": ("face", "heart", "star", "thumb", "drop")[edit_rng.integers(5)],
        "size": float(0.2 + edit_rng.uniform(0, 0.8) * strength),
        "opacity": float(edit_rng.uniform(0.2, 1)),
        "colour": random_colour(edit_rng),
        "mouth": float(edit_rng.uniform(-1, 1)),
        "x": float(x),
        "y": float(y),
    }


def apply_emoji(image: Image, params: Params) -> Image:
    """Stick a drawn emoji onto the picture."""
    height, width = image.shape[:2]
    side = max(8, round(params["size"] * height))
    paint, mask = _emoji(params, side)
    top, left = round(params["y"] * height), round(params["x"] * width)
    return _blend(image, paint, mask, params["opacity"], left, top)


def draw_screenshot(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the layout and the greys of an invented browser window or telephone screen."""
    inset, top, bottom = edit_rng.uniform(0, 1, 3) * (0.15, 0.2, 0.25) * strength
    return {
        "phone": bool(edit_rng.random() < 0.5),
        "dark": bool(edit_rng.random() < 0.4),
        "inset": float(inset),
        "top": float(0.08 + top),
        "bottom": float(0.04 + bottom),
        "accent": random_colour(edit_rng),
        "text": "".join(edit_rng.choice(list(_GLYPHS[:52] + " "), 18)),
        "seed": int(edit_rng.integers(2**31)),
    }


def apply_screenshot(image: Image, params: Params) -> Image:
    """Show the picture inside a browser window or a telephone screen."""
    height, width = image.shape[:2]
    paper, ink = (
        ((24, 26, 30), (205, 208, 214)) if params["dark"] else ((247, 247, 248), (70, 74, 82))
    )
    out = np.full_like(image, paper)
    top, bottom = round(params["top"] * height), round(params["bottom"] * height)
    inset = round(params["inset"] * width * (0.4 if params["phone"] else 1))
    inside = width - 2 * inset, height - top - bottom
    out[top : top + inside[1], inset : inset + inside[0]] = cv2.resize(
        image, inside, interpolation=cv2.INTER_AREA
    )
    _draw_bar(out, params, top, ink)
    _draw_lines(out, params, height - bottom, ink)
    return out


def _draw_bar(out: Image, params: Params, bar: int, ink: tuple[int, int, int]) -> None:
    width = out.shape[1]
    dot = max(2, bar // 8)
    if params["phone"]:
        cv2.circle(out, (2 * dot + 2, bar // 2), 2 * dot, params["accent"], -1, cv2.LINE_AA)
    else:
        for index, colour in enumerate(((236, 95, 88), (243, 190, 62), (97, 197, 84))):
            cv2.circle(out, (3 * dot * (index + 1), bar // 2), dot, colour, -1, cv2.LINE_AA)
    mask = _text_mask(params["text"], min(0.45 * bar, 0.08 * width))
    left = min(12 * dot, width // 3)
    tinted = _tint(out, mask, {"colour": ink, "opacity": 1.0}, left, (bar - mask.shape[0]) // 2)
    out[:] = tinted


def _draw_lines(out: Image, params: Params, top: int, ink: tuple[int, int, int]) -> None:
    height, width = out.shape[:2]
    line_rng = np.random.default_rng(params["seed"])
    row = top + 5
    while row < height - 3:
        end = int(width * line_rng.uniform(0.3, 0.95))
        cv2.rectangle(out, (width // 20, row), (end, row + 2), ink, -1)
        row += 7


def _emoji(params: Params, side: int) -> tuple[Image, UInt8[np.ndarray, "side side"]]:
    paint = np.full((side, side, 3), params["colour"], np.uint8)
    mask = np.zeros((side, side), np.uint8)
    outline = np.round(_outline(params["shape"]) * (side - 1)).astype(np.int32)
    cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA)
    cv2.polylines(paint, [outline], True, _INK, max(1, side // 16), cv2.LINE_AA)
    if params["shape"] == "face":
        _draw_face(paint, params["mouth"])
    return paint, mask


def _draw_face(paint: Image, mouth: float) -> None:
    """Draw eyes and a mouth that smiles (1) or frowns (-1)."""
    side = paint.shape[0]
    for x in (side // 3, 2 * side // 3):
        cv2.circle(paint, (x, int(side * 0.4)), max(1, side // 12), _INK, -1, cv2.LINE_AA)
    axes = side // 4, max(1, abs(int(side * 0.18 * mouth)))
    arc = (0, 180) if mouth > 0 else (180, 360)
    centre, pen = (side // 2, int(side * (0.62 if mouth > 0 else 0.75))), max(1, side // 16)
    cv2.ellipse(paint, centre, axes, 0, *arc, _INK, pen, cv2.LINE_AA)


@lru_cache(maxsize=8)
def _outline(shape: str) -> Float64[np.ndarray, "corner 2"]:
    """Return the corners of a symbol in the unit square."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    if shape == "thumb":
        return np.array(_THUMB)
    if shape == "heart":
        x = np.sin(t) ** 3 / 2.1
        y = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / -32
    elif shape == "star":
        t = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        radius = np.where(np.arange(10) % 2, 0.22, 0.5)
        x, y = radius * np.sin(t), -radius * np.cos(t)
    elif shape == "drop":
        x, y = 0.42 * np.sin(t) * np.sin(t / 2) ** 1.5, -0.5 * np.cos(t)
    else:
        x, y = 0.5 * np.sin(t), -0.5 * np.cos(t)
    return np.clip(np.stack([x, y], axis=1) + 0.5, 0, 1)


def _text_mask(text: str, size: float, font: str = "aileron") -> UInt8[np.ndarray, "height width"]:
    """Return the opacity of a line of text whose capitals are about 0.7 ``size`` pixels high."""
    face = _FONTS[font]
    if face is not None:
        return _hershey_mask(text, size, face)
    letters = _aileron(max(1, round(size / _FONT_SIZES)) * _FONT_SIZES)
    left, top, right, bottom = (int(edge) for edge in letters.getbbox(text))
    mask = PillowImage.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), text, 255, letters)
    return np.asarray(mask)


def _hershey_mask(text: str, size: float, face: int) -> UInt8[np.ndarray, "height width"]:
    scale, pen = size / 30, max(1, round(size / 16))  # capitals are 21 px high at scale 1
    (width, height), below = cv2.getTextSize(text, face, scale, pen)
    mask = np.zeros((height + below + pen, width + pen), np.uint8)
    cv2.putText(mask, text, (0, height), face, scale, 255, pen, cv2.LINE_AA)
    return mask


@lru_cache(maxsize=64)
def _aileron(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _tint(
    image: Image,
    mask: UInt8[np.ndarray, "mask_height mask_width"],
    params: Params,
    left: int,
    top: int,
) -> Image:
    paint = np.full((*mask.shape, 3), params["colour"], np.uint8)
    return _blend(image, paint, mask, params["opacity"], left, top)


def _blend(
    image: Image,
    paint: UInt8[np.ndarray, "side_y side_x 3"],
    mask: UInt8[np.ndarray, "side_y side_x"],
    opacity: float,
    left: int,
    top: int,
) -> Image:
    """Lay the painted mask onto a copy of the picture; what lies outside is cut off."""
    height, width = image.shape[:2]
    rows = slice(max(0, top), min(height, top + mask.shape[0]))
    columns = slice(max(0, left), min(width, left + mask.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return image
    inner = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    alpha = mask[inner].astype(np.float32) * np.float32(opacity / 255)
    out = image.copy()
    out[rows, columns] = cv2.blendLinear(
        paint[inner], np.ascontiguousarray(image[rows, columns]), alpha, 1 - alpha
    )
    return out
