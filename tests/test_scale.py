"""What similarities mean to a model, with and without a calibration."""

import dataclasses
from pathlib import Path

import numpy as np

from tests.conftest import make_model
from vit4icd.describer import load_describer
from vit4icd.scale import Scale
from vit4icd.storage import read_model_card, write_model_card


def test_a_model_without_a_calibration_tells_no_probability(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    scale = Scale(describer=load_describer(folder), n_chances=3)
    assert scale.probability(0.9) is None
    assert scale.probabilities(np.array([0.1, 0.9])) == [None, None]
    assert scale.bias(np.eye(2, 8, dtype=np.float32)).tolist() == [0, 0]
    assert scale.auto is None
    card = dataclasses.replace(read_model_card(folder), thresholds={"P90": 0.7})
    write_model_card(folder, card)
    assert Scale(describer=load_describer(folder), n_chances=3).auto == 0.7


def test_takes_a_handful_for_a_hundred() -> None:
    """Pictures of one kind, as a handful often is, resemble each other more than random ones."""
    describer = load_describer()
    one, hundred = (Scale(describer=describer, n_chances=n) for n in (1, 100))
    assert one.probability(0.1) == hundred.probability(0.1)
    assert one.auto == hundred.auto


def test_the_packaged_model_is_surer_among_few_than_among_many() -> None:
    few, many = (Scale(describer=load_describer(), n_chances=n) for n in (200, 100_000))
    scores = np.array([0.1, 0.3, 0.5])
    assert (np.array(few.probabilities(scores)) > np.array(many.probabilities(scores))).all()
    assert few.probability(0.3) == few.probabilities(scores)[1]
    assert few.auto is not None
    assert many.auto is not None
    assert few.auto < many.auto
    assert few.threshold("auto", auto_probability=0.01) < few.auto
    assert few.bias(np.empty((0, few.describer.dim), np.float32)).shape == (0,)
