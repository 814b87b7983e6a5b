"""Thresholds: what each way of saying one comes to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit4icd.calibration import Calibration, fit_calibration
from vit4icd.errors import ConfigError
from vit4icd.thresholds import Threshold, least_score, score_of_probability


def _calibration() -> Calibration:
    rng = np.random.default_rng(0)
    return fit_calibration(
        rng.normal(0.5, 0.15, 400),
        rng.normal(0.0, 0.08, 100_000),
        fingerprint="tiny",
        factor=1.0,
        neighbours=10,
    )


CALIBRATION = _calibration()


@given(
    probability=st.floats(0.05, 0.99),
    n_references=st.sampled_from([1, 100, 100_000]),
)
def test_is_the_lowest_score_of_a_probability(probability: float, n_references: int) -> None:
    score = score_of_probability(probability, CALIBRATION, n_references=n_references)
    assert CALIBRATION.probability(score, n_references=n_references) >= probability
    step = 1e-3 + 1e-9  # the grid's, about
    if score > min(CALIBRATION.false_scores) + step:
        assert CALIBRATION.probability(score - step, n_references=n_references) < probability


def test_asks_a_higher_score_of_a_larger_collection() -> None:
    small, large = (
        least_score("auto", n_references=n, calibration=CALIBRATION) for n in (100, 100_000)
    )
    assert small < large
    assert least_score("P99", n_references=100, calibration=CALIBRATION) == CALIBRATION.threshold(
        0.99, n_references=100
    )


def test_gives_a_score_that_none_reaches_where_nothing_is_that_sure() -> None:
    assert score_of_probability(1 - 1e-15, CALIBRATION, n_references=10**12) == 2.0


def test_takes_what_the_card_knows_without_a_calibration() -> None:
    known = {"P90": 0.55}
    assert least_score("auto", n_references=5, calibration=None, known=known) == 0.55
    assert least_score("P90", n_references=5, calibration=None, known=known) == 0.55
    assert least_score(0.25, n_references=5, calibration=None) == 0.25
    assert least_score("-0.1", n_references=5, calibration=CALIBRATION) == -0.1


@pytest.mark.parametrize("asked", ["", "P", "P9", "P100x", "high", "nan", "3", 7.0, float("inf")])
def test_refuses_what_is_no_threshold(asked: Threshold) -> None:
    with pytest.raises(ConfigError, match="a threshold is auto, P99 or a score"):
        least_score(asked, n_references=5, calibration=CALIBRATION)


@pytest.mark.parametrize("asked", ["auto", "P99"])
def test_says_when_the_model_cannot_tell(asked: str) -> None:
    with pytest.raises(ConfigError, match="vit4icd calibrate"):
        least_score(asked, n_references=5, calibration=None)
