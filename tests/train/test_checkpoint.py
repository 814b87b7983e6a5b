"""Weights of others: recognised by their keys, mapped strictly, refused with the key's name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import DATA
from vit4icd.errors import FormatError, WeightsError
from vit4icd.preprocessing import OFFICIAL
from vit4icd.storage import read_model_card
from vit4icd.train import command
from vit4icd.train.checkpoint import import_weights, load_backbone
from vit4icd.train.descriptor import Architecture, BackboneName, build, with_levels
from vit4icd.train.vit import VisionTransformer

State = dict[str, Tensor]


def _official(stage: int) -> State:
    """Return tensors of the official shapes, with few classes, aliases being one tensor."""
    shapes = json.loads((DATA / f"checkpoint_keys_stage{stage}.json").read_text())
    torch.manual_seed(stage)
    state: State = {}
    for name, shape in shapes.items():
        if "classifier" in name:
            shape = [7, *shape[1:]]
        kind = torch.long if name.endswith("num_batches_tracked") else torch.float
        state[name] = torch.ones(shape, dtype=kind) if not shape else torch.randn(shape).to(kind)
    for part in ("weight", "bias"):
        state[f"module.projector_feat_bn_1.0.{part}"] = state[f"module.linear.{part}"]
    return state


@pytest.fixture(scope="module")
def stage_3() -> State:
    return _official(3)


@pytest.fixture(scope="module")
def stage_1() -> State:
    return _official(1)


def _save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", ["bare", "wrapped", "no prefix", "no classifiers"])
def test_reads_an_official_student(form: str, stage_3: State, tmp_path: Path) -> None:
    content: object = stage_3
    if form == "wrapped":
        content = {"state_dict": stage_3, "epoch": 10, "optimizer": {"lr": 1e-3}}
    if form == "no prefix":
        content = {name.removeprefix("module."): tensor for name, tensor in stage_3.items()}
    if form == "no classifiers":
        content = {name: t for name, t in stage_3.items() if "classifier" not in name}
    imported = import_weights(_save(tmp_path / "stage_3.pth.tar", content))
    assert imported.complete
    assert imported.architecture == Architecture(name="vit_base", image_size=224, dim=512)
    model = build(imported.architecture)
    load_backbone(model, imported)
    torch.testing.assert_close(
        model.backbone.blocks[3].attn.qkv.weight, stage_3["module.base.0.blocks.3.attn.qkv.weight"]
    )
    torch.testing.assert_close(model.projection.bias, stage_3["module.linear.bias"])


def test_reads_an_official_teacher(stage_1: State, tmp_path: Path) -> None:
    imported = import_weights(_save(tmp_path / "stage_1.pth.tar", stage_1))
    assert imported.architecture.name == "resnet50"
    model = build(imported.architecture)
    load_backbone(model, imported)
    pairs = [
        (model.backbone.conv1.weight, "base.0.weight"),
        (model.backbone.layer4[2].bn3.running_var, "base.9.2.bn3.running_var"),
        (model.pool.p, "base.10.p"),
        (model.neck.running_mean, "projector_feat_bn.0.running_mean"),
        (model.projection.weight, "linear.weight"),
        (model.projection_norm.weight, "projector_feat_bn_1.1.weight"),
    ]
    for ours, name in pairs:
        torch.testing.assert_close(ours.detach(), stage_1[f"module.{name}"])


def test_prepares_pictures_for_official_weights_as_the_official_extraction(tmp_path: Path) -> None:
    model = build(Architecture(name="vit_test", image_size=32))
    official = {
        name.replace("backbone.", "base.0.").replace("projection.", "linear."): tensor
        for name, tensor in model.state_dict().items()
    }
    for name, state in (("official", official), ("start", dict(model.backbone.state_dict()))):
        file = _save(tmp_path / f"{name}.pth", state)
        command.import_weights(file, tmp_path / name, licence="unknown")
    wanted = replace(OFFICIAL, image_size=32)
    assert read_model_card(tmp_path / "official").preprocessing == wanted
    assert read_model_card(tmp_path / "start").preprocessing == replace(wanted, colour="colour")


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(name="vit_test", image_size=32, dim=8, pooling="patches"),
        Architecture(name="efficientnet_lite0", dim=8, pooling="levels"),
    ],
)
def test_reads_how_a_stage_pooled(architecture: Architecture, tmp_path: Path) -> None:
    model = build(architecture)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    imported = import_weights(_save(tmp_path / "averaged.pt", state))
    assert imported.architecture == model.architecture
    other = build(model.architecture)
    load_backbone(other, imported)
    torch.testing.assert_close(other.projection.weight, model.projection.weight)


def test_starts_from_no_model_that_pools_otherwise(tmp_path: Path) -> None:
    plain = build(Architecture(name="efficientnet_lite0", dim=8))
    state = {f"model.{name}": tensor for name, tensor in plain.state_dict().items()}
    imported = import_weights(_save(tmp_path / "averaged.pt", state))
    with pytest.raises(WeightsError, match="'token', but the one to train 'levels': vit4icd exp"):
        load_backbone(with_levels(plain), imported)


def test_names_missing_extra_and_misshapen_keys(stage_3: State, tmp_path: Path) -> None:
    state = dict(stage_3)
    del state["module.base.0.blocks.7.norm1.bias"]
    state["module.surprise"] = torch.zeros(1)
    state["module.base.0.norm.weight"] = torch.zeros(5)
    with pytest.raises(WeightsError) as caught:
        import_weights(_save(tmp_path / "x.pth.tar", state))
    message = str(caught.value)
    assert "1 missing: backbone.blocks.7.norm1.bias" in message
    assert "1 extra: surprise" in message
    assert "1 misshapen: backbone.norm.weight (5,) instead of (768,)" in message


def test_checks_the_aliased_projection(stage_3: State, tmp_path: Path) -> None:
    state = dict(stage_3)
    state["module.projector_feat_bn_1.0.bias"] = state["module.linear.bias"] + 1
    with pytest.raises(WeightsError, match="aliases"):
        import_weights(_save(tmp_path / "x.pth.tar", state))


def test_describes_as_the_official_code_does(tmp_path: Path) -> None:
    stored = np.load(DATA / "oracle" / "train" / "tiny_vit.npz")
    state = {
        key.removeprefix("sd/"): torch.from_numpy(stored[key])
        for key in stored
        if key.startswith("sd/")
    }
    imported = import_weights(_save(tmp_path / "tiny.pth.tar", state))
    model = build(imported.architecture).eval()
    load_backbone(model, imported)
    with torch.no_grad():
        found = model.describe(torch.from_numpy(stored["x"]))
    np.testing.assert_allclose(found.numpy(), stored["proj_l2"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "head", "wrapper"),
    [
        ("vit_small", "head", "model"),
        ("vit_tiny", "head", None),
        ("resnet50", "fc", None),
        ("resnet50", None, None),
        ("efficientnet_lite0", "_fc", None),
    ],
)
def test_starts_from_imagenet_weights(
    name: BackboneName, head: str | None, wrapper: str | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = build(Architecture(name=name)).backbone.state_dict()
    state = dict(backbone)
    if head is not None:
        state |= {f"{head}.weight": torch.zeros(10, 3), f"{head}.bias": torch.zeros(10)}
    imported = import_weights(_save(tmp_path / "x.pth", {wrapper: state} if wrapper else state))
    assert not imported.complete
    model = build(Architecture(name=name, image_size=160))
    projection = model.projection.weight.clone()
    load_backbone(model, imported)
    torch.testing.assert_close(model.projection.weight, projection)
    for key, tensor in model.backbone.state_dict().items():
        if key != "pos_embed":
            torch.testing.assert_close(tensor, backbone[key])


def test_starts_from_the_first_blocks_of_dinov2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(Architecture(name="vit_small_14")).eval()
    assert isinstance(model.backbone, VisionTransformer)
    state = {**model.backbone.state_dict(), "mask_token": torch.zeros(1, 384)}
    gammas = {f"blocks.{block}.ls{part}.gamma": torch.rand(384) + 0.5
              for block in range(12) for part in (1, 2)}  # fmt: skip
    later = {name.replace("blocks.0", f"blocks.{block}"): tensor
             for name, tensor in state.items() if name.startswith("blocks.0.")
             for block in range(8, 12)}  # fmt: skip
    imported = import_weights(_save(tmp_path / "dinov2.pth", state | gammas | later))
    assert imported.architecture.name == "vit_small_14"
    started = build(Architecture(name="vit_small_14")).eval()
    load_backbone(started, imported)
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        for number in range(8):  # LayerScale, by hand
            for part, layer in ((1, "attn.proj"), (2, "mlp.fc2")):
                scale = gammas[f"blocks.{number}.ls{part}.gamma"]
                scaled = model.backbone.get_submodule(f"blocks.{number}.{layer}")
                scaled.register_forward_hook(lambda _, __, out, scale=scale: out * scale)
        torch.testing.assert_close(started.backbone(pixels), model.backbone(pixels))
    with pytest.raises(WeightsError, match=r"missing: backbone.blocks.7.norm1.weight"):
        short = {name: t for name, t in state.items() if not name.startswith("blocks.7.")}
        import_weights(_save(tmp_path / "short.pth", short | gammas))


def test_refuses_files_of_other_kinds(tmp_path: Path) -> None:
    cases = {
        "text": (b"hello", "not a readable"),
        "empty": (b"", "not a readable"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=message):
            import_weights(tmp_path / name)
    with pytest.raises(FormatError, match="no known kind"):
        import_weights(_save(tmp_path / "other", {"a": torch.zeros(1)}))
    with pytest.raises(FormatError, match="no tensors"):
        import_weights(_save(tmp_path / "none", {"a": 1}))
    with pytest.raises(FormatError, match="list"):
        import_weights(_save(tmp_path / "list", [1]))
    with pytest.raises(FormatError, match="no file"):
        import_weights(tmp_path / "gone")


def test_executes_nothing_in_a_weights_file(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    with pytest.raises(FormatError):
        import_weights(_save(tmp_path / "x.pth", {"state_dict": Trap()}))
    assert not trap.exists()


def test_refuses_weights_of_another_network(tmp_path: Path) -> None:
    state = build(Architecture(name="vit_tiny")).backbone.state_dict()
    imported = import_weights(_save(tmp_path / "x.pth", state))
    with pytest.raises(WeightsError, match="vit_tiny"):
        load_backbone(build(Architecture(name="vit_small")), imported)
