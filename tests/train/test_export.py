"""Model folders: what torch and ONNX Runtime describe alike, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vit4icd.describer import load_describer
from vit4icd.errors import FormatError, WeightsError
from vit4icd.images import Preprocessing
from vit4icd.train import export as room
from vit4icd.train.descriptor import Architecture, BackboneName, build
from vit4icd.train.export import export, load_model

PREPROCESSING = Preprocessing(image_size=32, colour="colour")


def _export(folder: Path, name: BackboneName = "vit_test", **options: object) -> Path:
    torch.manual_seed(0)
    model = build(Architecture(name=name, image_size=32, dim=16))
    export(model, PREPROCESSING, folder, provenance="test", licence="Apache-2.0", **options)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("name", ["vit_test", "resnet_test", "efficientnet_lite0"])
@pytest.mark.parametrize("half", [False, True])
def test_describes_as_torch_does(name: BackboneName, half: bool, tmp_path: Path) -> None:
    folder = _export(tmp_path / "model", name, half=half)
    pixels = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    ours = load_describer(folder, n_threads=1).describe(pixels)
    with torch.no_grad():
        theirs = load_model(folder).describe(torch.from_numpy(pixels)).numpy()
    assert (ours * theirs).sum(axis=1).min() > 1 - 1e-4


def test_halves_the_file_in_half_precision(tmp_path: Path) -> None:
    full = _export(tmp_path / "full", "efficientnet_lite0") / "model.onnx"
    half = _export(tmp_path / "half", "efficientnet_lite0", half=True) / "model.onnx"
    assert half.stat().st_size < 0.55 * full.stat().st_size


def test_refuses_a_graph_that_disagrees_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PARITY", -1.0)
    with pytest.raises(WeightsError, match="disagrees"):
        _export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_replaces_a_model_folder_and_nothing_else(tmp_path: Path) -> None:
    _export(tmp_path / "model")
    _export(tmp_path / "model", "resnet_test")
    assert load_model(tmp_path / "model").architecture.name == "resnet_test"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FormatError, match="no model folder"):
        _export(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_loads_a_vit_for_another_image_size(tmp_path: Path) -> None:
    folder = _export(tmp_path / "model")
    model = load_model(folder, image_size=64)
    assert model.describe(torch.zeros(1, 3, 64, 64)).shape == (1, 16)


def test_says_when_torch_weights_are_missing_or_foreign(tmp_path: Path) -> None:
    folder = _export(tmp_path / "model", with_torch_weights=False)
    with pytest.raises(FormatError, match=r"no model\.safetensors"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="does not fit"):
        load_model(folder)
