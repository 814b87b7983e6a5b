"""Which edits a copy gets, and carrying them out: drawn first, applied after, replayable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vit4icd.edits.colour import Image, Params
from vit4icd.edits.geometry import Move, move
from vit4icd.edits.table import EDITS, OFFICIAL_EDITS, PASTE_EDITS, TRAINING_EDITS, Edit
from vit4icd.errors import ConfigError

__all__ = [
    "Donors",
    "EditConfig",
    "EditPlan",
    "apply_plan",
    "draw_plan",
    "edited_copy",
    "official_config",
    "robust_config",
]

Donors = Callable[[int], Image]
"""Number -> another picture; numbers are drawn below 2^31, the callable reduces them."""

EditPlan = tuple[tuple[str, dict[str, Any]], ...]
"""Names and parameters of edits, in the order they are applied; plain JSON values."""

_PLAIN = 6.0  # standard deviation of values below which a copy shows nothing to recognise
_TRIES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class EditConfig:
    """How the edits of a copy are drawn.

    Raises:
        ConfigError: an unknown edit, or shares outside 0 to 1.
    """

    names: tuple[str, ...] = TRAINING_EDITS
    count_shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)
    """Share of copies with 1, 2, 3, ... distinct edits."""
    strength: float = 1.0
    weakest: float = 1.0
    """Each edit's strength is drawn between this share of ``strength`` and ``strength``."""
    hide_share: float = 0.0
    """Share of copies that are hidden in another picture after their other edits."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.names) - EDITS.keys())
        if unknown:
            raise ConfigError(f"there is no edit {unknown[0]!r}; known: {', '.join(EDITS)}")
        if min(self.count_shares, default=0.0) < 0:
            raise ConfigError(f"count_shares must not be negative, not {self.count_shares}")
        if len(self.count_shares) > len(self.names) or abs(sum(self.count_shares) - 1) > 1e-6:
            raise ConfigError(
                f"count_shares must sum to 1 over at most {len(self.names)} counts, "
                f"not {self.count_shares}"
            )
        if not all(0 <= share <= 1 for share in (self.strength, self.weakest, self.hide_share)):
            raise ConfigError("strength, weakest and hide_share lie between 0 and 1")


def official_config() -> EditConfig:
    """Return the original's draw: 3 distinct edits out of its 24, whole ranges, drawn order."""
    return EditConfig(names=OFFICIAL_EDITS, count_shares=(0.0, 0.0, 1.0))


def robust_config(strength: float = 1.0) -> EditConfig:
    """Return this project's draw: 1 to 4 edits of all kinds, every fourth copy hidden."""
    return EditConfig(strength=strength, weakest=0.3, hide_share=0.25)


def draw_plan(edit_rng: np.random.Generator, config: EditConfig) -> EditPlan:
    """Draw the edits of one copy and their parameters."""
    n_edits = 1 + int(edit_rng.choice(len(config.count_shares), p=config.count_shares))
    hidden = edit_rng.random() < config.hide_share
    names = [n for n in config.names if not (hidden and EDITS[n].family == "paste")]
    chosen = [str(name) for name in edit_rng.choice(names, min(n_edits, len(names)), replace=False)]
    if hidden:
        chosen.append(str(edit_rng.choice(PASTE_EDITS)))
    return tuple((name, _draw_params(EDITS[name], edit_rng, config)) for name in chosen)


def apply_plan(image: Image, plan: EditPlan, *, donors: Donors, size: int) -> Image:
    """Carry out the edits in order; the copy is ``size`` x ``size``, its aspect ratio given up.

    Neighbouring moves are composed into one warp, and the first one starts from the picture at its
    own size, so that crops keep their detail.
    """
    return _carry_out(image, plan, donors, size)[0]


def edited_copy(
    image: Image,
    *,
    edit_rng: np.random.Generator,
    config: EditConfig,
    donors: Donors,
    size: int,
) -> Image:
    """Return an edited copy; where edits leave nothing to recognise, others are drawn."""
    for _ in range(_TRIES):
        copy, contrast = _carry_out(image, draw_plan(edit_rng, config), donors, size)
        if contrast >= _PLAIN:
            return copy
    return move(image, (), size=size)


def _carry_out(image: Image, plan: EditPlan, donors: Donors, size: int) -> tuple[Image, float]:
    """Return the copy and the least contrast that the picture had before a mix or at the end.

    Once the picture is one colour, another picture beside it hides that there is nothing left.
    """
    aspect = image.shape[1] / image.shape[0]
    contrast = np.inf
    waiting: list[Move] = []
    for name, params in plan:
        edit = EDITS[name]
        if edit.matrix is not None:
            red, green, blue = params.get("fill", (0, 0, 0))
            waiting.append((edit.matrix(params, aspect), (red, green, blue)))
            aspect = 1.0 if name == "pad_square" else aspect
            continue
        image = _moved(image, waiting, size)
        if edit.mix is not None:
            contrast = min(contrast, _contrast(image))
        image = _applied(edit, image, params, donors)
    image = np.ascontiguousarray(_moved(image, waiting, size))
    return image, min(contrast, _contrast(image))


def _contrast(image: Image) -> float:
    """Return the largest standard deviation of a channel's values."""
    return float(cv2.meanStdDev(image)[1].max())


def _draw_params(edit: Edit, edit_rng: np.random.Generator, config: EditConfig) -> Params:
    strength = config.strength * float(edit_rng.uniform(config.weakest, 1.0))
    params = edit.draw(edit_rng, strength)
    if edit.n_donors:
        params["donors"] = [int(number) for number in edit_rng.integers(2**31, size=edit.n_donors)]
    return params


def _moved(image: Image, waiting: list[Move], size: int) -> Image:
    if not waiting and image.shape[:2] == (size, size):
        return image
    moved = move(image, waiting, size=size)
    waiting.clear()
    return moved


def _applied(edit: Edit, image: Image, params: Params, donors: Donors) -> Image:
    if edit.pixels is not None:
        return edit.pixels(image, params)
    assert edit.mix is not None
    side = image.shape[0]
    others = [_sized(donors(number), side) for number in params["donors"]]
    return edit.mix(image, others, params)


def _sized(donor: Image, side: int) -> Image:
    if donor.shape[:2] == (side, side):
        return np.ascontiguousarray(donor)
    return cv2.resize(np.ascontiguousarray(donor), (side, side), interpolation=cv2.INTER_AREA)
