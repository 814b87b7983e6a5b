"""A contact sheet that shows every edit at three strengths; it draws nothing by chance."""

import cv2
import numpy as np

from vit4icd.edits.colour import Image
from vit4icd.edits.plan import Donors, apply_plan
from vit4icd.edits.table import EDITS, HELD_OUT_EDITS

__all__ = ["contact_sheet"]

_STRENGTHS = (0.35, 0.7, 1.0)
_TILE, _LABEL, _GAP = 160, 22, 6
_COLUMNS = 4  # edits side by side, each with one tile per strength


def contact_sheet(image: Image, *, donors: Donors, seed: int = 0) -> Image:
    """Return one labelled picture with every edit at strengths .35, .7 and 1, each drawn anew."""
    cells = [_cell(name, image, donors, (seed, number)) for number, name in enumerate(EDITS)]
    while len(cells) % _COLUMNS:
        cells.append(np.full_like(cells[0], 255))
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells), _COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def _cell(name: str, image: Image, donors: Donors, seed: tuple[int, int]) -> Image:
    tiles = [
        _tile(name, image, donors, strength, np.random.default_rng((*seed, column)))
        for column, strength in enumerate(_STRENGTHS)
    ]
    body = np.concatenate(tiles, axis=1)
    label = np.full((_LABEL, body.shape[1], 3), 255, np.uint8)
    edit = EDITS[name]
    held_out = ", never trained on" if name in HELD_OUT_EDITS else ""
    text = f"{name.replace('_', ' ')}  ({edit.family}{held_out})"
    cv2.putText(label, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(
        np.concatenate([label, body]), 0, _GAP, 0, 2 * _GAP, cv2.BORDER_CONSTANT, value=(255,) * 3
    )


def _tile(
    name: str, image: Image, donors: Donors, strength: float, edit_rng: np.random.Generator
) -> Image:
    edit = EDITS[name]
    params = edit.draw(edit_rng, strength)
    params["donors"] = list(range(edit.n_donors))
    tile = apply_plan(image, ((name, params),), donors=donors, size=_TILE)
    return cv2.copyMakeBorder(tile, 0, 0, 0, _GAP // 2, cv2.BORDER_CONSTANT, value=(255,) * 3)
