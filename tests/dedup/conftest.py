"""Fixtures of the search for copies: the packaged model, and photographs to copy."""

from pathlib import Path

import numpy as np
import pytest

from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.images import read_image, resize, write_image

DEMO = Path(__file__).parents[2] / "src" / "vit4icd" / "demo"


@pytest.fixture(scope="session")
def describer() -> OnnxDescriber:
    """The packaged model on one thread."""
    return load_describer(n_threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for pictures."""
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def photograph(name: str) -> Path:
    """Return the path of a packaged photograph."""
    return DEMO / "photographs" / f"{name}.jpg"


def put(name: str, path: Path, *, width: int | None = None, quality: int = 92) -> Path:
    """Put a photograph at a path: its very bytes, or smaller and coded anew."""
    if width is None:
        path.write_bytes(photograph(name).read_bytes())
        return path
    image = read_image(photograph(name))
    small = resize(image, width, round(width * image.shape[0] / image.shape[1]))
    write_image(path, small, suffix=path.suffix, quality=quality)
    return path


def put_plain(path: Path, level: int) -> Path:
    """Write a picture of one colour."""
    write_image(path, np.full((90, 120, 3), level, np.uint8), suffix=path.suffix)
    return path
