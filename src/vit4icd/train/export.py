"""A trained model as a model folder: ONNX, safetensors and model.json, parity checked."""

import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float
from onnx import TensorProto, numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vit4icd.errors import ConfigError, FormatError, WeightsError
from vit4icd.preprocessing import Preprocessing
from vit4icd.storage import (
    ModelCard,
    file_sha256,
    fingerprint,
    read_model_card,
    write_model_card,
)
from vit4icd.train.descriptor import Architecture, DescriptorModel, build
from vit4icd.train.vit import resize_position

__all__ = ["export", "load_model", "require_place", "take_mean"]

_PARITY = 1e-4  # how far the cosine of torch's and ONNX Runtime's descriptors may be below 1
_OPSET = 20
_MODEL_FILES = {
    "background.h5", "calibration.json", "model.json", "model.onnx", "model.safetensors",
}  # fmt: skip
_HALVED_FROM = 16_384  # values; smaller tensors (norms, depthwise kernels) stay in single precision


def export(
    model: DescriptorModel,
    preprocessing: Preprocessing,
    folder: Path,
    *,
    provenance: str,
    licence: str,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    thresholds: Mapping[str, float] | None = None,
    half: bool = False,
    with_torch_weights: bool = True,
    overwrite: bool = False,
) -> ModelCard:
    """Write ``model.onnx``, ``model.safetensors`` and ``model.json`` into a new folder.

    The folder appears whole or not at all. With ``overwrite`` it takes the place of a model folder,
    whose background set and calibration go too, for they belong to the old weights.

    Input ``pixels [image, 3, size, size]``, output ``descriptors [image, dim]``, L2-normalised.
    With ``half`` the ONNX weights are stored in half precision and computed with in single; the
    torch weights stay single.

    Raises:
        ConfigError, FormatError: the folder's place is taken, see :func:`require_place`.
        WeightsError: ONNX Runtime's descriptors are further than 1e-4 (cosine) from torch's.
    """
    require_place(folder, overwrite=overwrite)
    folder = folder.resolve()
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        model = model.cpu().eval()
        _write_onnx(model, preprocessing.image_size, temporary / "model.onnx", half=half)
        _require_parity(model, preprocessing.image_size, temporary / "model.onnx")
        if with_torch_weights:
            save_file(_contiguous(model), temporary / "model.safetensors")
        card = replace(
            _card(model, preprocessing, temporary, provenance, licence),
            config=config or {},
            seed=seed,
            thresholds=thresholds or {},
        )
        write_model_card(temporary, card)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def require_place(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that :func:`export` would have to remove more from than it may.

    What a killed export had put aside gets its name back first.

    Raises:
        ConfigError: a file, or a folder with something in it and no ``overwrite``.
        FormatError: ``overwrite`` and a folder that is no model folder or holds other files, too.
    """
    old = _aside(folder.resolve())
    if old.exists() and not folder.exists():
        old.rename(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder that is new or empty")
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if found and not overwrite:
        raise ConfigError(
            f"{folder} holds {found[0]} already; choose another folder, or --overwrite to replace "
            "a model folder with its background set and calibration"
        )
    foreign = [name for name in found if name not in _MODEL_FILES]
    if foreign or (found and "model.json" not in found):
        raise FormatError(
            f"{folder} is no model folder, or holds more than one does ({(foreign or found)[0]}): "
            "nothing is overwritten; choose another folder"
        )
    if found:
        read_model_card(folder)


def load_model(folder: Path, *, image_size: int | None = None) -> DescriptorModel:
    """Read a model folder's torch weights, for pictures of another size if one is given.

    Raises:
        FormatError: it has none, or they do not fit model.json.
    """
    card = read_model_card(folder)
    path = folder / "model.safetensors"
    if not path.exists():
        raise FormatError(f"{folder} has no model.safetensors; it can describe, but not train")
    architecture = Architecture.from_json(dict(card.architecture))
    architecture = replace(architecture, image_size=image_size or architecture.image_size)
    model = build(architecture)
    try:
        state = load_file(path)
        if "backbone.pos_embed" in state:
            state["backbone.pos_embed"] = resize_position(
                state["backbone.pos_embed"], architecture.n_patches
            )
        model.load_state_dict(state)
    except Exception as error:
        raise FormatError(f"{path} does not fit {folder}/model.json: {error}") from error
    return model.eval()


def take_mean(model: DescriptorModel, others: Sequence[DescriptorModel]) -> None:
    """Set the model's weights to the mean of its own and the others', which share a start.

    Source: Wortsman et al., Model soups, 2022, the uniform soup.

    Raises:
        WeightsError: a model of another architecture.
    """
    if any(other.architecture != model.architecture for other in others):
        raise WeightsError("only models of one architecture can be averaged")
    states = [each.state_dict() for each in (model, *others)]
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            mean = torch.stack([state[name].double() for state in states]).mean(dim=0)
            tensor.copy_(mean.to(tensor.dtype))


class _Describing(nn.Module):
    """The graph that is exported: pixels to normalised descriptors."""

    def __init__(self, model: DescriptorModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.describe(pixels)


def _write_onnx(model: DescriptorModel, image_size: int, path: Path, *, half: bool) -> None:
    example = torch.randn(2, 3, image_size, image_size)
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Describing(model),
                (example,),
                dynamo=True,
                input_names=["pixels"],
                output_names=["descriptors"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("image", min=1)}},
                opset_version=_OPSET,
                verbose=False,
            )
    finally:
        noisy.setLevel(level)
    assert program is not None
    proto = program.model_proto
    _drop_notes(proto)
    if half:
        _store_in_half(proto)
    onnx.save(proto, path)


def _drop_notes(proto: onnx.ModelProto) -> None:
    """Drop what torch notes of its own files and lines, so that equal models are equal files."""
    graph = proto.graph
    for noted in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del noted.metadata_props[:]


def _store_in_half(proto: onnx.ModelProto) -> None:
    """Store large float32 weights as float16, cast back when the model is loaded."""
    graph, casts = proto.graph, []
    for index, tensor in enumerate(list(graph.initializer)):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _HALVED_FROM:
            continue
        stored = numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        graph.initializer[index].CopyFrom(numpy_helper.from_array(stored, f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _require_parity(model: DescriptorModel, image_size: int, path: Path) -> None:
    pixels = _probe(image_size)
    with torch.inference_mode():
        ours = model.describe(pixels).numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    theirs = session.run(["descriptors"], {"pixels": pixels.numpy()})[0]
    worst = float((ours * theirs).sum(axis=1).min())
    if not worst >= 1 - _PARITY:
        raise WeightsError(
            f"the exported model disagrees with torch: lowest cosine {worst:.6f}, at least "
            f"{1 - _PARITY} is required"
        )


def _probe(image_size: int) -> Float[Tensor, "image 3 size size"]:
    """Return noise, smooth ramps and a flat picture: inputs that differ in every way."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, image_size, image_size, generator=generator)
    ramp = torch.linspace(-2, 2, image_size).expand(1, 3, image_size, image_size)
    return torch.cat([noise, ramp, ramp.transpose(2, 3), torch.full_like(ramp, 0.5)])


def _contiguous(model: DescriptorModel) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def _card(
    model: DescriptorModel,
    preprocessing: Preprocessing,
    folder: Path,
    provenance: str,
    licence: str,
) -> ModelCard:
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    architecture = model.architecture.to_json()
    return ModelCard(
        architecture=architecture,
        dim=model.dim,
        preprocessing=preprocessing,
        fingerprint=fingerprint(files["model.onnx"], architecture, preprocessing),
        files=files,
        provenance=provenance,
        licence=licence,
    )


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename the new folder to its name; the old one is removed once that is done."""
    old = _aside(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
