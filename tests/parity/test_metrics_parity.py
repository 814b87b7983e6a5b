"""Figures and printed lines of the original evaluation tool, on its own inputs."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DATA
from vit4icd.errors import DataError
from vit4icd.evaluate import evaluate, format_official
from vit4icd.metrics import precision_recall_curve, ranks_of_truth
from vit4icd.storage import read_pairs, read_truth

FOLDER = DATA / "oracle" / "metrics"
CASES = sorted(path.name.removesuffix(".expected.json") for path in FOLDER.glob("*.expected.json"))
FAILING = {"duplicate_predictions", "too_many"}


def _read(case: str) -> tuple[dict[str, object], Path, Path]:
    expected = json.loads((FOLDER / f"{case}.expected.json").read_text())
    return expected, FOLDER / f"{case}.preds.csv", FOLDER / f"{case}.gt.csv"


@pytest.mark.parametrize("case", [case for case in CASES if case not in FAILING])
def test_reproduces_the_figures_and_the_printed_lines(case: str, rng: np.random.Generator) -> None:
    expected, predictions, truth = _read(case)
    report = evaluate(read_pairs(predictions), read_truth(truth), bootstrap_rng=rng, n_resamples=0)
    assert report.average_precision == pytest.approx(expected["average_precision"], abs=1e-12)
    assert report.recall_at_p90 == pytest.approx(expected["recall_at_p90"], abs=1e-12)
    assert report.threshold_at_p90 == expected["threshold_at_p90"]
    assert report.recall_at_rank_1 == pytest.approx(expected["recall_at_rank1"], abs=1e-12)
    assert report.recall_at_rank_10 == pytest.approx(expected["recall_at_rank10"], abs=1e-12)
    assert format_official(report) == expected["cli_stdout"]


@pytest.mark.parametrize("case", [case for case in CASES if case not in FAILING])
def test_reproduces_the_curve_and_the_ranks(case: str) -> None:
    path = FOLDER / f"{case}.curve.npz"
    if not path.exists():
        pytest.skip("the original kept no curve for this case")
    stored = np.load(path)
    _, predictions, truth = _read(case)
    pairs, known = read_pairs(predictions), read_truth(truth)
    curve = precision_recall_curve(pairs, known)
    np.testing.assert_allclose(curve.precisions, stored["precisions"], atol=1e-12)
    np.testing.assert_allclose(curve.recalls, stored["recalls"], atol=1e-12)
    np.testing.assert_array_equal(curve.scores, stored["thresholds"])
    np.testing.assert_array_equal(ranks_of_truth(pairs, known), stored["ranks"])


def test_refuses_repeated_predictions_in_the_original_words() -> None:
    expected, predictions, _ = _read("duplicate_predictions")
    with pytest.raises(DataError, match=str(expected["error"]).rstrip(".")):
        read_pairs(predictions)


def test_refuses_too_many_predictions_in_the_original_words(rng: np.random.Generator) -> None:
    expected, predictions, truth = _read("too_many")
    message = str(expected["cli_error_last_line"]).removeprefix("RuntimeError: ")
    with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
        evaluate(read_pairs(predictions), read_truth(truth), max_pairs=50, bootstrap_rng=rng)
