"""Running a model folder: unit descriptors, and refusals of what does not fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_model
from vit4icd.describer import DEFAULT_MODEL, Describer, load_describer
from vit4icd.errors import ConfigError, DataError, FormatError
from vit4icd.images import read_image
from vit4icd.storage import read_model_card


def test_gives_unit_descriptors_of_any_number_of_pictures(
    model: Path, rng: np.random.Generator
) -> None:
    describer = load_describer(model, n_threads=1)
    assert isinstance(describer, Describer)
    for n_images in (0, 1, 5):
        pixels = rng.standard_normal((n_images, 3, 16, 16)).astype(np.float32)
        vectors = describer.describe(pixels)
        assert vectors.shape == (n_images, describer.dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_describes_a_picture_alike_from_path_bytes_and_array(model: Path, pictures: Path) -> None:
    describer = load_describer(model, n_threads=1)
    path = pictures / "000.jpg"
    sources = (path, path.read_bytes(), read_image(path))
    vectors = describer.describe_images([read_image(source) for source in sources])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert describer.describe_images([]).shape == (0, describer.dim)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_describes_a_picture_alike_in_any_company(n_threads: int, rng: np.random.Generator) -> None:
    describer = load_describer(n_threads=n_threads)
    assert describer.n_threads == n_threads
    pixels = rng.standard_normal((5, 3, 256, 256)).astype(np.float32)
    together = describer.describe(pixels)
    np.testing.assert_array_equal(describer.describe(pixels[2:4]), together[2:4])
    for row in range(5):
        alone = describer.describe(pixels[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_refuses_pixels_of_another_size(model: Path) -> None:
    with pytest.raises(DataError, match="wants"):
        load_describer(model).describe(np.zeros((1, 3, 8, 8), np.float32))


def test_refuses_folders_that_are_incomplete_or_changed(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"model\.json"):
        load_describer(tmp_path)
    other = make_model(tmp_path / "other", seed=1)
    shutil.copy(other / "model.onnx", model / "model.onnx")
    with pytest.raises(FormatError, match="not the file"):
        load_describer(model)
    (model / "model.onnx").unlink()
    with pytest.raises(FormatError, match=r"no model\.onnx"):
        load_describer(model)


def test_refuses_cuda_where_there_is_none(model: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="no CUDA"):
        load_describer(model, device="cuda")


def test_never_runs_on_processors_where_cuda_was_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ConfigError, match="CUDA cannot be used here"),
    ):
        load_describer(model, device="cuda")


def test_ships_a_default_model_that_states_its_licence() -> None:
    card = read_model_card(DEFAULT_MODEL)
    assert card.licence
    assert card.provenance
    assert load_describer(n_threads=1).calibration is not None
    assert load_describer(n_threads=1).fingerprint == card.fingerprint
    size = sum(path.stat().st_size for path in DEFAULT_MODEL.iterdir())
    assert size < 30 * 2**20
