"""Preprocessing: pictures as a model wants them, and what that is called in a file."""

from dataclasses import replace

import numpy as np
import pytest

from vit4icd.errors import ConfigError, FormatError
from vit4icd.images import resize
from vit4icd.preprocessing import OFFICIAL, Preprocessing, prepare


def test_prepares_what_the_preprocessing_says(picture: np.ndarray) -> None:
    wanted = Preprocessing(image_size=32, colour="gray", mean=(0, 0, 0), std=(1, 1, 1))
    pixels = prepare(picture, wanted)
    assert pixels.shape == (3, 32, 32)
    assert pixels.flags.c_contiguous
    assert (pixels[0] == pixels[1]).all()
    assert 0 <= pixels.min() <= pixels.max() <= 1


def test_prepares_as_the_plain_formula_does(picture: np.ndarray) -> None:
    wanted = Preprocessing(image_size=24, colour="colour", resizer="bilinear")
    plain = resize(picture, 24, 24, "bilinear") / 255.0
    expected = ((plain - np.array(wanted.mean)) / np.array(wanted.std)).transpose(2, 0, 1)
    np.testing.assert_allclose(prepare(picture, wanted), expected, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "blue"}, {"resizer": "nearest"}, {"decode": "half"}, {"image_size": -1},
        {"std": [0, 1, 1]}, {"mean": [float("nan"), 0, 0]}, {"image_size": "224"}, {"size": 3},
    ],
)  # fmt: skip
def test_refuses_a_preprocessing_it_does_not_know(wrong: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="preprocessing"):
        Preprocessing.from_json({**OFFICIAL.to_json(), **wrong})


def test_writes_preprocessing_as_json_and_reads_it_back() -> None:
    wanted = Preprocessing(image_size=64, colour="colour", decode="reduced")
    assert Preprocessing.from_json(wanted.to_json()) == wanted
    assert wanted.at_least == 64
    assert OFFICIAL.at_least is None
    with pytest.raises(FormatError):
        Preprocessing.from_json({"image_size": 3})
    with pytest.raises(ConfigError):
        Preprocessing(image_size=0)


def test_reduces_large_pictures_by_whole_factors_before_the_resizer(
    rng: np.random.Generator,
) -> None:
    wanted = Preprocessing(image_size=64, colour="colour", decode="reduced")
    full = replace(wanted, decode="full")
    big = rng.integers(0, 255, (256, 192, 3)).astype(np.uint8)
    blocks = big.reshape(64, 4, 64, 3, 3).mean((1, 3))
    np.testing.assert_allclose(
        prepare(big, wanted), prepare((blocks + 0.5).astype(np.uint8), full), atol=0.02
    )
    small = big[:127, :127]
    np.testing.assert_array_equal(prepare(small, wanted), prepare(small, full))
