"""The columns that pass between rooms, validated once at birth; it reads, writes, finds nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from vit4icd.errors import DataError, MismatchError

__all__ = ["DescriptorSet", "Pairs", "Truth", "require_same_model"]

_CHECK_ROWS = 65_536  # rows checked at a time, so that a mapped file is never copied whole


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DescriptorSet:
    """Descriptors of a set of images, one row each.

    ``ids`` are unique; ``vectors`` is float32 ``[image, dim]``, finite, and may be a mapped file;
    ``fingerprint`` names the model and preprocessing that made them, ``None`` for files of the
    original tools, which do not say.

    Raises:
        DataError: vectors of another type or shape, ids that repeat, or values that are not finite.
        MismatchError: ids and vectors of different lengths.
    """

    ids: Sequence[str]
    vectors: Float32[np.ndarray, "image dim"]
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise DataError(
                f"descriptors are float32 [image, dim], not {self.vectors.dtype} "
                f"{list(self.vectors.shape)}; give vectors.astype(np.float32)"
            )
        if len(self.ids) != len(self.vectors):
            raise MismatchError(f"{len(self.ids)} ids for {len(self.vectors)} vectors")
        _require_unique("image ids", self.ids)
        for start in range(0, len(self.vectors), _CHECK_ROWS):
            finite = np.isfinite(self.vectors[start : start + _CHECK_ROWS]).all(axis=1)
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise DataError(f"the descriptor of {self.ids[row]!r} (row {row}) is not finite")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Length of one descriptor."""
        return int(self.vectors.shape[1])

    def only(self, rows: Sequence[int]) -> "DescriptorSet":
        """Return the images of these rows, in that order."""
        ids = [self.ids[row] for row in rows]
        return replace(self, ids=ids, vectors=self.vectors[np.asarray(rows, np.int64)])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pairs:
    """Scored (query, reference) pairs; a higher score is more alike. Pairs are unique.

    Raises:
        DataError: a pair that repeats, or a score that is not finite.
        MismatchError: columns of different lengths.
    """

    queries: Sequence[str]
    references: Sequence[str]
    scores: Float64[np.ndarray, " pair"]

    def __post_init__(self) -> None:
        if not len(self.queries) == len(self.references) == len(self.scores):
            raise MismatchError(
                f"columns differ in length: {len(self.queries)} queries, "
                f"{len(self.references)} references, {len(self.scores)} scores"
            )
        if not np.isfinite(self.scores).all():
            row = int(np.argmin(np.isfinite(self.scores)))
            raise DataError(f"the score of pair {row} is {self.scores[row]}; scores are finite")
        if len(set(zip(self.queries, self.references, strict=True))) != len(self.scores):
            raise DataError("Predictions contains duplicates: a (query, reference) pair repeats")

    def __len__(self) -> int:
        return len(self.scores)

    def only(self, rows: Sequence[int] | np.ndarray) -> "Pairs":
        """Return the pairs of these rows, in that order."""
        return Pairs(
            queries=[self.queries[row] for row in rows],
            references=[self.references[row] for row in rows],
            scores=self.scores[np.asarray(rows, np.int64)],
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Truth:
    """True (query, reference) pairs, in file order; rows may repeat and then count twice.

    Raises:
        MismatchError: columns of different lengths.
    """

    queries: Sequence[str]
    references: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.references):
            raise MismatchError(
                f"{len(self.queries)} queries for {len(self.references)} references"
            )

    def __len__(self) -> int:
        return len(self.queries)

    def only(self, rows: Sequence[int]) -> "Truth":
        """Return the pairs of these rows, in that order."""
        return Truth(
            queries=[self.queries[row] for row in rows],
            references=[self.references[row] for row in rows],
        )


def require_same_model(queries: DescriptorSet, others: DescriptorSet, *, called: str) -> None:
    """Refuse sets that cannot be compared; files that do not name their model are trusted.

    Raises:
        MismatchError: another dimension or another model; the message says ``called``.
    """
    if others.dim != queries.dim:
        raise MismatchError(
            f"queries have {queries.dim} dimensions, {called} {others.dim}; describe both with "
            "the same model"
        )
    if len({queries.fingerprint, others.fingerprint} - {None}) > 1:
        raise MismatchError(
            f"queries were described by model {queries.fingerprint}, {called} by "
            f"{others.fingerprint}; describe both with the same model"
        )


def _require_unique(what: str, values: Sequence[str]) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise DataError(f"{what} must be unique, but {value!r} stands there twice")
        seen.add(value)
