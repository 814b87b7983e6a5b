"""Weights of others: official checkpoints and ImageNet files, mapped key by key, strictly."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vit4icd.errors import FormatError, WeightsError
from vit4icd.train.descriptor import Architecture, BackboneName, DescriptorModel, build
from vit4icd.train.efficientnet import EfficientNetLite0
from vit4icd.train.vit import resize_position

__all__ = ["ImportedWeights", "import_weights", "load_backbone", "require_fit"]

State = dict[str, Tensor]

_VITS: dict[tuple[int, int], BackboneName] = {  # by width and patch size
    (48, 16): "vit_test",
    (192, 16): "vit_tiny",
    (384, 16): "vit_small",
    (384, 14): "vit_small_14",
    (768, 16): "vit_base",
}
_RESNET_ROOMS = {  # positions in the official nn.Sequential -> torchvision names
    "0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "7": "layer3", "9": "layer4",
}  # fmt: skip
_DINOV2_BLOCKS = 8
_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedWeights:
    """Weights by our own names, for the whole model or for its backbone alone.

    ``complete`` tells whether the projection came with them, so that the model describes images as
    it is; otherwise they are a start for training. ``official`` ones are those that ViT4ICD
    published.
    """

    kind: str
    architecture: Architecture
    state: State
    complete: bool
    official: bool = False


def import_weights(path: Path) -> ImportedWeights:
    """Read a weights file and recognise it by its keys; nothing in it is executed.

    Known are the official ViT4ICD checkpoints of all stages (wrapped in ``state_dict`` or bare,
    with or without ``module.``; classifiers are dropped and the aliased projection is checked),
    timm and DeiT ViT-Ti/S/B with patch 16, DINOv2 ViT-S/14 (its first eight blocks), torchvision
    and Barlow Twins ResNet-50, EfficientNet-Lite0, and the ``averaged.pt`` that a stage of a run
    leaves.

    Raises:
        FormatError: the file is no PyTorch weights file, or of none of these kinds.
        WeightsError: a key is missing, extra or misshapen; the message names it.
    """
    state = _unwrapped(_load(path), path)
    for belongs, read in _KINDS:
        if belongs(state):
            imported = read(state)
            _require_exact(imported, path)
            return imported
    raise FormatError(
        f"{path} holds {len(state)} tensors of no known kind (the first is {next(iter(state))!r}); "
        "known are ViT4ICD checkpoints, timm or DeiT ViTs with patch 16, DINOv2 ViT-S/14, "
        "torchvision or Barlow Twins ResNet-50, EfficientNet-Lite0, and averaged.pt of a run"
    )


def load_backbone(model: DescriptorModel, imported: ImportedWeights) -> None:
    """Start a model from imported weights; a ViT's position embeddings are resized to it.

    A complete file of the same dimension gives the projection too.

    Raises:
        WeightsError: see :func:`require_fit`.
    """
    require_fit(model.architecture, imported)
    state = dict(imported.state)
    if imported.architecture.dim != model.dim:
        state = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    if "backbone.pos_embed" in state:
        state["backbone.pos_embed"] = resize_position(
            state["backbone.pos_embed"], model.architecture.n_patches
        )
    model.load_state_dict(state, strict=False)


def require_fit(architecture: Architecture, imported: ImportedWeights) -> None:
    """Refuse weights that a model cannot start from.

    Raises:
        WeightsError: they are of another network, or their projection is one of other features.
    """
    theirs = imported.architecture
    if theirs.name != architecture.name:
        raise WeightsError(
            f"the file holds a {theirs.name} ({imported.kind}), but the model is a "
            f"{architecture.name}"
        )
    if imported.complete and theirs.pooling != architecture.pooling:
        hint = ": vit4icd export --levels --whiten PICTURES --copies 3 makes such a start"
        raise WeightsError(
            f"the model to start from has the pooling {theirs.pooling!r}, but the one to train "
            f"{architecture.pooling!r}{hint if architecture.pooling == 'levels' else ''}"
        )


def _load(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FormatError(f"there is no file {path}") from error
    except Exception as error:
        raise FormatError(f"{path} is not a readable PyTorch weights file: {error}") from error


def _unwrapped(content: object, path: Path) -> State:
    for wrapper in ("state_dict", "model", "learner"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise FormatError(f"{path} holds {type(content).__name__}, not a dictionary of tensors")
    state = {
        str(name).removeprefix("module."): tensor
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
    }
    if not state:
        raise FormatError(f"{path} holds no tensors")
    return state


def _read_official_vit(state: State) -> ImportedWeights:
    renamed = {re.sub(r"^base\.0\.", "backbone.", name): t for name, t in state.items()}
    return _official("ViT4ICD stage 2 or 3", renamed, alias="projector_feat_bn_1.0")


def _read_official_cnn(state: State) -> ImportedWeights:
    norms = {"projector_feat_bn.0.": "neck.", "projector_feat_bn_1.1.": "projection_norm."}
    renamed = {_official_cnn_name(name, norms): tensor for name, tensor in state.items()}
    return _official("ViT4ICD stage 1", renamed, alias="projector_feat_bn_1.0")


def _official_cnn_name(name: str, norms: Mapping[str, str]) -> str:
    for old, new in norms.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    match = re.match(r"base\.(\d+)\.(.+)", name)
    if match is None:
        return name
    if match[1] == "10":
        return f"pool.{match[2]}"
    room = _RESNET_ROOMS.get(match[1])
    return name if room is None else f"backbone.{room}.{match[2]}"


def _official(kind: str, state: State, *, alias: str) -> ImportedWeights:
    """Drop the classifiers, check and drop the alias of the projection, rename the projection."""
    for part in ("weight", "bias"):
        twin, linear = state.pop(f"{alias}.{part}", None), state.get(f"linear.{part}")
        if twin is not None and linear is not None and not torch.equal(twin, linear):
            raise WeightsError(
                f"{alias}.{part} and linear.{part} are aliases in ViT4ICD, but differ in this file"
            )
    kept = {
        name.replace("linear.", "projection.", 1) if name.startswith("linear.") else name: tensor
        for name, tensor in state.items()
        if name not in ("classifier.weight", "classifier_1.weight")
    }
    dim = len(kept["projection.weight"]) if "projection.weight" in kept else 512
    architecture = replace(_architecture(kept, "backbone."), dim=dim)
    return ImportedWeights(
        kind=kind, architecture=architecture, state=kept, complete=True, official=True
    )


def _read_learner(state: State) -> ImportedWeights:
    """Read the averaged weights that a stage of our own left; its heads and memory are dropped."""
    prefix = "model."
    model = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    dim = len(model["projection.weight"])
    architecture = replace(_architecture(model, "backbone."), dim=dim)
    if "pool.p" in model and "backbone.pos_embed" in model:
        architecture = replace(architecture, pooling="patches")
    elif model["projection.weight"].shape[1] == sum(EfficientNetLite0.level_dims):
        architecture = replace(architecture, pooling="levels")
    return ImportedWeights(
        kind="stage of a run", architecture=architecture, state=model, complete=True
    )


def _read_vit(state: State) -> ImportedWeights:
    return _start(
        "ImageNet ViT", _without(state, ("head.", "head_dist.", "pre_logits.", "fc_norm."))
    )


def _read_dinov2(state: State) -> ImportedWeights:
    """Keep the first blocks and fold LayerScale, gamma (W x + b), into W and b.

    The final norm belongs to the last block, which is not kept; ours starts as the identity.
    """
    kept = {
        name: tensor
        for name, tensor in _without(state, ("mask_token", "norm.")).items()
        if (block := re.match(r"blocks\.(\d+)\.", name)) is None or int(block[1]) < _DINOV2_BLOCKS
    }
    for name in [name for name in kept if name.endswith(".gamma")]:
        gamma, owner = kept.pop(name), name.split(".ls")[0]
        layer = "attn.proj" if ".ls1." in name else "mlp.fc2"
        for part in ("weight", "bias"):
            tensor = kept.get(f"{owner}.{layer}.{part}")
            if tensor is not None:  # what is missing is told later
                kept[f"{owner}.{layer}.{part}"] = torch.einsum("o...,o->o...", tensor, gamma)
    width = kept["cls_token"].shape[-1]
    kept |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    return _start("DINOv2 ViT", kept)


def _read_resnet(state: State) -> ImportedWeights:
    return _start("ImageNet ResNet-50", _without(state, ("fc.",)))


def _read_efficientnet(state: State) -> ImportedWeights:
    return _start("ImageNet EfficientNet-Lite0", _without(state, ("_fc.",)))


def _start(kind: str, state: State) -> ImportedWeights:
    renamed = {f"backbone.{name}": tensor for name, tensor in state.items()}
    architecture = _architecture(renamed, "backbone.")
    return ImportedWeights(kind=kind, architecture=architecture, state=renamed, complete=False)


def _architecture(state: State, prefix: str) -> Architecture:
    position = state.get(f"{prefix}pos_embed")
    if position is None:
        is_resnet = f"{prefix}conv1.weight" in state
        return Architecture(name="resnet50" if is_resnet else "efficientnet_lite0")
    kernel = state.get(f"{prefix}patch_embed.proj.weight")
    patch = 16 if kernel is None else kernel.shape[-1]
    if position.ndim != 3 or (position.shape[2], patch) not in _VITS:
        raise WeightsError(
            f"pos_embed has the shape {tuple(position.shape)} and patches have {patch} px; known "
            f"widths and patches: {', '.join(f'{dim} / {size}' for dim, size in _VITS)}"
        )
    side = round((position.shape[1] - 1) ** 0.5)
    return Architecture(name=_VITS[position.shape[2], patch], image_size=patch * max(side, 1))


def _require_exact(imported: ImportedWeights, path: Path) -> None:
    with torch.device("meta"):
        wanted = build(imported.architecture).state_dict()
    if not imported.complete:
        wanted = {name: t for name, t in wanted.items() if name.startswith("backbone.")}
    found = imported.state
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in found and name not in optional]
    extra = [name for name in found if name not in wanted]
    wrong = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    problems = [("missing", missing), ("extra", extra), ("misshapen", wrong)]
    texts = [f"{len(names)} {what}: {_some(names)}" for what, names in problems if names]
    if texts:
        raise WeightsError(f"{path} is not a whole {imported.kind} file: {'; '.join(texts)}")


def _some(names: list[str]) -> str:
    dots = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + dots


def _without(state: State, prefixes: tuple[str, ...]) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


def _has(*names: str) -> Callable[[Iterable[str]], bool]:
    return lambda state: all(name in state for name in names)


_KINDS: tuple[tuple[Callable[[Iterable[str]], bool], Callable[[State], ImportedWeights]], ...] = (
    (_has("base.0.cls_token"), _read_official_vit),
    (_has("base.0.weight", "base.10.p"), _read_official_cnn),
    (_has("model.projection.weight", "model.projection.bias"), _read_learner),
    (_has("cls_token", "pos_embed", "blocks.0.ls1.gamma"), _read_dinov2),
    (_has("cls_token", "pos_embed"), _read_vit),
    (_has("conv1.weight", "layer4.2.conv3.weight"), _read_resnet),
    (_has("_conv_stem.weight", "_conv_head.weight"), _read_efficientnet),
)
