"""Measures of a ranking of pairs against the truth; pure functions that read no files.

Definitions are those of the Image Similarity Challenge 2021 (Douze et al.), whose published figures
they reproduce. N is the number of true pairs, those never found and those that repeat included;
among equal scores, wrong pairs count first.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vit4icd.errors import DataError
from vit4icd.types import Pairs, Truth

__all__ = [
    "Curve",
    "bootstrap_intervals",
    "micro_average_precision",
    "precision_recall_curve",
    "ranks_of_truth",
    "recall_at_precision",
    "recall_at_rank",
]

NOT_FOUND = 2**35
"""The rank of a true pair that is not among the predictions, as the original writes it."""


_MEASURES = ("average_precision", "recall_at_p90", "recall_at_rank_1", "recall_at_rank_10")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """Precision and recall after each pair of the ranking, best pair first."""

    precisions: Float64[np.ndarray, " pair"]
    recalls: Float64[np.ndarray, " pair"]
    scores: Float64[np.ndarray, " pair"]
    is_true: Bool[np.ndarray, " pair"]
    order: Int64[np.ndarray, " pair"]
    """Rows of the pairs in ranking order."""

    def __len__(self) -> int:
        return len(self.scores)


def precision_recall_curve(pairs: Pairs, truth: Truth) -> Curve:
    """Rank the pairs and return precision_k = TP_k / k and recall_k = TP_k / N.

    Raises:
        DataError: the truth is empty.
    """
    if not len(truth):
        raise DataError("the truth has no pair; nothing can be measured against it")
    true_pairs = set(zip(truth.queries, truth.references, strict=True))
    labels = np.fromiter(
        (pair in true_pairs for pair in zip(pairs.queries, pairs.references, strict=True)),
        np.bool_,
        len(pairs),
    )
    order = np.lexsort((labels, -pairs.scores))
    is_true = labels[order]
    n_found = np.cumsum(is_true)
    return Curve(
        precisions=n_found / np.arange(1, len(pairs) + 1),
        recalls=n_found / len(truth),
        scores=pairs.scores[order],
        is_true=is_true,
        order=order,
    )


def micro_average_precision(curve: Curve) -> float:
    """Return sum_k (recall_k - recall_(k-1)) precision_k over the one ranking of all pairs.

    Example:
        >>> import numpy as np
        >>> pairs = Pairs(queries=["a", "b"], references=["x", "y"], scores=np.array([0.9, 0.8]))
        >>> truth = Truth(queries=["b"], references=["y"])
        >>> micro_average_precision(precision_recall_curve(pairs, truth))
        0.5
    """
    steps = np.diff(curve.recalls, prepend=0.0)
    return float(np.sum(steps * curve.precisions))


def recall_at_precision(curve: Curve, precision: float = 0.9) -> tuple[float, float] | None:
    """Return the largest recall reached at this precision or better, and the score there.

    The score is that of the first pair that reaches it; None where the precision never is.
    """
    good = np.flatnonzero(curve.precisions >= precision)
    if not len(good):
        return None
    best = good[np.argmax(curve.recalls[good])]
    return float(curve.recalls[best]), float(curve.scores[best])


def ranks_of_truth(pairs: Pairs, truth: Truth) -> Int64[np.ndarray, " truth"]:
    """Return each true pair's rank among its query's pairs, from 0; ties count against it.

    Other true pairs of the query count like any pair; :data:`NOT_FOUND` where it was not predicted.
    """
    wanted = set(truth.queries)
    scores: dict[str, list[float]] = {}
    own: dict[tuple[str, str], float] = {}
    for query, reference, score in zip(
        pairs.queries, pairs.references, pairs.scores.tolist(), strict=True
    ):
        if query in wanted:
            scores.setdefault(query, []).append(score)
            own[query, reference] = score
    descending = {query: np.sort(np.array(values)) for query, values in scores.items()}
    ranks = [
        NOT_FOUND
        if (score := own.get((query, reference))) is None
        else int(len(descending[query]) - np.searchsorted(descending[query], score)) - 1
        for query, reference in zip(truth.queries, truth.references, strict=True)
    ]
    return np.array(ranks, np.int64)


def recall_at_rank(ranks: Int64[np.ndarray, " truth"], k: int) -> float:
    """Return the share of true pairs among the first k of their query."""
    return float(np.mean(ranks < k))


def bootstrap_intervals(
    pairs: Pairs,
    truth: Truth,
    curve: Curve,
    ranks: Int64[np.ndarray, " truth"],
    *,
    bootstrap_rng: np.random.Generator,
    n_resamples: int = 200,
    share: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return intervals of micro average precision, recall at P90 and recall at ranks 1 and 10.

    Whole queries are drawn with replacement, those of the truth and those that only distract alike;
    each pair of a query drawn w times counts w times. Between equal scores wrong pairs still count
    first. Cost: one pass over the ranking per resample.
    """
    names = dict.fromkeys((*truth.queries, *pairs.queries))
    number = {query: row for row, query in enumerate(names)}
    of_pair = np.fromiter((number[query] for query in pairs.queries), np.int64, len(pairs))
    of_pair = of_pair[curve.order]
    of_truth = np.fromiter((number[query] for query in truth.queries), np.int64, len(truth))
    true_at = np.flatnonzero(curve.is_true)
    values = []
    for _ in range(n_resamples):
        drawn = bootstrap_rng.integers(0, len(number), len(number))
        weights = np.bincount(drawn, minlength=len(number)).astype(np.float64)
        values.append(_weighted(weights[of_pair], weights[of_truth], true_at, ranks))
    low, high = np.percentile(np.array(values), [50 * (1 - share), 50 * (1 + share)], axis=0)
    return {
        measure: (float(low[column]), float(high[column]))
        for column, measure in enumerate(_MEASURES)
    }


def _weighted(
    pair_weights: Float64[np.ndarray, " pair"],
    truth_weights: Float64[np.ndarray, " truth"],
    true_at: Int64[np.ndarray, " found"],
    ranks: Int64[np.ndarray, " truth"],
) -> tuple[float, float, float, float]:
    """Return the measures of a resample; only the places of true pairs need to be looked at."""
    n_true = max(float(truth_weights.sum()), 1e-12)
    steps = pair_weights[true_at]
    n_found, n_seen = np.cumsum(steps), np.cumsum(pair_weights)[true_at]
    precisions = n_found / np.maximum(n_seen, 1e-12)
    reached = n_found[(precisions >= 0.9) & (n_seen > 0)].max(initial=0.0)
    return (
        float(np.sum(steps * precisions) / n_true),
        float(reached / n_true),
        float(np.sum(truth_weights * (ranks < 1)) / n_true),
        float(np.sum(truth_weights * (ranks < 10)) / n_true),
    )
