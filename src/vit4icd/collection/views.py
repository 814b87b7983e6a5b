"""The views of a query that are searched: turned, mirrored, in parts; it describes none."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from jaxtyping import UInt8

from vit4icd.matches import too_plain

__all__ = ["n_views", "views_of"]

Picture = UInt8[np.ndarray, "_ _ 3"]

_REGIONS = tuple(product(("top", "middle", "bottom"), ("left", "centre", "right")))


def views_of(
    image: Picture, *, flip: bool = False, rotate: bool = False, regions: bool = False
) -> Iterator[tuple[str, Picture]]:
    """Yield a picture whole and, if asked, mirrored, turned and in parts, each with a name.

    With ``rotate`` come all eight orientations, with ``regions`` nine parts of half the width and
    height, each overlapping its neighbours by half; parts too plain to judge are left out.

    Example:
        >>> [name for name, _ in views_of(np.zeros((2, 3, 3), np.uint8), flip=True)]
        ['upright', 'flipped']
    """
    for orientation, turned in _orientations(image, flip or rotate, rotate):
        yield orientation, turned
        if regions:
            yield from _regions(orientation, turned)


def n_views(*, flip: bool, rotate: bool, regions: bool) -> int:
    """Return how many views a picture has at most."""
    return (8 if rotate else 2 if flip else 1) * (10 if regions else 1)


def _orientations(image: Picture, flip: bool, rotate: bool) -> Iterator[tuple[str, Picture]]:
    for is_flipped in (False, True) if flip else (False,):
        mirrored = image[:, ::-1] if is_flipped else image
        for turns in range(4) if rotate else (0,):
            words = ["flipped"] * is_flipped + [f"rotated {90 * turns}"] * (turns > 0)
            turned = np.ascontiguousarray(np.rot90(mirrored, -turns))
            yield " and ".join(words) or "upright", turned


def _regions(orientation: str, image: Picture) -> Iterator[tuple[str, Picture]]:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    if not min(height, width):
        return
    for place, (vertical, horizontal) in enumerate(_REGIONS):
        top, left = height * (place // 3) // 2, width * (place % 3) // 2
        part = np.ascontiguousarray(image[top : top + height, left : left + width])
        if too_plain(part) is None:
            yield f"{orientation}, {vertical} {horizontal}", part
