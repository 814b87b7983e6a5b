"""The views of a query that are searched: turned, mirrored, in parts; it describes none."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

__all__ = ["views_of"]

Picture = UInt8[np.ndarray, "_ _ 3"]


def views_of(
    image: Picture, *, flip: bool = False, rotate: bool = False
) -> Iterator[tuple[str, Picture]]:
    """Yield a picture as it is and, if asked, mirrored or in all eight orientations, with names.

    Example:
        >>> [name for name, _ in views_of(np.zeros((2, 3, 3), np.uint8), flip=True)]
        ['upright', 'flipped']
    """
    for is_flipped in (False, True) if flip or rotate else (False,):
        mirrored = image[:, ::-1] if is_flipped else image
        for turns in range(4) if rotate else (0,):
            words = ["flipped"] * is_flipped + [f"rotated {90 * turns}"] * (turns > 0)
            turned = np.ascontiguousarray(np.rot90(mirrored, -turns))
            yield " and ".join(words) or "upright", turned
