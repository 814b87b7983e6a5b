"""Scores to probability, expected false matches and thresholds; it describes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vit4icd.errors import ConfigError, DataError, FormatError
from vit4icd.storage import read_json, write_json

__all__ = [
    "COLLECTION_SIZES",
    "COPY_SHARE",
    "PRECISIONS",
    "Calibration",
    "fit_calibration",
    "read_calibration",
    "require_enough",
    "write_calibration",
]

COLLECTION_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
PRECISIONS = (0.9, 0.99, 0.999)
COPY_SHARE = 0.2
"""Share of queries taken to be copies of something held: that of DISC21."""

_FORMAT_VERSION = 1
_FILE = "calibration.json"
_MIN_POSITIVES, _MIN_NEGATIVES = 50, 10_000
_WIDTH = 0.03  # of the kernel that smooths the copies' scores
_STEP = 0.005  # of the differences along the tail of unrelated scores
_LEVELS_A_DECADE = 8
_BEYOND = 10  # negative pairs that the most extreme level must rest on
_KNOTS = 121

Scores = Float[np.ndarray, "*pair"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How normalised scores of copies and of unrelated pictures are spread, for one model.

    A query has one original at most; n references bring n chances of a false match. So with the
    likelihood ratio LR(s) = p(s | copy) / p(s | unrelated) and the share c of queries that are
    copies, a pair is one with probability c / n before its score is known, and its odds are
    LR(s) (c / n) / (1 - c / n) after.
    """

    fingerprint: str
    """The model whose scores these are."""
    factor: float
    neighbours: int
    """The score normalisation (variant avg) that scores went through."""
    false_levels: tuple[float, ...]
    """log10 of shares of unrelated pairs, descending ..."""
    false_scores: tuple[float, ...]
    """... that reach these scores, ascending."""
    copy_scores: tuple[float, ...]
    """The copies' scores at equally spaced quantiles, from 0 to 1."""
    knots: tuple[float, ...]
    log_ratios: tuple[float, ...]
    """Natural logarithm of LR at the knots; it never falls."""
    n_copies: int
    n_unrelated: int
    """Pairs it was fitted on."""
    source: str = ""
    """What it was fitted on."""

    def false_rate(self, score: Scores | float) -> Float[np.ndarray, "*pair"]:
        """Return the share of unrelated pairs that reach a score.

        Below the last of ``false_levels`` this is extrapolated: an exponential tail with the slope
        of the last decade seen.
        """
        scores, levels = np.array(self.false_scores), np.array(self.false_levels)
        last = levels <= levels[-1] + 1.0
        slope = np.polyfit(scores[last], levels[last], 1)[0] if last.sum() > 1 else -30.0
        score = np.asarray(score, np.float64)
        inside = np.interp(score, scores, levels, left=0.0)
        beyond = levels[-1] + min(slope, -1e-3) * (score - scores[-1])
        return np.asarray(np.power(10.0, np.where(score > scores[-1], beyond, inside)))

    def expected_false(self, score: Scores | float, n_references: int) -> np.ndarray:
        """Return how many unrelated references are expected to reach the score by chance."""
        return np.asarray(self.false_rate(score) * n_references)

    def recall(self, score: Scores | float) -> np.ndarray:
        """Return the share of copies that reach a score."""
        shares = np.linspace(1.0, 0.0, len(self.copy_scores))
        return np.asarray(np.interp(score, self.copy_scores, shares, left=1.0, right=0.0))

    def probability(
        self, score: Scores | float, *, n_references: int, copy_share: float = COPY_SHARE
    ) -> np.ndarray:
        """Return how likely a pair of this score, out of so many references, is a copy."""
        _require_setting(n_references, copy_share)
        prior = copy_share / n_references
        log_odds = np.interp(score, self.knots, self.log_ratios) + np.log(prior) - np.log1p(-prior)
        return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))

    def threshold(
        self, precision: float, *, n_references: int, copy_share: float = COPY_SHARE
    ) -> float:
        """Return the lowest score from which on that share of reported pairs are copies."""
        _require_setting(n_references, copy_share)
        if not 0 < precision < 1:
            raise ConfigError(f"a precision lies between 0 and 1, not {precision}")
        grid = np.linspace(min(self.false_scores), 2.0, 5_001)
        true = copy_share * np.maximum(self.recall(grid), 1.0 / self.n_copies)
        reached = true / (true + self.expected_false(grid, n_references)) >= precision
        return float(grid[int(np.argmax(reached))]) if reached.any() else float(grid[-1])

    def thresholds(self) -> list[dict[str, float]]:
        """Return threshold and recall for each stated precision and collection size."""
        rows = []
        for n_references in COLLECTION_SIZES:
            for precision in PRECISIONS:
                score = self.threshold(precision, n_references=n_references)
                row = {"n_references": n_references, "precision": precision}
                rows.append(row | {"score": score, "recall": float(self.recall(score))})
        return rows


def fit_calibration(
    copies: Float[np.ndarray, " copy"],
    unrelated: Float[np.ndarray, " pair"],
    *,
    fingerprint: str,
    factor: float,
    neighbours: int,
    source: str = "",
) -> Calibration:
    """Fit from scores of copies against their originals, and of unrelated pairs.

    Unrelated scores are kept as tail quantiles down to one pair in ``n / 10``, copies' as 201
    quantiles. The ratio is that of a Gaussian kernel density and of the tail's slope, made monotone
    by a running maximum. Several copies of one picture may be among the pairs: their scores against
    unrelated pictures have little in common (decision 14).

    Raises:
        DataError: too few scores to say anything.
    """
    require_enough(len(copies), len(unrelated))
    deepest = np.log10(len(unrelated) / _BEYOND)
    levels = -np.arange(1, int(deepest * _LEVELS_A_DECADE) + 1) / _LEVELS_A_DECADE
    false_scores = np.maximum.accumulate(np.quantile(unrelated, 1.0 - 10.0**levels))
    false_scores += np.arange(len(levels)) * 1e-9  # strictly ascending, whatever ties there are
    knots = np.linspace(false_scores[0], max(1.0, float(np.max(copies))), _KNOTS)
    draft = Calibration(
        fingerprint=fingerprint,
        factor=factor,
        neighbours=neighbours,
        false_levels=tuple(levels.tolist()),
        false_scores=tuple(false_scores.tolist()),
        copy_scores=tuple(np.quantile(copies, np.linspace(0, 1, 201)).tolist()),
        knots=tuple(knots.tolist()),
        log_ratios=(0.0,) * _KNOTS,
        n_copies=len(copies),
        n_unrelated=len(unrelated),
        source=source,
    )
    ratios = np.maximum.accumulate(
        np.log(_density(copies, knots)) - np.log(_tail_density(draft, knots))
    )
    return replace(draft, log_ratios=tuple(ratios.tolist()))


def require_enough(n_copies: int, n_unrelated: int) -> None:
    """Refuse too few scores to fit anything to.

    Raises:
        DataError: too few.
    """
    if n_copies < _MIN_POSITIVES or n_unrelated < _MIN_NEGATIVES:
        raise DataError(
            f"calibration needs at least {_MIN_POSITIVES} copies and {_MIN_NEGATIVES} unrelated "
            f"pairs, not {n_copies} and {n_unrelated}"
        )


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write ``folder/calibration.json``, with the thresholds that follow from it."""
    fields = asdict(calibration) | {"thresholds": calibration.thresholds()}
    write_json(folder / _FILE, {"format_version": _FORMAT_VERSION, **fields})


def read_calibration(folder: Path) -> Calibration | None:
    """Read a model folder's calibration; None where it has none.

    Raises:
        FormatError: it is malformed or of a newer version.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    fields = read_json(path)
    if not isinstance(fields, dict):
        raise FormatError(f"{path} is not a calibration: it is no JSON object")
    if not isinstance(version := fields.pop("format_version", None), int):
        raise FormatError(f"{path} does not say its format")
    if version > _FORMAT_VERSION:
        raise FormatError(
            f"{path} has format {version}; this version reads up to {_FORMAT_VERSION}"
        )
    fields.pop("thresholds", None)
    return _from_fields(fields, path)


def _from_fields(fields: Mapping[str, Any], path: Path) -> Calibration:
    for name in ("n_copies", "n_unrelated"):
        if not isinstance(n_pairs := fields.get(name), int) or n_pairs < 1:
            raise FormatError(f"{path} is not a calibration: its {name} is {n_pairs!r}")
    try:
        read: dict[str, Any] = {
            name: tuple(map(float, value)) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        calibration = Calibration(**read)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path} is not a calibration: {error}") from error
    for xs, ys in (
        (calibration.false_scores, calibration.false_levels),
        (calibration.knots, calibration.log_ratios),
    ):
        if len(xs) != len(ys) or len(xs) < 2 or not _ascends(xs):
            raise FormatError(f"{path} is not a calibration: its columns do not fit together")
    _require_sound(calibration, path)
    return calibration


def _require_sound(calibration: Calibration, path: Path) -> None:
    """Refuse what is no distribution: numbers that are none, or in no order."""
    quantiles = calibration.copy_scores
    columns = (quantiles, calibration.false_levels, calibration.knots, calibration.log_ratios)
    if not all(np.isfinite(column).all() for column in (*columns, calibration.false_scores)):
        raise FormatError(f"{path} is not a calibration: some of its numbers are not finite")
    if not quantiles or (np.diff(quantiles) < 0).any():
        raise FormatError(f"{path} is not a calibration: its copy_scores do not ascend")


def _ascends(values: Sequence[float]) -> bool:
    return bool((np.diff(values) > 0).all())


def _density(scores: np.ndarray, at: np.ndarray) -> np.ndarray:
    distances = (at[:, None] - scores[None, :]) / _WIDTH
    kernels = np.exp(-0.5 * np.square(distances)).mean(axis=1) / (_WIDTH * np.sqrt(2 * np.pi))
    return np.asarray(np.maximum(kernels, 1e-6))


def _tail_density(calibration: Calibration, at: np.ndarray) -> np.ndarray:
    """Return -d false_rate / ds by differences."""
    above, below = calibration.false_rate(at + _STEP), calibration.false_rate(at - _STEP)
    return np.asarray(np.maximum(below - above, 1e-300) / (2 * _STEP))


def _require_setting(n_references: int, copy_share: float) -> None:
    if n_references < 1 or not 0 < copy_share < 1:
        raise ConfigError(
            f"n_references must be positive and copy_share between 0 and 1, not {n_references} "
            f"and {copy_share}"
        )
