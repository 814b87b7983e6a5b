"""Proof: what two pictures have in common, where it lies, and what is no proof."""

import threading
from pathlib import Path

import numpy as np
import pytest

from vit4icd.errors import ConfigError, FormatError
from vit4icd.images import read_image, resize
from vit4icd.overlap import LocalFeatures, OverlapConfig, find_overlap, local_features

PHOTOGRAPHS = Path("src/vit4icd/demo/photographs")


def _photograph(name: str) -> np.ndarray:
    return read_image(PHOTOGRAPHS / f"{name}.jpg")


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return _photograph("cat")


def test_finds_a_picture_in_itself(cat: np.ndarray) -> None:
    features = local_features(cat)
    overlap = find_overlap(features, features)
    assert overlap is not None
    assert overlap.query_share == pytest.approx(1, abs=0.01)
    assert overlap.reference_share == pytest.approx(1, abs=0.01)
    assert overlap.agreement > 0.99
    assert not overlap.flipped
    np.testing.assert_allclose(overlap.matrix, np.eye(3), atol=0.01)


def test_tells_the_region_of_a_crop(cat: np.ndarray) -> None:
    height, width = cat.shape[:2]
    crop = cat[height // 4 : height * 3 // 4, width // 5 : width * 4 // 5]
    overlap = find_overlap(local_features(crop), local_features(cat))
    assert overlap is not None
    assert overlap.query_share == pytest.approx(1, abs=0.02)
    assert overlap.reference_share == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(overlap.reference_polygon.min(axis=0), (0.2, 0.25), atol=0.02)
    np.testing.assert_allclose(overlap.reference_polygon.max(axis=0), (0.8, 0.75), atol=0.02)


def test_tells_a_mirror(cat: np.ndarray) -> None:
    mirrored = np.ascontiguousarray(cat[:, ::-1])
    overlap = find_overlap(local_features(mirrored), local_features(cat))
    assert overlap is not None
    assert overlap.flipped
    assert overlap.rotation == pytest.approx(0, abs=1)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_tells_a_rotation(cat: np.ndarray, turns: int) -> None:
    turned = np.ascontiguousarray(np.rot90(cat, -turns))
    overlap = find_overlap(local_features(turned), local_features(cat))
    assert overlap is not None
    assert overlap.rotation % 360 == pytest.approx(90 * turns, abs=1)
    assert overlap.reference_share == pytest.approx(1, abs=0.02)


def test_finds_a_picture_pasted_small() -> None:
    canvas = _photograph("brook").copy()
    height, width = canvas.shape[:2]
    small = resize(_photograph("cat"), width // 2, height // 2)
    canvas[20 : 20 + height // 2, 30 : 30 + width // 2] = small
    overlap = find_overlap(local_features(canvas), local_features(_photograph("cat")))
    assert overlap is not None
    assert overlap.query_share == pytest.approx(1 / 4, abs=0.02)
    np.testing.assert_allclose(
        overlap.query_polygon.min(axis=0), (30 / width, 20 / height), atol=0.01
    )


def test_claims_nothing_on_different_photographs() -> None:
    features = [local_features(read_image(path)) for path in sorted(PHOTOGRAPHS.iterdir())[:10]]
    for row, query in enumerate(features):
        for reference in features[:row]:
            assert find_overlap(query, reference) is None


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 4000), (4000, 1), (30, 3000), (16, 16)])
def test_survives_hostile_shapes(shape: tuple[int, int], rng: np.random.Generator) -> None:
    for image in (
        np.full((*shape, 3), 128, np.uint8),
        rng.integers(0, 255, (*shape, 3)).astype(np.uint8),
    ):
        features = LocalFeatures.from_bytes(local_features(image).to_bytes())
        assert (features.width, features.height) == (shape[1], shape[0])
        assert find_overlap(features, local_features(_photograph("cat"))) is None
        find_overlap(features, features)


def test_keeps_features_as_bytes(cat: np.ndarray) -> None:
    features = local_features(cat)
    data = features.to_bytes()
    assert LocalFeatures.from_bytes(data).to_bytes() == data
    for broken in (b"", data[:-1], data + b"x", b"\0" * len(data), data[:30]):
        with pytest.raises(FormatError, match="add the picture again"):
            LocalFeatures.from_bytes(broken)


def test_gives_the_same_bytes_in_every_thread(cat: np.ndarray) -> None:
    expected, found = local_features(cat).to_bytes(), []
    threads = [
        threading.Thread(target=lambda: found.append(local_features(cat).to_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize(
    "fields", [{"min_matches": 2}, {"ratio": 1.5}, {"min_share": -1}, {"min_support": 2}]
)
def test_refuses_settings_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        OverlapConfig(**fields)  # type: ignore[arg-type]
