"""The views of a picture: whole, turned, mirrored, in parts; it describes none."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vit4icd.images import Source, read_image
from vit4icd.matches import refuse_plain, too_plain
from vit4icd.preprocessing import Preprocessing

__all__ = ["N_PARTS", "n_views", "part_name", "parts_of", "picture_of", "views_of"]

Picture = UInt8[np.ndarray, "_ _ 3"]

_PLACES = [*map(" ".join, product(("top", "middle", "bottom"), ("left", "centre", "right")))]

N_PARTS = len(_PLACES)
"""Parts that a picture is cut into."""


def picture_of(
    source: Source, preprocessing: Preprocessing, *, regions: bool, max_pixels: int
) -> Picture:
    """Return a picture, decoded no larger than its views, or with ``regions`` its parts, need.

    Raises:
        ImageError: it cannot be read, or is too plain to judge.
    """
    at_least = preprocessing.at_least
    if at_least is not None and regions:  # parts have half its sides
        at_least *= 2
    image = read_image(source, max_pixels=max_pixels, at_least=at_least)
    refuse_plain(image)
    return image


def views_of(
    image: Picture,
    *,
    flip: bool = False,
    rotate: bool = False,
    regions: bool = False,
    at_least: int | None = None,
) -> Iterator[tuple[str, Picture]]:
    """Yield a picture whole and, if asked, mirrored, turned and in parts, each with a name.

    With ``rotate`` come all eight orientations, with ``regions`` the parts of each, as
    :func:`parts_of` gives them. With ``at_least``, as :attr:`Preprocessing.at_least` says it, a
    large picture is mirrored and turned reduced: only the upright one has to be described as
    references are.

    Example:
        >>> [name for name, _ in views_of(np.zeros((2, 3, 3), np.uint8), flip=True)]
        ['upright', 'flipped']
    """
    sides = at_least and at_least * (1 + regions)  # parts have half of them
    for orientation, turned in _orientations(image, flip or rotate, rotate, sides):
        yield orientation, turned
        if regions:
            for number, part in parts_of(turned):
                yield f"{orientation}, {part_name(number)}", part


def parts_of(image: Picture) -> Iterator[tuple[int, Picture]]:
    """Yield the parts of a picture, each with its number from 1; those too plain are left out.

    Nine parts of half the width and height, each overlapping its neighbours by half.
    """
    height, width = image.shape[0] // 2, image.shape[1] // 2
    for number in range(1, N_PARTS + 1) if min(height, width) else ():
        down, across = divmod(number - 1, 3)
        top, left = height * down // 2, width * across // 2
        part = np.ascontiguousarray(image[top : top + height, left : left + width])
        if too_plain(part) is None:
            yield number, part


def part_name(number: int) -> str:
    """Return what a part is called; 0 is the whole picture.

    Example:
        >>> part_name(0), part_name(1), part_name(5)
        ('whole', 'top left', 'middle centre')
    """
    return ["whole", *_PLACES][number]


def n_views(*, flip: bool, rotate: bool, regions: bool) -> int:
    """Return how many views a picture has at most."""
    return (8 if rotate else 2 if flip else 1) * (1 + N_PARTS * regions)


def _orientations(
    image: Picture, flip: bool, rotate: bool, at_least: int | None
) -> Iterator[tuple[str, Picture]]:
    yield "upright", image
    if not flip:
        return
    small = image if at_least is None else _reduced(image, at_least)
    for is_flipped, mirrored in ((False, small), (True, small[:, ::-1])):
        for turns in range(4) if rotate else (0,):
            words = ["flipped"] * is_flipped + [f"rotated {90 * turns}"] * (turns > 0)
            if words:
                yield " and ".join(words), np.ascontiguousarray(np.rot90(mirrored, -turns))


def _reduced(image: Picture, at_least: int) -> Picture:
    """Return the mean of blocks of a picture, each side shrunk as far as it stays long enough."""
    height, width = image.shape[:2]
    factors = max(1, width // at_least), max(1, height // at_least)
    return image if max(factors) == 1 else np.asarray(Image.fromarray(image).reduce(factors))
