"""Which classes look most alike, so that a batch holds hard negatives; it describes nothing."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from vit4icd.datasets import ClassSource
from vit4icd.errors import MismatchError
from vit4icd.search import top_k
from vit4icd.types import DescriptorSet

__all__ = ["ClassOrder", "InGroups", "nearest_classes"]

NearestClasses = Int64[np.ndarray, "class near"]

_SAME_PICTURE = 0.85
"""Cosine from which two pictures are taken for the same one, which is no negative."""
_ASKED = 6  # neighbours looked at for each that is wanted, since many may be the same picture


@runtime_checkable
class ClassOrder(Protocol):
    """One pass over the classes in an order of its own."""

    def __call__(self, order_rng: np.random.Generator) -> Int64[np.ndarray, " class"]:
        """Draw a pass."""
        ...


class InGroups:
    """Passes in which each drawn class is followed by ``n_each`` of those nearest to it.

    As many classes are drawn as make the pass as long as one over all classes; a class may come
    more than once. Source: neighbours as hard negatives, as in ANCE (Xiong et al. 2021).
    """

    def __init__(self, nearest: NearestClasses, n_each: int) -> None:
        self.nearest, self.n_each = nearest, n_each

    def __call__(self, order_rng: np.random.Generator) -> Int64[np.ndarray, " class"]:
        """Draw a pass."""
        n_classes, n_near = self.nearest.shape
        seeds = order_rng.permutation(n_classes)[: max(1, n_classes // (1 + self.n_each))]
        ranks = order_rng.permuted(np.tile(np.arange(n_near), (len(seeds), 1)), axis=1)
        near = np.take_along_axis(self.nearest[seeds], ranks[:, : self.n_each], axis=1)
        return np.concatenate([seeds[:, None], near], axis=1).ravel().astype(np.int64)


def nearest_classes(
    source: ClassSource, descriptors: DescriptorSet, *, n_nearest: int
) -> NearestClasses:
    """Return the classes most alike to each class by the descriptor of its first picture.

    Pictures with a cosine of 0.85 or more are passed over: they may well be the same picture. Where
    too few others are left, and for a picture without a descriptor, the class itself stands in.

    Raises:
        MismatchError: no picture of the source has a descriptor.
    """
    rows = {name: row for row, name in enumerate(descriptors.ids)}
    first = np.unique(source.labels, return_index=True)[1]
    known = [label for label, index in enumerate(first) if source.names[index] in rows]
    if not known:
        raise MismatchError(
            f"there is no descriptor of {source.names[0]} nor of any other training picture; "
            "describe the same --data, named the same way, for --neighbours"
        )
    labels = np.array(known)
    vectors = np.stack([descriptors.vectors[rows[source.names[first[label]]]] for label in known])
    n_asked = min(_ASKED * n_nearest, len(vectors))
    scores, near = top_k(vectors, vectors, n_asked)
    usable = (scores < _SAME_PICTURE) & (near != np.arange(len(vectors))[:, None])
    near = np.where(usable, labels[near], labels[:, None])
    order = np.argsort(~usable, axis=1, kind="stable")[:, :n_nearest]
    nearest = np.tile(np.arange(len(first))[:, None], (1, n_nearest))
    nearest[labels, : order.shape[1]] = np.take_along_axis(near, order, axis=1)
    return nearest
