"""The same picture in another file format has the same descriptor."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.formats import LOSSLESS, LOSSY, PHOTOGRAPHS, cosine, same_pixels, saved
from PIL import Image

from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.images import read_image

NAMES = ("cat.jpg", "milky-way.jpg")
SAME = 0.999
LEAST = {"JPEG, quality 80": 0.95, "WebP, quality 80": 0.9, "GIF, 256 colours": 0.8}
LEAST |= {"AVIF, quality 90": 0.95, "AVIF, quality 80": 0.95, "AVIF, quality 50": 0.85}


@pytest.fixture(scope="module")
def describer() -> OnnxDescriber:
    return load_describer(n_threads=1)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.open(PHOTOGRAPHS / name).convert("RGB") for name in NAMES]


@pytest.mark.parametrize("name", LOSSLESS)
def test_describes_a_picture_the_same_in_every_lossless_format(
    name: str, describer: OnnxDescriber, pictures: list[Image.Image]
) -> None:
    for picture in pictures:
        data = LOSSLESS[name](picture)
        assert cosine(describer, data, picture) >= SAME
        difference = np.abs(read_image(data).astype(int) - np.asarray(picture).astype(int))
        assert difference.max() <= 1


@pytest.mark.parametrize("name", LOSSY)
def test_describes_a_picture_alike_in_lossy_formats(
    name: str, describer: OnnxDescriber, pictures: list[Image.Image]
) -> None:
    for picture in pictures:
        assert cosine(describer, LOSSY[name](picture), picture) >= LEAST.get(name, 0.985)


def test_describes_the_same_pixels_the_same_however_they_are_held(
    describer: OnnxDescriber, pictures: list[Image.Image]
) -> None:
    for picture in pictures:
        for name, data, pixels in same_pixels(picture):
            assert cosine(describer, data, pixels) >= SAME, name


def test_tells_other_pictures_apart_by_the_same_measure(
    describer: OnnxDescriber, pictures: list[Image.Image]
) -> None:
    assert cosine(describer, saved(pictures[0], "PNG"), pictures[1]) < 0.8


@pytest.mark.parametrize("number", range(2, 9))
def test_would_notice_an_orientation_that_is_not_undone(
    number: int, describer: OnnxDescriber, pictures: list[Image.Image], tmp_path: Path
) -> None:
    lying = Image.open(_written(tmp_path, LOSSLESS[f"PNG, EXIF orientation {number}"](pictures[0])))
    assert cosine(describer, saved(lying.convert("RGB"), "PNG"), pictures[0]) < 0.97


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "lying.png"
    path.write_bytes(data)
    return path
