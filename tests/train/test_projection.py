"""A projection learnt on edited copies tells them apart better than a whitened one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_pictures
from vit4icd.datasets import open_images
from vit4icd.edits import EditConfig
from vit4icd.errors import DataError
from vit4icd.images import read_image
from vit4icd.preprocessing import Preprocessing, prepare
from vit4icd.train.descriptor import Architecture, DescriptorModel, build
from vit4icd.train.projection import FitConfig, features_of_copies, fit_projection
from vit4icd.train.whitening import whiten


@pytest.fixture(params=["resnet_test", "vit_test"])
def model(request: pytest.FixtureRequest) -> DescriptorModel:
    torch.manual_seed(0)
    return build(Architecture(name=request.param, image_size=32, dim=16)).eval()


def _copies(n_wide: int, n_pictures: int, *, seed: int) -> np.ndarray:
    """Features in whose 32 large directions pictures differ; half of them edits change as well."""
    rng, direction = np.random.default_rng(seed), np.arange(n_wide)
    pictures = rng.normal(size=(n_pictures, 1, n_wide)) * np.where(direction < 32, 1, 0.1)
    edits = rng.normal(size=(n_pictures, 3, n_wide)) * np.where(direction % 2, 0.02, 3)
    edits[:, 0], edits[:, :, 32:] = 0, 0
    return (pictures + edits + 2.0).astype(np.float16)


def _found(model: DescriptorModel, copies: np.ndarray) -> float:
    """Return the share of first copies whose nearest plain picture is their own."""
    with torch.no_grad():
        raw = model.projection_norm(
            model.projection(torch.from_numpy(copies).float()[:, :2].reshape(-1, copies.shape[2]))
        )
    unit = torch.nn.functional.normalize(raw).reshape(len(copies), 2, -1)
    nearest = (unit[:, 1] @ unit[:, 0].t()).argmax(dim=1)
    return float((nearest == torch.arange(len(copies))).float().mean())


def test_learns_what_edits_leave_alone(model: DescriptorModel) -> None:
    seen, new = (_copies(model.wide_dim, 300, seed=seed) for seed in (0, 1))
    whiten(model, seen[:, 0].astype(np.float32), power=1.0)
    whitened = _found(model, new)
    steps: list[tuple[int, int]] = []
    fit_projection(
        model,
        seen,
        config=FitConfig(n_steps=150, learning_rate=1e-2, entropy=2.0),
        progress=lambda done, n: steps.append((done, n)),
    )
    assert _found(model, new) > 0.9 > whitened + 0.4
    assert steps[-1] == (150, 150)


def test_is_the_same_for_the_same_seed(model: DescriptorModel) -> None:
    copies = _copies(model.wide_dim, 100, seed=0)
    learnt = []
    for seed in (0, 0, 1):
        fit_projection(model, copies, config=FitConfig(n_steps=3, seed=seed))
        learnt.append(model.projection.weight.detach().clone())
    assert torch.equal(learnt[0], learnt[1])
    assert not torch.equal(learnt[0], learnt[2])


@pytest.mark.parametrize(("n_at_once", "n_steps"), [(1024, 400), (4, 1750)])
def test_shows_each_picture_seventy_times_unless_told(
    model: DescriptorModel, n_at_once: int, n_steps: int
) -> None:
    def stop(done: int, n: int) -> None:
        assert (done, n) == (1, n_steps)
        raise KeyboardInterrupt

    copies = _copies(model.wide_dim, 100, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit_projection(model, copies, config=FitConfig(n_pictures=n_at_once), progress=stop)


def test_learns_from_hardly_more_pictures_than_dimensions(model: DescriptorModel) -> None:
    seen, new = (_copies(model.wide_dim, 40, seed=seed) for seed in (0, 1))
    whiten(model, seen[:, 0].astype(np.float32), power=1.0)
    whitened = _found(model, new)
    fit_projection(model, seen, config=FitConfig(n_steps=20))
    assert _found(model, new) > 0.8 * whitened


def test_needs_pictures_and_copies(model: DescriptorModel) -> None:
    with pytest.raises(DataError, match="more pictures than that, not 16"):
        fit_projection(model, _copies(model.wide_dim, 16, seed=0))
    with pytest.raises(DataError, match="there are none"):
        fit_projection(model, _copies(model.wide_dim, 50, seed=0)[:, :1])


def test_describes_plain_pictures_and_their_copies(model: DescriptorModel, tmp_path: Path) -> None:
    make_pictures(tmp_path, 11)
    (tmp_path / "002.jpg").write_bytes(b"broken")
    source, preprocessing = open_images([tmp_path]), Preprocessing(image_size=32, colour="colour")
    seen: list[tuple[int, int]] = []
    first, second = (
        features_of_copies(
            model,
            source,
            preprocessing,
            n_copies=2,
            edits=EditConfig(),
            seed=seed,
            progress=lambda done, n: seen.append((done, n)),
        )
        for seed in (0, 1)
    )
    assert first.shape == (10, 3, model.wide_dim)
    assert seen == [(8, 11), (11, 11)] * 2
    with torch.no_grad():
        image = prepare(read_image(source.read(0)), preprocessing)
        wide = model(torch.from_numpy(image)[None])[0][0]
    np.testing.assert_allclose(first[0, 0], wide, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(first[:, 0], second[:, 0])
    assert not np.array_equal(first[:, 1], first[:, 0])
    assert not np.array_equal(first[:, 1], second[:, 1])
