"""Model folders: what torch and ONNX Runtime describe alike, whole or not at all."""

import shutil
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import make_pictures
from vit4icd.describer import DEFAULT_MODEL, load_describer
from vit4icd.errors import ConfigError, FormatError, WeightsError
from vit4icd.preprocessing import Preprocessing
from vit4icd.train import command
from vit4icd.train import export as room
from vit4icd.train.descriptor import Architecture, BackboneName, build
from vit4icd.train.export import export, load_model

PREPROCESSING = Preprocessing(image_size=32, colour="colour")


def _export(folder: Path, name: BackboneName = "vit_test", **options: object) -> Path:
    torch.manual_seed(0)
    model = build(Architecture(name=name, image_size=32, dim=16))
    if name == "efficientnet_lite0":
        _settle_norms(model)
    export(model, PREPROCESSING, folder, provenance="test", licence="Apache-2.0", **options)  # type: ignore[arg-type]
    return folder


def _settle_norms(model: torch.nn.Module) -> None:
    """Set running statistics to those of some noise, without which deep maps are all but zero."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(32, 3, 32, 32))


Exported = Callable[[BackboneName, bool], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return the model folder of a network, whole or in half precision, to read only."""

    @cache
    def make(name: BackboneName, half: bool) -> Path:
        return _export(tmp_path_factory.mktemp("exported") / "model", name, half=half)

    return make


@pytest.fixture
def old(exported: Exported, tmp_path: Path) -> Path:
    """A model folder to try things on."""
    return shutil.copytree(exported("vit_test", False), tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "half"),
    [
        *product(("vit_test", "resnet_test"), (False, True)),
        ("efficientnet_lite0", True),
    ],
)
def test_describes_as_torch_does(name: BackboneName, half: bool, exported: Exported) -> None:
    folder = exported(name, half)
    pixels = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    ours = load_describer(folder, n_threads=1).describe(pixels)
    with torch.no_grad():
        theirs = load_model(folder).describe(torch.from_numpy(pixels)).numpy()
    assert (ours * theirs).sum(axis=1).min() > 1 - 1e-4


def test_describes_by_patches_as_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = Architecture(name="vit_test", image_size=32, dim=16, pooling="patches")
    folder = tmp_path / "model"
    export(build(architecture), PREPROCESSING, folder, provenance="test", licence="Apache-2.0")
    pixels = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    model = load_model(folder)
    assert model.architecture.pooling == "patches"
    with torch.no_grad():
        theirs = model.describe(torch.from_numpy(pixels)).numpy()
    assert (load_describer(folder, n_threads=1).describe(pixels) * theirs).sum(
        axis=1
    ).min() > 0.9999


def test_hands_thresholds_on_only_where_scores_stay(exported: Exported, tmp_path: Path) -> None:
    stated = tmp_path / "stated"
    command.export(exported("resnet_test", True), stated, thresholds=["P90=0.7"])
    assert command.export(stated, tmp_path / "half", half=True).thresholds == {"P90": 0.7}
    larger = command.export(stated, tmp_path / "larger", image_size=64, thresholds=["P50=0.2"])
    assert larger.thresholds == {"P50": 0.2}


def test_learns_a_projection_of_two_levels(exported: Exported, tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 20)
    card = command.export(
        exported("efficientnet_lite0", True),
        tmp_path / "model",
        whiten=[tmp_path / "pictures"],
        copies=1,
        levels=True,
    )
    assert card.provenance == (
        "test; described by two levels; projection learnt on 1 edited copies each of 20 pictures"
    )
    model = load_model(tmp_path / "model")
    assert model.architecture.pooling == "levels"
    pixels = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        theirs = model.describe(torch.from_numpy(pixels)).numpy()
    ours = load_describer(tmp_path / "model", n_threads=1).describe(pixels)
    assert (ours * theirs).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"levels": True}, "need --whiten"),
        ({"copies": 2}, "need --whiten"),
        ({"copies": -1, "whiten": [Path()]}, "0 or more, not -1"),
    ],
)
def test_fits_no_projection_without_pictures(
    old: Path, tmp_path: Path, asked: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        command.export(old, tmp_path / "new", **asked)


def test_says_nothing_of_the_machine_it_was_written_on(exported: Exported) -> None:
    graph = (exported("vit_test", True) / "model.onnx").read_bytes()
    for trace in (b"site-packages", b"vit4icd", b".py"):
        assert trace not in graph


def test_the_packaged_model_says_nothing_of_the_machine_either() -> None:
    assert b".py" not in (DEFAULT_MODEL / "model.onnx").read_bytes()


def test_halves_the_file_in_half_precision(exported: Exported) -> None:
    folder = exported("efficientnet_lite0", True)
    n_bytes = (folder / "model.safetensors").stat().st_size
    assert (folder / "model.onnx").stat().st_size < 0.55 * n_bytes


def test_refuses_a_graph_that_disagrees_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PARITY", -1.0)
    with pytest.raises(WeightsError, match="disagrees"):
        _export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_replaces_a_model_folder_only_when_told_to(old: Path, tmp_path: Path) -> None:
    folder = old
    (folder / "calibration.json").write_text("an hour of work")
    with pytest.raises(ConfigError, match="--overwrite"):
        _export(folder, "resnet_test")
    assert (folder / "calibration.json").exists()
    assert load_model(folder).architecture.name == "vit_test"
    _export(folder, "resnet_test", overwrite=True)
    assert load_model(folder).architecture.name == "resnet_test"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "model", "model.json", "model.onnx", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["thesis.txt", "model.json"])
def test_never_replaces_what_is_not_a_model_folder_alone(
    name: str, old: Path, tmp_path: Path
) -> None:
    folder = old if name == "thesis.txt" else tmp_path / "site"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text('{"years": "of work"}')
    with pytest.raises(FormatError, match="is no"):
        _export(folder, overwrite=True)
    assert (folder / name).exists()


def test_refuses_a_file_in_the_folders_place_and_takes_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        _export(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    assert load_model(_export(tmp_path / "empty")).dim == 16


def test_keeps_the_old_folder_when_the_new_one_cannot_take_its_place(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise OSError("no space")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="no space"):
        _export(old, "resnet_test", overwrite=True)
    assert load_model(old).architecture.name == "vit_test"


def test_finds_the_old_folder_again_after_a_kill_between_the_renames(
    old: Path, tmp_path: Path
) -> None:
    old.rename(tmp_path / ".model.old")
    with pytest.raises(ConfigError, match="--overwrite"):
        _export(old, "resnet_test")
    assert load_model(old).architecture.name == "vit_test"


def test_loads_a_vit_for_another_image_size(exported: Exported) -> None:
    model = load_model(exported("vit_test", False), image_size=64)
    assert model.describe(torch.zeros(1, 3, 64, 64)).shape == (1, 16)


def test_says_when_torch_weights_are_missing_or_foreign(tmp_path: Path) -> None:
    folder = _export(tmp_path / "model", with_torch_weights=False)
    with pytest.raises(FormatError, match=r"no model\.safetensors"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="does not fit"):
        load_model(folder)
