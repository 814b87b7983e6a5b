"""Exact search against the obvious way of doing it."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit4icd import search
from vit4icd.errors import ConfigError, DataError, MismatchError
from vit4icd.search import best_pairs, self_pairs, top_k
from vit4icd.types import DescriptorSet, Pairs


def _set(prefix: str, vectors: np.ndarray, fingerprint: str | None = None) -> DescriptorSet:
    return DescriptorSet(
        ids=[f"{prefix}{row}" for row in range(len(vectors))],
        vectors=vectors.astype(np.float32),
        fingerprint=fingerprint,
    )


def _unit(rng: np.random.Generator, n_rows: int, dim: int = 8) -> np.ndarray:
    vectors = rng.standard_normal((n_rows, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_leaves_the_number_of_threads_as_it_was() -> None:
    vectors, before = _set("a", np.eye(4)), faiss.omp_get_max_threads()
    best_pairs(vectors, vectors, n_threads=before + 1)
    self_pairs(vectors, threshold=0.5, n_threads=before + 1)
    assert faiss.omp_get_max_threads() == before


def _obvious(
    queries: np.ndarray, references: np.ndarray, bias: np.ndarray, *, k: int, each: bool
) -> list[tuple[int, int]]:
    """Score every pair in double precision, sort by score, query, reference, and cut."""
    scores = queries.astype(np.float64) @ references.astype(np.float64).T + bias[:, None]
    query, reference = np.indices(scores.shape).reshape(2, -1)
    order = np.lexsort((reference, query, -np.round(scores.ravel(), 12)))
    pairs = [(int(query[row]), int(reference[row])) for row in order]
    if not each:
        return sorted(pairs[:k])
    kept = [[pair for pair in pairs if pair[0] == row][:k] for row in range(len(queries))]
    return sorted(pair for row in kept for pair in row)


def _rows(pairs: Pairs) -> list[tuple[int, int]]:
    return [
        (int(query[1:]), int(reference[1:]))
        for query, reference in zip(pairs.queries, pairs.references, strict=True)
    ]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    n_queries=st.integers(0, 9),
    n_references=st.integers(1, 60),
    k=st.integers(1, 80),
    each=st.booleans(),
    with_bias=st.booleans(),
    levels=st.sampled_from([2, 4, 1000]),
)
def test_equals_scoring_every_pair(
    seed: int, n_queries: int, n_references: int, k: int, each: bool, with_bias: bool, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    queries = np.round(_unit(rng, n_queries, 4) * levels) / levels  # few levels: many ties
    references = np.round(_unit(rng, n_references, 4) * levels) / levels
    bias = np.round(rng.standard_normal(n_queries), 1).astype(np.float32) * with_bias
    before = search._REFERENCE_ROWS, search._QUERY_ROWS, search._CUT_AT
    search._REFERENCE_ROWS, search._QUERY_ROWS, search._CUT_AT = 16, 4, 1
    try:
        found = best_pairs(
            _set("q", queries),
            [_set("a", references[:7]), _set("b", references[7:])],
            max_pairs=k,
            per_query=k if each else None,
            bias=bias,
        )
    finally:
        search._REFERENCE_ROWS, search._QUERY_ROWS, search._CUT_AT = before
    rows = [
        (int(query[1:]), int(reference[1:]) + (7 if reference[0] == "b" else 0))
        for query, reference in zip(found.queries, found.references, strict=True)
    ]
    expected = _obvious(queries, references, bias.astype(np.float64), k=k, each=each)
    assert rows == expected


def test_gives_all_pairs_when_more_are_asked_for(rng: np.random.Generator) -> None:
    queries, references = _unit(rng, 3), _unit(rng, 5)
    found = best_pairs(_set("q", queries), _set("r", references), max_pairs=1000)
    assert _rows(found) == [(query, reference) for query in range(3) for reference in range(5)]
    expected = (queries.astype(np.float64) @ references.T.astype(np.float64)).ravel()
    np.testing.assert_allclose(found.scores, expected, atol=1e-12)


@pytest.mark.parametrize("threshold", [-np.inf, -2.0, 0.0, 0.3, np.inf])
@pytest.mark.parametrize("per_query", [None, 3])
def test_gives_only_what_reaches_a_threshold(
    rng: np.random.Generator, threshold: float, per_query: int | None
) -> None:
    queries, references = _set("q", _unit(rng, 9)), _set("r", _unit(rng, 30))
    every = best_pairs(queries, references, max_pairs=40, per_query=per_query)
    expected = [row for row in range(len(every)) if every.scores[row] >= threshold]
    found = best_pairs(queries, references, max_pairs=40, per_query=per_query, threshold=threshold)
    assert _rows(found) == [_rows(every)[row] for row in expected]
    np.testing.assert_array_equal(found.scores, every.scores[expected])


@pytest.mark.parametrize("per_query", [None, 3])
def test_refuses_a_threshold_that_is_no_number(per_query: int | None) -> None:
    vectors = _set("a", np.eye(4))
    with pytest.raises(ConfigError, match="not nan"):
        best_pairs(vectors, vectors, per_query=per_query, threshold=float("nan"))


def test_breaks_ties_by_query_then_reference() -> None:
    same = np.ones((6, 2), np.float32) / np.sqrt(2).astype(np.float32)
    found = best_pairs(_set("q", same[:2]), _set("r", same), max_pairs=8)
    assert _rows(found) == [(0, column) for column in range(6)] + [(1, 0), (1, 1)]


def test_finds_the_same_pairs_in_other_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, references = _set("q", _unit(rng, 50)), _set("r", _unit(rng, 700))
    whole = best_pairs(queries, references, max_pairs=100)
    monkeypatch.setattr(search, "_REFERENCE_ROWS", 64)
    monkeypatch.setattr(search, "_QUERY_ROWS", 7)
    blocks = best_pairs(queries, references, max_pairs=100)
    assert _rows(whole) == _rows(blocks)
    np.testing.assert_array_equal(whole.scores, blocks.scores)


def test_tells_progress_up_to_the_last_row(rng: np.random.Generator) -> None:
    told: list[tuple[int, int]] = []
    best_pairs(
        _set("q", _unit(rng, 2)),
        _set("r", _unit(rng, 9)),
        per_query=1,
        progress=lambda done, rows: told.append((done, rows)),
    )
    assert told[-1] == (9, 9)


def test_refuses_what_does_not_belong_together(rng: np.random.Generator) -> None:
    queries = _set("q", _unit(rng, 2), "model-a")
    with pytest.raises(MismatchError, match="8 dimensions, references 4"):
        best_pairs(queries, _set("r", _unit(rng, 2, 4)))
    with pytest.raises(MismatchError, match="model-a"):
        best_pairs(queries, _set("r", _unit(rng, 2), "model-b"))
    with pytest.raises(MismatchError, match="collide"):
        best_pairs(queries, [_set("r", _unit(rng, 2)), _set("r", _unit(rng, 2))])
    with pytest.raises(ConfigError, match="at least 1"):
        best_pairs(queries, _set("r", _unit(rng, 2)), per_query=0)


def test_accepts_files_that_do_not_name_their_model(rng: np.random.Generator) -> None:
    found = best_pairs(_set("q", _unit(rng, 2), "model-a"), _set("r", _unit(rng, 2)), per_query=1)
    assert len(found) == 2


def test_refuses_more_neighbours_than_rows(rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="3 neighbours"):
        top_k(_unit(rng, 2), _unit(rng, 2), 3)


def test_gives_exactly_as_many_as_asked_when_single_precision_is_higher() -> None:
    """The sampled threshold is rounded; a pair that double precision puts below it still counts."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        queries, references = _set("q", _unit(rng, 2, 4)), _set("r", _unit(rng, 4, 4))
        assert len(best_pairs(queries, references, max_pairs=2)) == 2


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    n_images=st.integers(0, 60),
    max_pairs=st.sampled_from([1, 7, 10_000]),
    threshold=st.sampled_from([-2.0, 0.0, 0.25, 0.5]),
    with_bias=st.booleans(),
)
def test_equals_scoring_every_pair_of_one_set(
    seed: int, n_images: int, max_pairs: int, threshold: float, with_bias: bool
) -> None:
    rng = np.random.default_rng(seed)
    vectors = np.round(_unit(rng, n_images, 4) * 4) / 4  # few levels: many ties
    bias = (np.round(rng.standard_normal(n_images) * 4) / 4 * with_bias).astype(np.float32)
    before = search._REFERENCE_ROWS, search._QUERY_ROWS, search._CUT_AT
    search._REFERENCE_ROWS, search._QUERY_ROWS, search._CUT_AT = 16, 4, 1
    try:
        found = self_pairs(_set("i", vectors), threshold=threshold, bias=bias, max_pairs=max_pairs)
    finally:
        search._REFERENCE_ROWS, search._QUERY_ROWS, search._CUT_AT = before
    scores = vectors.astype(np.float64) @ vectors.T + np.minimum(bias[:, None], bias[None, :])
    pairs = [
        (left, right)
        for left in range(n_images)
        for right in range(left + 1, n_images)
        if scores[left, right] >= threshold
    ]
    best = sorted(pairs, key=lambda pair: (-scores[pair], pair))[:max_pairs]
    assert _rows(found) == sorted(best)
    np.testing.assert_allclose(found.scores, [scores[pair] for pair in sorted(best)], atol=1e-12)


def test_refuses_to_pair_a_set_without_an_end(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="finite"):
        self_pairs(_set("i", _unit(rng, 2)), threshold=float("-inf"))
    with pytest.raises(MismatchError, match="3 biases for 2 images"):
        self_pairs(_set("i", _unit(rng, 2)), threshold=0.5, bias=np.zeros(3, np.float32))
