"""Every edit by name: how its parameters are drawn and how it is applied; no order, no chance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vit4icd.edits import colour, geometry, overlays, pastes, pixels
from vit4icd.edits.colour import Image, Params

__all__ = ["EDITS", "HELD_OUT_EDITS", "OFFICIAL_EDITS", "PASTE_EDITS", "TRAINING_EDITS", "Edit"]

Family = Literal["colour", "pixels", "geometry", "overlay", "paste"]
Draw = Callable[[np.random.Generator, float], Params]


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """One edit: drawn apart from applied, and applied in one of three ways.

    ``pixels`` changes a picture, ``matrix`` says where it moves (so that neighbours become one
    warp), ``mix`` combines it with ``n_donors`` other pictures of the same size. ``draw`` takes a
    strength of 0 to 1; 1 is the whole range of the edit's source.
    """

    family: Family
    draw: Draw
    pixels: Callable[[Image, Params], Image] | None = None
    matrix: Callable[[Params, float], geometry.Matrix] | None = None
    mix: Callable[[Image, list[Image], Params], Image] | None = None
    n_donors: int = 0


EDITS: dict[str, Edit] = {
    # The 24 edits of ViT4ICD's training set, in the order of its description.
    "channel_change": Edit(
        family="colour", draw=colour.draw_channel_change, pixels=colour.apply_channel_change
    ),
    "pad_square": Edit(
        family="geometry", draw=geometry.draw_pad_square, matrix=geometry.matrix_pad_square
    ),
    "resized_crop": Edit(
        family="geometry", draw=geometry.draw_resized_crop, matrix=geometry.matrix_resized_crop
    ),
    "rotate": Edit(family="geometry", draw=geometry.draw_rotate, matrix=geometry.matrix_rotate),
    "blend": Edit(family="paste", draw=pastes.draw_blend, mix=pastes.apply_blend, n_donors=1),
    "grayscale": Edit(family="colour", draw=colour.draw_nothing, pixels=colour.apply_grayscale),
    "colour_jitter": Edit(
        family="colour", draw=colour.draw_colour_jitter, pixels=colour.apply_colour_jitter
    ),
    "blur": Edit(family="pixels", draw=pixels.draw_blur, pixels=pixels.apply_blur),
    "pixelate": Edit(family="pixels", draw=pixels.draw_pixelate, pixels=pixels.apply_pixelate),
    "pad": Edit(family="geometry", draw=geometry.draw_pad, matrix=geometry.matrix_pad),
    "noise": Edit(family="pixels", draw=pixels.draw_noise, pixels=pixels.apply_noise),
    "flip_vertically": Edit(
        family="geometry", draw=colour.draw_nothing, matrix=geometry.matrix_flip_vertically
    ),
    "flip_horizontally": Edit(
        family="geometry", draw=colour.draw_nothing, matrix=geometry.matrix_flip_horizontally
    ),
    "jpeg": Edit(family="pixels", draw=pixels.draw_jpeg, pixels=pixels.apply_jpeg),
    "stripes": Edit(family="overlay", draw=overlays.draw_stripes, pixels=overlays.apply_stripes),
    "sharpen": Edit(family="pixels", draw=pixels.draw_sharpen, pixels=pixels.apply_sharpen),
    "skew": Edit(family="geometry", draw=geometry.draw_skew, matrix=geometry.matrix_skew),
    "shuffle_pixels": Edit(
        family="pixels", draw=pixels.draw_shuffle_pixels, pixels=pixels.apply_shuffle_pixels
    ),
    "meme": Edit(family="overlay", draw=overlays.draw_meme, pixels=overlays.apply_meme),
    "emoji": Edit(family="overlay", draw=overlays.draw_emoji, pixels=overlays.apply_emoji),
    "text": Edit(family="overlay", draw=overlays.draw_text, pixels=overlays.apply_text),
    "perspective": Edit(
        family="geometry", draw=geometry.draw_perspective, matrix=geometry.matrix_perspective
    ),
    "paste": Edit(family="paste", draw=pastes.draw_paste, mix=pastes.apply_paste, n_donors=1),
    "stack": Edit(family="paste", draw=pastes.draw_stack, mix=pastes.apply_stack, n_donors=1),
    # Further edits that copies meet: strong crops, filters, and hiding in another picture.
    "crop": Edit(family="geometry", draw=geometry.draw_crop, matrix=geometry.matrix_crop),
    "aspect": Edit(family="geometry", draw=geometry.draw_aspect, matrix=geometry.matrix_aspect),
    "brightness": Edit(
        family="colour", draw=colour.draw_brightness, pixels=colour.apply_brightness
    ),
    "saturation": Edit(
        family="colour", draw=colour.draw_saturation, pixels=colour.apply_saturation
    ),
    "palette": Edit(family="colour", draw=colour.draw_palette, pixels=colour.apply_palette),
    "edge_enhance": Edit(
        family="pixels", draw=colour.draw_nothing, pixels=pixels.apply_edge_enhance
    ),
    "overlay_donor": Edit(
        family="overlay", draw=pastes.draw_overlay_donor, mix=pastes.apply_overlay_donor, n_donors=1
    ),
    "underlay": Edit(family="paste", draw=pastes.draw_underlay, mix=pastes.apply_paste, n_donors=1),
    "blurry_mask": Edit(
        family="paste", draw=pastes.draw_blurry_mask, mix=pastes.apply_blurry_mask, n_donors=1
    ),
    "collage": Edit(family="paste", draw=pastes.draw_collage, mix=pastes.apply_collage, n_donors=3),
    "screenshot": Edit(
        family="paste", draw=overlays.draw_screenshot, pixels=overlays.apply_screenshot
    ),
    # Never trained on by default, so that robustness to the unseen can be reported.
    "vignette": Edit(family="colour", draw=colour.draw_vignette, pixels=colour.apply_vignette),
    "solarise": Edit(family="colour", draw=colour.draw_solarise, pixels=colour.apply_solarise),
    "halftone": Edit(family="pixels", draw=pixels.draw_halftone, pixels=pixels.apply_halftone),
    "motion_blur": Edit(
        family="pixels", draw=pixels.draw_motion_blur, pixels=pixels.apply_motion_blur
    ),
    "median": Edit(family="pixels", draw=pixels.draw_median, pixels=pixels.apply_median),
    "swirl": Edit(family="geometry", draw=geometry.draw_swirl, pixels=geometry.apply_swirl),
}
"""Every edit by name."""

_NAMES = tuple(EDITS)
OFFICIAL_EDITS = _NAMES[:24]
"""The 24 edits of the original's training set."""
HELD_OUT_EDITS = ("vignette", "solarise", "halftone", "motion_blur", "median", "swirl")
"""Edits that no recipe trains on."""
PASTE_EDITS = ("underlay", "blurry_mask", "collage", "screenshot")
"""Edits that hide the picture inside another one."""
TRAINING_EDITS = tuple(name for name in _NAMES if name not in HELD_OUT_EDITS)
"""All edits but those held out."""
