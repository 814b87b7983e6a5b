"""Score normalisation: all published variants behind one function; it searches no references."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32

from vit4icd.errors import ConfigError, DataError
from vit4icd.search import top_k
from vit4icd.types import DescriptorSet, require_same_model

__all__ = ["Normalised", "Reduction", "ScoreNormalisation", "normalise"]

Reduction = Literal["avg", "min", "sscd", "copynce", "vsc", "stretch", "subtract"]
Vectors = Float32[np.ndarray, "row dim"]

_PUBLISHED: dict[Reduction, tuple[float, int, int]] = {  # factor, first rank, ranks
    "avg": (2.0, 0, 10),
    "min": (1.0, 0, 10),
    "sscd": (1.0, 0, 3),
    "copynce": (1.0, 1, 4),
    "vsc": (1.0, 0, 1),
    "stretch": (2.5, 0, 5),
    "subtract": (0.35, 0, 10),
}
_ROWS = 1_024  # rows whose neighbours are gathered at a time
_EXPANSION = 10, 3.0  # neighbours and exponent of the background's own query expansion (subtract)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreNormalisation:
    """How the nearest background images of a query change its scores.

    With b_k the similarity of the k-th nearest background image (k from 0), f the factor, m the
    first rank and n the number of neighbours:

    ========  =========================================================  ======================
    avg       s - f mean(b_m .. b_m+n-1)                                 ViT4ICD: f 2, n 10
    min       s - f b_m+n-1                                              ISC2021: f 1, n 10
    sscd      as avg                                                     SSCD: f 1, ranks 0-2
    copynce   as avg, the nearest image left out                         CopyNCE: f 1, ranks 1-4
    vsc       as avg, all without the dimension that varies least        VSC2022: f 1, rank 0
    stretch   -|f mean(b_m .. b_m+n-1) q - r|^2                          BoT: f 2.5, n 5
    subtract  x - f mean(nearest images), normalised, for q and r        lyakaap: f 0.35, n 10
    ========  =========================================================  ======================

    The dimension is the one that varies least over the background; queries, references and
    background are scaled to length 1 again without it.

    Raises:
        ConfigError: ranks or neighbours out of range, or a factor that is not finite.
    """

    reduction: Reduction = "avg"
    factor: float = 2.0
    neighbours: int = 10
    first_rank: int = 0

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.first_rank < 0:
            raise ConfigError(
                f"neighbours must be at least 1 and the first rank 0, not {self.neighbours} and "
                f"{self.first_rank}"
            )
        if not np.isfinite(self.factor):
            raise ConfigError(f"the factor must be a finite number, not {self.factor}")

    @classmethod
    def published(
        cls, reduction: Reduction, *, factor: float | None = None, neighbours: int | None = None
    ) -> "ScoreNormalisation":
        """Return the variant with the numbers of its source, where no others are given."""
        known_factor, first_rank, known_neighbours = _PUBLISHED[reduction]
        return cls(
            reduction=reduction,
            factor=known_factor if factor is None else factor,
            neighbours=known_neighbours if neighbours is None else neighbours,
            first_rank=first_rank,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Normalised:
    """Queries ready for search: scores are <query, transform(reference)> + bias."""

    queries: DescriptorSet
    bias: Float32[np.ndarray, " query"]
    transform: Callable[[Vectors], Vectors] | None = None

    @classmethod
    def unchanged(cls, queries: DescriptorSet) -> "Normalised":
        """Return the queries as they are, for raw inner products."""
        return cls(queries=queries, bias=np.zeros(len(queries), np.float32))


def normalise(
    queries: DescriptorSet, background: DescriptorSet, *, config: ScoreNormalisation
) -> Normalised:
    """Prepare queries so that the scores of an exact search are normalised ones.

    Every variant but "subtract" and "vsc" changes only the query's side, so references and any
    index of them stay as they are. No score depends on the other queries.

    Raises:
        DataError: the background is smaller than the neighbours asked for.
        MismatchError: background and queries differ in dimension or model.
    """
    _require_fitting(queries, background, config)
    if config.reduction == "subtract":
        return _subtracted(queries, background, config)
    if config.reduction == "vsc":
        return _without_least_varying(queries, background, config)
    level = _background_level(queries.vectors, background.vectors, config)
    if config.reduction == "stretch":
        return _stretched(queries, level)
    return Normalised(queries=queries, bias=-level)


def _background_level(
    queries: Vectors,
    background: Float32[np.ndarray, "background dim"],
    config: ScoreNormalisation,
) -> Float32[np.ndarray, " query"]:
    """Return f times the mean (or the last) of the asked ranks of each query."""
    nearest = top_k(queries, background, config.first_rank + config.neighbours)[0]
    ranks = nearest[:, config.first_rank :]
    level = ranks[:, -1] if config.reduction == "min" else ranks.mean(axis=1)
    scaled: Float32[np.ndarray, " query"] = (config.factor * level).astype(np.float32)
    return scaled


def _stretched(queries: DescriptorSet, level: Float32[np.ndarray, " query"]) -> Normalised:
    """Rank by -|g q - r|^2 = 2 <g q, r> - g^2 |q|^2 - 1, references being unit vectors."""
    longer = (queries.vectors * level[:, None]).astype(np.float32)
    bias = (-np.square(longer).sum(axis=1) - 1.0).astype(np.float32)
    return Normalised(queries=replace(queries, vectors=2.0 * longer), bias=bias)


def _without_least_varying(
    queries: DescriptorSet, background: DescriptorSet, config: ScoreNormalisation
) -> Normalised:
    """Zero the dimension, which to inner products and lengths is what leaving it out is."""
    least = int(np.argmin(background.vectors.var(axis=0)))

    def transform(vectors: Vectors) -> Vectors:
        zeroed = np.array(vectors)
        zeroed[:, least] = 0.0
        return _unit(zeroed)

    vectors = transform(queries.vectors)
    level = _background_level(vectors, transform(background.vectors), config)
    return Normalised(queries=replace(queries, vectors=vectors), bias=-level, transform=transform)


def _subtracted(
    queries: DescriptorSet, background: DescriptorSet, config: ScoreNormalisation
) -> Normalised:
    expanded = _expanded(background.vectors)

    def transform(vectors: Vectors) -> Vectors:
        _, rows = top_k(vectors, expanded, config.first_rank + config.neighbours)
        near = _by_rows(
            lambda part: expanded[rows[part, config.first_rank :]].mean(axis=1), vectors
        )
        return _unit(vectors - np.float32(config.factor) * near)

    return Normalised(
        queries=replace(queries, vectors=transform(np.asarray(queries.vectors))),
        bias=np.zeros(len(queries), np.float32),
        transform=transform,
    )


def _expanded(background: Vectors) -> Vectors:
    """Return each image averaged with its nearest ones, weighted by similarity^3."""
    n_neighbours, exponent = _EXPANSION
    similarity, rows = top_k(background, background, min(n_neighbours, len(background)))
    weights = np.maximum(similarity, 0.0) ** exponent
    return _unit(
        _by_rows(
            lambda part: np.einsum("ik,ikd->id", weights[part], background[rows[part]]), background
        )
    )


def _by_rows(mean_of: Callable[[slice], np.ndarray], like: Vectors) -> Vectors:
    """Return an array as ``like``, made some rows at a time: each has ten neighbours gathered."""
    made: Vectors = np.empty(like.shape, np.float32)
    for start in range(0, len(made), _ROWS):
        part = slice(start, start + _ROWS)
        made[part] = mean_of(part)
    return made


def _unit(vectors: np.ndarray) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit


def _require_fitting(
    queries: DescriptorSet, background: DescriptorSet, config: ScoreNormalisation
) -> None:
    needed = config.first_rank + config.neighbours
    if len(background) < needed:
        raise DataError(
            f"the background has {len(background)} images, but score normalisation needs {needed} "
            "neighbours; give more images or fewer --neighbours"
        )
    require_same_model(queries, background, called="the background")
