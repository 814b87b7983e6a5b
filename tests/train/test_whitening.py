"""Whitening: the projection evens out what pictures have in common."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_pictures
from vit4icd.datasets import open_images
from vit4icd.describer import load_describer
from vit4icd.errors import DataError
from vit4icd.preprocessing import Preprocessing
from vit4icd.train.command import export
from vit4icd.train.descriptor import Architecture, DescriptorModel, build
from vit4icd.train.export import export as export_model
from vit4icd.train.whitening import whiten, wide_features


@pytest.fixture(params=["resnet_test", "vit_test"])
def model(request: pytest.FixtureRequest) -> DescriptorModel:
    torch.manual_seed(0)
    return build(Architecture(name=request.param, image_size=32, dim=16)).eval()


def _features(model: DescriptorModel, n_images: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(model.wide_dim, model.wide_dim))
    return (rng.normal(size=(n_images, model.wide_dim)) @ mixing + 3.0).astype(np.float32)


def _raw(model: DescriptorModel, wide: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        raw: torch.Tensor = model.projection_norm(model.projection(torch.from_numpy(wide)))
    return raw.numpy()


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_centres_and_evens_out(model: DescriptorModel, power: float) -> None:
    wide = _features(model, 400)
    whiten(model, wide, power=power)
    raw = _raw(model, wide)
    covariance = np.cov(raw.T)
    largest = np.sort(np.linalg.eigvalsh(np.cov(wide.T.astype(np.float64))))[::-1][:16]
    np.testing.assert_allclose(raw.mean(axis=0), 0, atol=2e-3 * np.sqrt(largest[0]))
    np.testing.assert_allclose(
        covariance, np.diag(largest ** (1 - power)), atol=2e-3 * largest[0] ** (1 - power)
    )


def test_leaves_the_rest_zero_where_features_are_shorter_than_descriptors() -> None:
    model = build(Architecture(name="vit_test", image_size=32, dim=64)).eval()
    wide = _features(model, 400)
    whiten(model, wide, power=1.0)
    raw = _raw(model, wide)
    np.testing.assert_allclose(np.cov(raw[:, :48].T), np.eye(48), atol=2e-2)
    assert not raw[:, 48:].any()


def test_needs_more_pictures_than_dimensions(model: DescriptorModel) -> None:
    with pytest.raises(DataError, match="more pictures than that, not 16"):
        whiten(model, _features(model, 16))


def test_describes_what_can_be_read(model: DescriptorModel, tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 5)
    (tmp_path / "pictures" / "002.jpg").write_bytes(b"broken")
    seen: list[tuple[int, int]] = []
    wide = wide_features(
        model,
        open_images([tmp_path / "pictures"]),
        Preprocessing(image_size=32, colour="colour"),
        progress=lambda done, n: seen.append((done, n)),
    )
    assert wide.shape == (4, model.wide_dim)
    assert seen == [(5, 5)]


def test_exports_a_whitened_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(Architecture(name="resnet_test", image_size=32, dim=16)).eval()
    export_model(
        model,
        Preprocessing(image_size=32, colour="colour"),
        tmp_path / "model",
        provenance="test",
        licence="none",
    )
    make_pictures(tmp_path / "pictures", 40)
    card = export(tmp_path / "model", tmp_path / "white", whiten=[tmp_path / "pictures"])
    assert card.provenance == "test; whitened on 40 pictures"
    images = open_images([tmp_path / "pictures"])
    from vit4icd.images import read_image

    pictures = [read_image(images.read(row)) for row in range(40)]
    before = load_describer(tmp_path / "model").describe_images(pictures)
    after = load_describer(tmp_path / "white").describe_images(pictures)
    others = ~np.eye(40, dtype=bool)
    assert (after @ after.T)[others].mean() < 0.1 < (before @ before.T)[others].mean()
