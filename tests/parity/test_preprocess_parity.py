"""Pixels of the original extraction and of its training loader."""

import numpy as np

from tests.conftest import DATA
from vit4icd.images import resize, to_gray
from vit4icd.preprocessing import OFFICIAL, Preprocessing, prepare

STORED = np.load(DATA / "oracle" / "train" / "preprocess.npz")


def test_prepares_gray_pictures_as_the_official_extraction() -> None:
    ours = prepare(STORED["image"], OFFICIAL)
    np.testing.assert_allclose(ours, STORED["extract_bw_224"], atol=1e-5)


def test_prepares_colour_pictures_as_the_official_extraction() -> None:
    ours = prepare(STORED["image"], Preprocessing(colour="colour"))
    np.testing.assert_allclose(ours, STORED["extract_color_224"], atol=1e-5)


def test_prepares_support_pictures_as_the_official_training() -> None:
    gray = to_gray(resize(STORED["image"], 224, 224, "bilinear"))
    mean, std = np.array(OFFICIAL.mean), np.array(OFFICIAL.std)
    ours = ((gray / 255.0 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, STORED["support_224"], atol=1e-5)
