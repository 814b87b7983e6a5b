"""What a threshold stands for ("auto", a precision, a score) as the least score; it judges none."""

import re
from collections.abc import Mapping

import numpy as np

from vit4icd.calibration import Calibration
from vit4icd.errors import ConfigError
from vit4icd.matches import COPY_PROBABILITY

__all__ = ["Threshold", "least_score", "score_of_probability"]

Threshold = str | float
"""``"auto"``, a precision such as ``"P99"`` or ``"P99.9"``, or a score (0.25, or as text)."""

_PRECISION = re.compile(r"P(\d{2}(?:\.\d+)?)")
_STEPS = 5_001  # scores tried between the lowest that is known and 2, which no score reaches


def least_score(
    asked: Threshold,
    *,
    n_references: int,
    calibration: Calibration | None,
    known: Mapping[str, float] | None = None,
    auto_probability: float = COPY_PROBABILITY,
) -> float:
    """Return the score from which on a pair counts.

    "auto" stands for the score at which a pair, among so many references, is a copy with
    ``auto_probability``; "P99" for the score from which on 99 % of all pairs reported are copies.
    A model without calibration has only what its card knows, such as {"P90": 0.55}.

    Raises:
        ConfigError: none of the three, or a model that cannot tell.

    Example:
        >>> least_score("0.3", n_references=10, calibration=None)
        0.3
        >>> least_score("P90", n_references=10, calibration=None, known={"P90": 0.55})
        0.55
    """
    if asked == "auto" and calibration is not None:
        return score_of_probability(auto_probability, calibration, n_references=n_references)
    wanted = "P90" if asked == "auto" else asked
    precision = _PRECISION.fullmatch(wanted) if isinstance(wanted, str) else None
    if precision is None:
        return _number(wanted)
    if calibration is not None:
        return calibration.threshold(float(precision[1]) / 100, n_references=n_references)
    if wanted not in (known or {}):
        raise ConfigError(
            f"this model has no calibration that could tell what {asked!r} is; give a score such "
            "as 0.5, or make one with: vit4icd calibrate"
        )
    return float((known or {})[str(wanted)])


def score_of_probability(
    probability: float, calibration: Calibration, *, n_references: int
) -> float:
    """Return the lowest score of which a pair is a copy with that probability.

    Where none is that sure, 2 is returned, which no score reaches.
    """
    grid = np.linspace(min(calibration.false_scores), 2.0, _STEPS)
    reached = calibration.probability(grid, n_references=n_references) >= probability
    return float(grid[int(np.argmax(reached))]) if reached.any() else float(grid[-1])


def _number(asked: Threshold) -> float:
    try:
        score = float(asked)
    except ValueError:
        score = np.nan
    if not -2.0 <= score <= 2.0:
        raise ConfigError(f"a threshold is auto, P99 or a score such as 0.25, not {asked!r}")
    return score
