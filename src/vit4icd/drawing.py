"""A match as a picture: query and reference with their common part, and one laid on the other."""

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vit4icd.images import resize
from vit4icd.matches import Match, probability_text
from vit4icd.overlap import Overlap

__all__ = ["draw_match"]

Picture = UInt8[np.ndarray, "_ _ 3"]

_HEIGHT, _MARGIN, _CAPTION = 400, 24, 34  # pixels
_WIDEST = 640
_PAPER, _INK, _FAINT, _ACCENT = (250, 250, 248), (32, 33, 36), (110, 112, 118), (222, 74, 41)


def draw_match(query: Picture, reference: Picture, match: Match) -> Picture:
    """Return query and reference side by side; a proven part is outlined and, third, overlaid.

    The third panel is the query with the reference warped onto it at half strength: where they show
    the same, it looks like one sharp picture.
    """
    overlap = match.overlap
    panels = [
        (_outlined(_fitted(query), None if overlap is None else overlap.query_polygon), "query"),
        (
            _outlined(_fitted(reference), None if overlap is None else overlap.reference_polygon),
            "reference",
        ),
    ]
    if overlap is not None:
        panels.append((_laid_over(query, reference, overlap), "reference laid on the query"))
    sentence = _sentence(match)
    width = sum(panel.shape[1] for panel, _ in panels) + _MARGIN * (len(panels) + 1)
    width = max(width, round(_font(18).getlength(sentence)) + 2 * _MARGIN)
    sheet = Image.new("RGB", (width, _HEIGHT + _CAPTION + 3 * _MARGIN), _PAPER)
    draw, left = ImageDraw.Draw(sheet), _MARGIN
    for panel, name in panels:
        top = _MARGIN + (_HEIGHT - panel.shape[0]) // 2
        sheet.paste(Image.fromarray(panel), (left, top))
        draw.text((left, _MARGIN + _HEIGHT + 8), name, _FAINT, _font(15))
        left += panel.shape[1] + _MARGIN
    draw.text((_MARGIN, _HEIGHT + _CAPTION + _MARGIN + 4), sentence, _INK, _font(18))
    return np.asarray(sheet)


def _fitted(image: Picture) -> Picture:
    scale = min(_HEIGHT / image.shape[0], _WIDEST / image.shape[1])
    return resize(
        image, max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    )


def _outlined(panel: Picture, polygon: np.ndarray | None) -> Picture:
    """Draw the polygon's outline, and what lies outside it paler."""
    if polygon is None:
        return panel
    height, width = panel.shape[:2]
    corners = np.round(polygon * (width, height)).astype(np.int32)
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [corners], 255)
    pale = (0.4 * panel + 0.6 * np.array(_PAPER)).astype(np.uint8)
    drawn = np.where(inside[..., None] > 0, panel, pale)
    cv2.polylines(drawn, [corners], True, _ACCENT, 3, cv2.LINE_AA)
    return drawn


def _laid_over(query: Picture, reference: Picture, overlap: Overlap) -> Picture:
    panel = _fitted(query)
    height, width = panel.shape[:2]
    to_shares = np.diag([1 / reference.shape[1], 1 / reference.shape[0], 1.0])
    matrix = np.diag([width, height, 1.0]) @ overlap.matrix @ to_shares
    warped = cv2.warpPerspective(reference, matrix, (width, height), flags=cv2.INTER_AREA)
    covered = cv2.warpPerspective(
        np.full(reference.shape[:2], 255, np.uint8), matrix, (width, height)
    )
    share = 0.5 * (covered[..., None] > 127)
    mixed = ((1 - share) * panel + share * warped).astype(np.uint8)
    return _edged(mixed, overlap.query_polygon)


def _edged(panel: Picture, polygon: np.ndarray) -> Picture:
    height, width = panel.shape[:2]
    corners = np.round(polygon * (width, height)).astype(np.int32)
    cv2.polylines(panel, [corners], True, _ACCENT, 2, cv2.LINE_AA)
    return panel


def _sentence(match: Match) -> str:
    overlap, probability = match.overlap, probability_text(match.probability)
    words = [match.verdict, *([f"probability {probability}"] if probability else [])]
    if overlap is None:
        return f"{', '.join(words)}: no common part was proven"
    return (
        f"{', '.join(words)}: {overlap.query_share:.0%} of the query is "
        f"{overlap.reference_share:.0%} of the reference, {overlap.motion}"
    )


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
