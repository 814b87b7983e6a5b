"""Measures worked by hand, against the obvious way, and by their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit4icd.errors import DataError
from vit4icd.metrics import (
    bootstrap_intervals,
    micro_average_precision,
    precision_recall_curve,
    ranks_of_truth,
    recall_at_precision,
    recall_at_rank,
)
from vit4icd.types import Pairs, Truth

GOLDEN_TRUTH = Truth(queries=[f"Q{i}" for i in range(5)], references=[f"R{i}" for i in range(5)])
GOLDEN_PAIRS = Pairs(
    queries=["Q0", "Q7", "Q1", "Q2", "Q2", "Q3", "Q8"],
    references=["R0", "R5", "R1", "R9", "R2", "R3", "R5"],
    scores=np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.5]),
)


def test_gives_the_golden_figures_worked_by_hand() -> None:
    curve = precision_recall_curve(GOLDEN_PAIRS, GOLDEN_TRUTH)
    by_hand = [1, 1 / 2, 2 / 3, 2 / 4, 3 / 5, 3 / 6, 4 / 7]
    np.testing.assert_allclose(curve.precisions, by_hand)
    assert micro_average_precision(curve) == pytest.approx(
        (1 + 2 / 3 + 3 / 5 + 4 / 7) / 5, abs=1e-12
    )
    assert micro_average_precision(curve) == pytest.approx(0.56762, abs=5e-6)
    assert recall_at_precision(curve) == (0.2, 0.9)
    ranks = ranks_of_truth(GOLDEN_PAIRS, GOLDEN_TRUTH)
    assert recall_at_rank(ranks, 1) == 0.6
    assert recall_at_rank(ranks, 10) == 0.8


def test_counts_wrong_pairs_first_among_equal_scores() -> None:
    pairs = Pairs(queries=["Q0", "Q0"], references=["R0", "R1"], scores=np.array([0.9, 0.9]))
    truth = Truth(queries=["Q0"], references=["R0"])
    assert micro_average_precision(precision_recall_curve(pairs, truth)) == 0.5
    assert recall_at_rank(ranks_of_truth(pairs, truth), 1) == 0.0


def test_has_no_recall_at_a_precision_that_is_never_reached() -> None:
    pairs = Pairs(queries=["a"], references=["x"], scores=np.array([1.0]))
    truth = Truth(queries=["a"], references=["y"])
    assert recall_at_precision(precision_recall_curve(pairs, truth)) is None


def test_refuses_an_empty_truth() -> None:
    with pytest.raises(DataError, match="no pair"):
        precision_recall_curve(GOLDEN_PAIRS, Truth(queries=[], references=[]))


Raw = tuple[list[tuple[str, str]], list[float], list[tuple[str, str]]]


@st.composite
def rankings(draw: st.DrawFn) -> Raw:
    universe = [(f"q{q}", f"r{r}") for q in range(5) for r in range(5)]
    predicted = draw(st.lists(st.sampled_from(universe), unique=True, max_size=20))
    true = draw(st.lists(st.sampled_from(universe), unique=True, min_size=1, max_size=8))
    n = len(predicted)
    scores = draw(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=n, max_size=n))
    return predicted, scores, true


def _sets(ranking: Raw) -> tuple[Pairs, Truth]:
    predicted, scores, true = ranking
    pairs = Pairs(
        queries=[query for query, _ in predicted],
        references=[reference for _, reference in predicted],
        scores=np.array(scores, np.float64),
    )
    return pairs, Truth(queries=[q for q, _ in true], references=[r for _, r in true])


def _obvious_average_precision(pairs: Pairs, truth: Truth) -> float:
    wanted = set(zip(truth.queries, truth.references, strict=True))
    rows = [
        (-score, (query, reference) in wanted)
        for query, reference, score in zip(
            pairs.queries, pairs.references, pairs.scores, strict=True
        )
    ]
    total, found = 0.0, 0
    for rank, (_, is_true) in enumerate(sorted(rows), start=1):
        found += is_true
        total += is_true * found / rank
    return total / len(truth)


@given(rankings())
def test_equals_the_obvious_average_precision(ranking: Raw) -> None:
    sets = _sets(ranking)
    value = micro_average_precision(precision_recall_curve(*sets))
    assert value == pytest.approx(_obvious_average_precision(*sets), abs=1e-12)
    assert 0.0 <= value <= 1.0


@given(rankings(), st.integers(0, 1000))
def test_does_not_depend_on_the_order_of_rows(ranking: Raw, seed: int) -> None:
    pairs, truth = _sets(ranking)
    order = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    shuffled = Pairs(
        queries=[pairs.queries[row] for row in order],
        references=[pairs.references[row] for row in order],
        scores=pairs.scores[order],
    )
    one = micro_average_precision(precision_recall_curve(pairs, truth))
    other = micro_average_precision(precision_recall_curve(shuffled, truth))
    assert one == pytest.approx(other, abs=1e-12)


def test_is_one_for_a_perfect_ranking() -> None:
    pairs = Pairs(
        queries=["a", "b", "c"], references=["x", "y", "z"], scores=np.array([3.0, 2.0, 1.0])
    )
    truth = Truth(queries=["a", "b"], references=["x", "y"])
    assert micro_average_precision(precision_recall_curve(pairs, truth)) == 1.0


@settings(max_examples=20)
@given(rankings())
def test_gives_intervals_between_zero_and_one(ranking: Raw) -> None:
    pairs, truth = _sets(ranking)
    curve, ranks = precision_recall_curve(pairs, truth), ranks_of_truth(pairs, truth)
    intervals = bootstrap_intervals(
        pairs, truth, curve, ranks, bootstrap_rng=np.random.default_rng(0), n_resamples=50
    )
    for low, high in intervals.values():
        assert 0.0 <= low <= high <= 1.0


def test_narrows_to_the_figure_when_all_queries_are_alike() -> None:
    names = [f"q{row}" for row in range(40)]
    pairs = Pairs(queries=names, references=names, scores=np.linspace(1, 2, 40))
    truth = Truth(queries=names, references=names)
    curve, ranks = precision_recall_curve(pairs, truth), ranks_of_truth(pairs, truth)
    intervals = bootstrap_intervals(
        pairs, truth, curve, ranks, bootstrap_rng=np.random.default_rng(0), n_resamples=20
    )
    assert intervals["average_precision"] == pytest.approx((1.0, 1.0))


def test_resamples_the_weighted_ranking_as_if_queries_were_repeated() -> None:
    from vit4icd.metrics import _weighted

    curve = precision_recall_curve(GOLDEN_PAIRS, GOLDEN_TRUTH)
    ranks = ranks_of_truth(GOLDEN_PAIRS, GOLDEN_TRUTH)
    values = _weighted(np.ones(7), np.ones(5), np.flatnonzero(curve.is_true), ranks)
    assert values[0] == pytest.approx(micro_average_precision(curve))
    assert values[2] == pytest.approx(0.6)
