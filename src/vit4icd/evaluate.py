"""Pairs against the truth: the measures with their protocol, printed, as JSON and as a page."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

import vit4icd
from vit4icd import report
from vit4icd.errors import ConfigError, DataError, ImageError
from vit4icd.images import read_image
from vit4icd.metrics import (
    Curve,
    bootstrap_intervals,
    micro_average_precision,
    precision_recall_curve,
    ranks_of_truth,
    recall_at_precision,
    recall_at_rank,
)
from vit4icd.storage import official_id
from vit4icd.types import Pairs, Truth

__all__ = [
    "Report",
    "Worst",
    "evaluate",
    "evaluation_page",
    "format_official",
    "only_after",
    "pictures_in",
]

OFFICIAL_MAX_PAIRS = 500_000
"""More predictions than this are refused, as the original refuses them."""

_CURVE_POINTS = 400
_KNOWN_TRUTHS = {
    5_008: "5,008 true pairs: DISC21 dev, second half, as ViT4ICD published it",
    5_009: "5,009 true pairs: DISC21 dev, second half, complete",
    10_000: "10,000 true pairs: DISC21 dev, both halves",
}

Picture = UInt8[np.ndarray, "_ _ 3"]
FindPicture = Callable[[str], Picture]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """A pair that went wrong: its score, and its rank among its query's pairs from 1, if it has."""

    query: str
    reference: str
    score: float | None
    rank: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The measures of one evaluation, and what they were measured on."""

    average_precision: float
    recall_at_p90: float | None
    threshold_at_p90: float | None
    recall_at_rank_1: float
    recall_at_rank_10: float
    intervals: Mapping[str, Interval]
    """95 % bootstrap intervals by query, by the names of the measures."""
    n_pairs: int
    n_true_pairs: int
    n_queries: int
    protocol: str
    """Which pairs were kept and which queries count; figures of other protocols do not compare."""
    false_positives: tuple[Worst, ...] = ()
    misses: tuple[Worst, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    """Points (recall, precision) of the ranking, thinned."""
    true_scores: tuple[int, ...] = ()
    false_scores: tuple[int, ...] = ()
    """Histograms of scores over ``score_edges``."""
    score_edges: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values, with the version that made them."""
        return {"format_version": 1, "package_version": vit4icd.__version__, **asdict(self)}


def evaluate(
    pairs: Pairs,
    truth: Truth,
    *,
    queries_after: str | None = None,
    max_pairs: int = OFFICIAL_MAX_PAIRS,
    n_resamples: int = 200,
    n_worst: int = 12,
    bootstrap_rng: np.random.Generator,
) -> Report:
    """Measure a ranking of pairs.

    ``queries_after`` keeps the pairs and true pairs whose query id comes after it in string order,
    as the original's notebook does with "Q25000".

    Raises:
        DataError: the truth is empty, or there are more than ``max_pairs`` pairs.
        ConfigError: fewer than 0 resamples.
    """
    if n_resamples < 0:
        raise ConfigError(f"n_resamples must be at least 0, not {n_resamples}")
    if queries_after is not None:
        pairs, truth = only_after(pairs, truth, queries_after)
    if len(pairs) > max_pairs:
        raise DataError(
            f"too many predictions ({len(pairs)} > {max_pairs}); keep fewer pairs, or raise "
            "--max-pairs and compare with nothing published"
        )
    curve, ranks = precision_recall_curve(pairs, truth), ranks_of_truth(pairs, truth)
    recall, threshold = recall_at_precision(curve) or (None, None)
    edges, true_scores, false_scores = _histograms(curve)
    return Report(
        average_precision=micro_average_precision(curve),
        recall_at_p90=recall,
        threshold_at_p90=threshold,
        recall_at_rank_1=recall_at_rank(ranks, 1),
        recall_at_rank_10=recall_at_rank(ranks, 10),
        intervals={}
        if not n_resamples
        else bootstrap_intervals(
            pairs, truth, curve, ranks, bootstrap_rng=bootstrap_rng, n_resamples=n_resamples
        ),
        n_pairs=len(pairs),
        n_true_pairs=len(truth),
        n_queries=len(set(pairs.queries)),
        protocol=_protocol(pairs, truth, queries_after),
        false_positives=_worst_false_positives(pairs, curve, n_worst),
        misses=_worst_misses(pairs, truth, ranks, n_worst),
        curve=_thinned(curve),
        true_scores=true_scores,
        false_scores=false_scores,
        score_edges=edges,
    )


def only_after(pairs: Pairs, truth: Truth, query: str) -> tuple[Pairs, Truth]:
    """Keep what belongs to queries whose id comes after ``query`` in string order."""
    rows = [row for row, name in enumerate(pairs.queries) if name > query]
    known = [row for row, name in enumerate(truth.queries) if name > query]
    return pairs.only(rows), truth.only(known)


def format_official(result: Report) -> str:
    """Return the lines that the original's compute_metrics prints, to the letter."""
    lines = [
        f"Track 1 results of {result.n_pairs} predictions ({result.n_true_pairs} GT matches)",
        f"Average Precision: {result.average_precision:.5f}",
    ]
    if result.recall_at_p90 is None or result.threshold_at_p90 is None:
        lines.append("Does not reach P90")
    else:
        lines.append(f"Recall at P90    : {result.recall_at_p90:.5f}")
        lines.append(f"Threshold at P90 : {result.threshold_at_p90:g}")
    lines.append(f"Recall at rank 1:  {result.recall_at_rank_1:.5f}")
    lines.append(f"Recall at rank 10: {result.recall_at_rank_10:.5f}")
    return "\n".join(lines) + "\n"


def evaluation_page(
    result: Report,
    *,
    title: str = "Evaluation",
    query_picture: FindPicture | None = None,
    reference_picture: FindPicture | None = None,
) -> str:
    """Return the report as one HTML page; with the two finders, worst pairs show their pictures."""
    sections = [
        report.figures(_headline(result)),
        report.paragraph(result.protocol),
        report.line_chart(
            "Precision and recall",
            {"precision": list(result.curve)},
            x_label="recall",
            y_label="precision",
        ),
        report.histogram(
            "Scores of true and of wrong pairs",
            {"true pairs": result.true_scores, "wrong pairs": result.false_scores},
            edges=result.score_edges,
            x_label="score",
        ),
    ]
    for heading, worst in (
        ("Wrong pairs with the highest scores", result.false_positives),
        ("True pairs with the lowest scores, or not found", result.misses),
    ):
        cards = [_card(pair, query_picture, reference_picture) for pair in worst]
        sections.append(report.section(heading, report.grid(cards) if cards else "None."))
    return report.page(title, sections)


def pictures_in(folder: Path | None) -> FindPicture | None:
    """Return what finds the picture of an id below a folder; None for no folder.

    Raises:
        DataError: when a picture is asked for that the folder does not have.
    """
    if folder is None:
        return None
    paths = {official_id(path.name): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def find(name: str) -> Picture:
        path = paths.get(name) or paths.get(official_id(name))
        if path is None:
            raise DataError(f"{folder} has no picture of {name!r}")
        return read_image(path)

    return find


def _headline(result: Report) -> list[tuple[str, str, str]]:
    rows = [
        ("Micro average precision", "average_precision", result.average_precision),
        ("Recall at P90", "recall_at_p90", result.recall_at_p90),
        ("Recall at rank 1", "recall_at_rank_1", result.recall_at_rank_1),
        ("Recall at rank 10", "recall_at_rank_10", result.recall_at_rank_10),
    ]
    return [(label, _figure(value), _interval(result, name)) for label, name, value in rows]


def _figure(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.5f}"


def _interval(result: Report, name: str) -> str:
    if name not in result.intervals:
        return ""
    low, high = result.intervals[name]
    return f"{low:.3f} to {high:.3f} (95 %)"


def _card(
    pair: Worst, query_picture: FindPicture | None, reference_picture: FindPicture | None
) -> str:
    facts = [
        ("query", pair.query),
        ("reference", pair.reference),
        ("score", "not predicted" if pair.score is None else f"{pair.score:.4f}"),
        ("rank", "none" if pair.rank is None else str(pair.rank)),
    ]
    query, reference = _found(query_picture, pair.query), _found(reference_picture, pair.reference)
    return report.pair_card(query, reference, facts)


def _found(find: FindPicture | None, name: str) -> Picture | None:
    if find is None:
        return None
    try:
        return find(name)
    except (ImageError, DataError):
        return None


def _protocol(pairs: Pairs, truth: Truth, queries_after: str | None) -> str:
    most = max(Counter(pairs.queries).values(), default=0)
    kept = f"{len(pairs):,} pairs, at most {most} of one query"
    which = "all queries" if queries_after is None else f"queries after {queries_after}"
    known = (_KNOWN_TRUTHS if _is_disc(truth) else {}).get(len(truth), f"{len(truth):,} true pairs")
    return f"{kept}; {which}; {known}; ties count against the system"


def _is_disc(truth: Truth) -> bool:
    """Return whether all ids are such as DISC21 gives: Q00003, R326040."""
    return all(re.fullmatch(r"Q\d{5}", name) for name in truth.queries) and all(
        re.fullmatch(r"R\d{6}", name) for name in truth.references
    )


def _worst_false_positives(pairs: Pairs, curve: Curve, n_worst: int) -> tuple[Worst, ...]:
    rows = curve.order[np.flatnonzero(~curve.is_true)[:n_worst]].tolist()
    return tuple(
        Worst(
            query=pairs.queries[row],
            reference=pairs.references[row],
            score=float(pairs.scores[row]),
            rank=None,
        )
        for row in rows
    )


def _worst_misses(pairs: Pairs, truth: Truth, ranks: np.ndarray, n_worst: int) -> tuple[Worst, ...]:
    wanted = set(zip(truth.queries, truth.references, strict=True))
    predicted = zip(pairs.queries, pairs.references, pairs.scores.tolist(), strict=True)
    scores = {(query, ref): score for query, ref, score in predicted if (query, ref) in wanted}
    rows = list(zip(truth.queries, truth.references, ranks.tolist(), strict=True))
    rows.sort(key=lambda row: scores.get(row[:2], -np.inf))
    return tuple(
        Worst(
            query=query,
            reference=reference,
            score=scores.get((query, reference)),
            rank=rank + 1 if (query, reference) in scores else None,
        )
        for query, reference, rank in rows[:n_worst]
    )


def _thinned(curve: Curve) -> tuple[tuple[float, float], ...]:
    """Return the curve at true pairs, where recall moves, thinned to a drawable number."""
    at = np.flatnonzero(curve.is_true)
    if len(at) > _CURVE_POINTS:
        at = at[np.linspace(0, len(at) - 1, _CURVE_POINTS).round().astype(np.int64)]
    points = zip(curve.recalls[at].tolist(), curve.precisions[at].tolist(), strict=True)
    return tuple(points)


def _histograms(
    curve: Curve, n_bins: int = 40
) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """Return bin edges, and how many true and wrong pairs score inside each bin."""
    if not len(curve):
        return (), (), ()
    edges = np.linspace(curve.scores.min(), np.nextafter(curve.scores.max(), np.inf), n_bins + 1)
    true_scores = np.histogram(curve.scores[curve.is_true], edges)[0]
    false_scores = np.histogram(curve.scores[~curve.is_true], edges)[0]
    return tuple(edges.tolist()), tuple(true_scores.tolist()), tuple(false_scores.tolist())
