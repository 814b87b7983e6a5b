"""Edits that mix in other pictures, the donors: blends, pastes, stacks and collages."""

import cv2
import numpy as np

from vit4icd.edits.colour import Image, Params, random_colour

__all__ = [
    "apply_blend",
    "apply_blurry_mask",
    "apply_collage",
    "apply_overlay_donor",
    "apply_paste",
    "apply_stack",
    "draw_blend",
    "draw_blurry_mask",
    "draw_collage",
    "draw_overlay_donor",
    "draw_paste",
    "draw_stack",
    "draw_underlay",
]


def draw_blend(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw how much of the picture is seen over the donor: opacity 0.2 to 1."""
    return {"opacity": float(1 - edit_rng.uniform(0, 0.8) * strength)}


def apply_blend(image: Image, donors: list[Image], params: Params) -> Image:
    """Lay the half-transparent picture over a donor of the same size."""
    return cv2.addWeighted(image, params["opacity"], donors[0], 1 - params["opacity"], 0)


def draw_paste(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a paste with opacity 0.6 to 1, size 0.5 to 1 and place 0 to 0.5 (method, edit 23)."""
    x, y = edit_rng.uniform(0, 0.5, 2)
    size = float(1 - edit_rng.uniform(0, 0.5) * strength)
    return {
        "opacity": float(1 - edit_rng.uniform(0, 0.4) * strength),
        "width": size,
        "height": size,
        "x": float(x),
        "y": float(y),
    }


def draw_underlay(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a paste of 0.3 to 0.8 of the donor's side, wholly inside it, sometimes transparent."""
    side = 0.8 - edit_rng.uniform(0, 0.5) * strength
    width = float(np.clip(side * np.exp(edit_rng.uniform(-0.25, 0.25)), 0.25, 0.95))
    height = float(np.clip(side * np.exp(edit_rng.uniform(-0.25, 0.25)), 0.25, 0.95))
    x, y = edit_rng.random(2) * (1 - width, 1 - height)
    clear = edit_rng.random() < 0.7
    opacity = 1.0 if clear else float(1 - edit_rng.uniform(0, 0.5) * strength)
    return {"opacity": opacity, "width": width, "height": height, "x": float(x), "y": float(y)}


def apply_paste(image: Image, donors: list[Image], params: Params) -> Image:
    """Paste the picture, made smaller, onto a donor."""
    return _pasted(image, donors[0], params)


def draw_overlay_donor(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw where a donor of 0.25 to 0.6 of the side covers the picture."""
    side = float(0.25 + edit_rng.uniform(0, 0.35) * strength)
    x, y = edit_rng.uniform(0, 1 - side, 2)
    return {"opacity": 1.0, "width": side, "height": side, "x": float(x), "y": float(y)}


def apply_overlay_donor(image: Image, donors: list[Image], params: Params) -> Image:
    """Paste a donor, made smaller, onto the picture."""
    return _pasted(donors[0], image, params)


def draw_blurry_mask(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw a soft-edged paste of 0.3 to 0.8 of the side: an ellipse or a rectangle."""
    return draw_underlay(edit_rng, strength) | {
        "opacity": 1.0,
        "ellipse": bool(edit_rng.random() < 0.5),
        "softness": float(edit_rng.uniform(0.02, 0.12)),
    }


def apply_blurry_mask(image: Image, donors: list[Image], params: Params) -> Image:
    """Melt the picture into a donor through a mask with soft edges."""
    height = max(1, round(params["height"] * image.shape[0]))
    width = max(1, round(params["width"] * image.shape[1]))
    mask = np.zeros((height, width), np.float32)
    if params["ellipse"]:
        axes = round(0.46 * width), round(0.46 * height)
        cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 1.0, -1)
    else:
        inner = height // 10, width // 10
        mask[inner[0] : height - inner[0], inner[1] : width - inner[1]] = 1
    mask = cv2.GaussianBlur(mask, (0, 0), max(1.0, params["softness"] * width))
    return _pasted(image, donors[0], params, mask)


def draw_stack(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw the order and the direction of two pictures side by side."""
    return {"first": bool(edit_rng.random() < 0.5), "upright": bool(edit_rng.random() < 0.5)}


def apply_stack(image: Image, donors: list[Image], params: Params) -> Image:
    """Put the picture and a donor side by side, or one above the other, into the same frame."""
    height, width = image.shape[:2]
    both = [image, donors[0]] if params["first"] else [donors[0], image]
    stacked = np.concatenate(both, axis=0 if params["upright"] else 1)
    return cv2.resize(stacked, (width, height), interpolation=cv2.INTER_AREA)


def draw_collage(edit_rng: np.random.Generator, strength: float) -> Params:
    """Draw which quarter of a 2 x 2 collage, or which part of a 1 + 2 one, the picture fills."""
    return {
        "place": int(edit_rng.integers(4)),
        "wide": bool(edit_rng.random() < 0.6),
        "gap": float(edit_rng.uniform(0, 0.03)),
        "fill": random_colour(edit_rng),
    }


def apply_collage(image: Image, donors: list[Image], params: Params) -> Image:
    """Show the picture among two or three donors in one frame."""
    height, width = image.shape[:2]
    out = np.full_like(image, params["fill"])
    cells = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 0.5, 0.5), (0.0, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)]
    place = params["place"]
    if params["wide"]:
        half = 0.0 if place < 2 else 0.5
        cells = [(0.0, half, 1.0, 0.5), (0.0, 0.5 - half, 0.5, 0.5), (0.5, 0.5 - half, 0.5, 0.5)]
        place = 0
    others = iter(donors)
    for index, (x, y, w, h) in enumerate(cells):
        picture = image if index == place else next(others)
        gap = params["gap"]
        box = {
            "x": x + gap / 2,
            "y": y + gap / 2,
            "width": w - gap,
            "height": h - gap,
            "opacity": 1.0,
        }
        out = _pasted(picture, out, box)
    return cv2.resize(out, (width, height))


def _pasted(top: Image, bottom: Image, params: Params, mask: np.ndarray | None = None) -> Image:
    """Paste ``top`` into the box of ``bottom``; what sticks out is cut off."""
    height, width = bottom.shape[:2]
    size = max(1, round(params["width"] * width)), max(1, round(params["height"] * height))
    small = cv2.resize(top, size, interpolation=cv2.INTER_AREA)
    row, column = round(params["y"] * height), round(params["x"] * width)
    small = small[: height - row, : width - column]
    rows, columns = slice(row, row + small.shape[0]), slice(column, column + small.shape[1])
    out = bottom.copy()
    if mask is None:
        share = params["opacity"]
        under = np.ascontiguousarray(bottom[rows, columns])
        out[rows, columns] = cv2.addWeighted(
            np.ascontiguousarray(small), share, under, 1 - share, 0
        )
        return out
    alpha = np.ascontiguousarray(mask[: small.shape[0], : small.shape[1]])
    under = np.ascontiguousarray(bottom[rows, columns])
    out[rows, columns] = cv2.blendLinear(np.ascontiguousarray(small), under, alpha, 1 - alpha)
    return out
