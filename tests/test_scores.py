"""Score normalisation against its formulas, written out pair by pair."""

import tracemalloc
from typing import get_args

import numpy as np
import pytest

from vit4icd.errors import ConfigError, DataError, MismatchError
from vit4icd.scores import Normalised, Reduction, ScoreNormalisation, normalise
from vit4icd.search import best_pairs
from vit4icd.types import DescriptorSet


def _unit_set(
    prefix: str, rng: np.random.Generator, n_rows: int, fingerprint: str | None = None
) -> DescriptorSet:
    vectors = rng.standard_normal((n_rows, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"{prefix}{row}" for row in range(n_rows)]
    return DescriptorSet(ids=ids, vectors=vectors, fingerprint=fingerprint)


@pytest.fixture
def sets(rng: np.random.Generator) -> tuple[DescriptorSet, DescriptorSet, DescriptorSet]:
    return _unit_set("q", rng, 5), _unit_set("r", rng, 7), _unit_set("t", rng, 30)


def _scores(prepared: Normalised, references: DescriptorSet) -> np.ndarray:
    pairs = best_pairs(
        prepared.queries, references, bias=prepared.bias, transform=prepared.transform
    )
    return pairs.scores.reshape(len(prepared.queries), len(references))


def _expected(
    reduction: Reduction, queries: np.ndarray, references: np.ndarray, background: np.ndarray
) -> np.ndarray:
    config = ScoreNormalisation.published(reduction)
    nearest = -np.sort(-(queries @ background.T), axis=1)
    ranks = nearest[:, config.first_rank : config.first_rank + config.neighbours]
    mean, last = ranks.mean(axis=1), ranks[:, -1]
    plain = queries @ references.T
    if reduction == "min":
        return np.asarray(plain - config.factor * last[:, None])
    if reduction == "stretch":
        longer = queries * (config.factor * mean)[:, None]
        return np.asarray(-np.square(longer[:, None] - references[None]).sum(axis=2))
    return np.asarray(plain - config.factor * mean[:, None])


@pytest.mark.parametrize("reduction", ["avg", "min", "sscd", "copynce", "stretch"])
def test_scores_pairs_by_the_published_formula(
    reduction: Reduction, sets: tuple[DescriptorSet, DescriptorSet, DescriptorSet]
) -> None:
    queries, references, background = sets
    prepared = normalise(queries, background, config=ScoreNormalisation.published(reduction))
    expected = _expected(reduction, queries.vectors, references.vectors, background.vectors)
    np.testing.assert_allclose(_scores(prepared, references), expected, atol=2e-5)


def test_drops_the_dimension_that_varies_least_over_the_background(
    sets: tuple[DescriptorSet, DescriptorSet, DescriptorSet],
) -> None:
    queries, references, background = sets
    dropped = int(np.argmin(background.vectors.var(axis=0)))

    def rest(images: DescriptorSet) -> np.ndarray:
        kept = np.delete(images.vectors, dropped, axis=1)
        return np.asarray(kept / np.linalg.norm(kept, axis=1, keepdims=True))

    nearest = (rest(queries) @ rest(background).T).max(axis=1)
    expected = rest(queries) @ rest(references).T - nearest[:, None]
    config = ScoreNormalisation.published("vsc")
    prepared = normalise(queries, background, config=config)
    np.testing.assert_allclose(_scores(prepared, references), expected, atol=2e-5)


@pytest.mark.parametrize("reduction", get_args(Reduction))
def test_scores_a_query_alike_in_any_company(
    reduction: Reduction, sets: tuple[DescriptorSet, DescriptorSet, DescriptorSet]
) -> None:
    queries, references, background = sets
    config = ScoreNormalisation.published(reduction)
    together = _scores(normalise(queries, background, config=config), references)
    for row in range(len(queries)):
        alone = normalise(queries.only([row]), background, config=config)
        np.testing.assert_allclose(_scores(alone, references)[0], together[row], atol=1e-6)


def test_subtracts_some_rows_at_a_time(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((10_000, 64)).astype(np.float32)
    background = DescriptorSet(ids=[str(row) for row in range(20)], vectors=vectors[:20])
    config = ScoreNormalisation.published("subtract")
    transform = normalise(background, background, config=config).transform
    assert transform is not None
    some = [0, 1_023, 1_024, 9_999]
    one_by_one = np.vstack([transform(vectors[row : row + 1]) for row in some])
    tracemalloc.start()
    moved = transform(vectors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(moved[some], one_by_one, atol=1e-6)
    assert peak < 10 * vectors.nbytes  # what ten neighbours of every row would take


def test_subtracts_the_nearest_background_from_both_sides(
    sets: tuple[DescriptorSet, DescriptorSet, DescriptorSet],
) -> None:
    queries, references, background = sets
    config = ScoreNormalisation.published("subtract")
    similarity = background.vectors @ background.vectors.T
    rows = np.argsort(-similarity, axis=1)[:, :10]
    weights = np.maximum(np.take_along_axis(similarity, rows, 1), 0) ** 3
    expanded = np.einsum("ik,ikd->id", weights, background.vectors[rows])
    expanded /= np.linalg.norm(expanded, axis=1, keepdims=True)

    def moved(vectors: np.ndarray) -> np.ndarray:
        near = np.argsort(-(vectors @ expanded.T), axis=1)[:, : config.neighbours]
        out = vectors - config.factor * expanded[near].mean(axis=1)
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))

    prepared = normalise(queries, background, config=config)
    expected = moved(queries.vectors) @ moved(references.vectors).T
    np.testing.assert_allclose(_scores(prepared, references), expected, atol=2e-5)


def test_keeps_each_querys_own_ranking(
    sets: tuple[DescriptorSet, DescriptorSet, DescriptorSet],
) -> None:
    queries, references, background = sets
    plain = _scores(Normalised.unchanged(queries), references)
    normalised = _scores(normalise(queries, background, config=ScoreNormalisation()), references)
    np.testing.assert_array_equal(np.argsort(-plain, axis=1), np.argsort(-normalised, axis=1))


def test_has_the_numbers_of_the_paper_by_default() -> None:
    assert ScoreNormalisation() == ScoreNormalisation.published("avg")
    assert ScoreNormalisation() == ScoreNormalisation(reduction="avg", factor=2.0, neighbours=10)


def test_refuses_a_small_or_foreign_background(rng: np.random.Generator) -> None:
    queries = _unit_set("q", rng, 2, "model-a")
    with pytest.raises(DataError, match="needs 10"):
        normalise(queries, _unit_set("t", rng, 9), config=ScoreNormalisation())
    with pytest.raises(MismatchError, match="model-b"):
        normalise(queries, _unit_set("t", rng, 20, "model-b"), config=ScoreNormalisation())
    with pytest.raises(ConfigError, match="at least 1"):
        ScoreNormalisation(neighbours=0)
    with pytest.raises(ConfigError, match="finite number, not nan"):
        ScoreNormalisation(factor=float("nan"))
