"""Fixtures shared by every room's tests."""

import os
from pathlib import Path

# Tests run side by side on few cores, and their networks are tiny: threads that wait for each other
# in loops would take four times the time. Read by libraries when they load, so it stands first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper

from vit4icd.collection import Collection
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.images import resize, write_image
from vit4icd.preprocessing import Preprocessing
from vit4icd.storage import ModelCard, file_sha256, fingerprint, write_model_card

DATA = Path(__file__).parent / "data"

# A slow machine is no fault: nothing here is a timed test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240601)


@pytest.fixture
def picture(rng: np.random.Generator) -> np.ndarray:
    """A smooth random picture."""
    return resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8), 80, 60)


def write_names(folder: Path, *names: str) -> None:
    """Write files that hold nothing but their own names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def make_pictures(folder: Path, n_pictures: int, seed: int = 0) -> list[Path]:
    """Write smooth random pictures 000.jpg, 001.jpg, ... of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    picture_rng = np.random.default_rng(seed)
    paths = []
    for number in range(n_pictures):
        small = picture_rng.integers(0, 255, (5, 6, 3)).astype(np.uint8)
        picture = resize(small, 60 + number % 7, 48 + number % 5)
        paths.append(folder / f"{number:03d}.jpg")
        write_image(paths[-1], picture, suffix=".jpg")
    return paths


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty small pictures in a folder."""
    make_pictures(tmp_path / "pictures", 20)
    return tmp_path / "pictures"


def make_model(folder: Path, *, image_size: int = 16, dim: int = 8, seed: int = 0) -> Path:
    """Write a real, tiny model folder: average over 4 x 4 cells, a matrix, L2."""
    model_rng = np.random.default_rng(seed)
    cells = 3 * (image_size // 4) ** 2
    matrix = model_rng.standard_normal((cells, dim)).astype(np.float32)
    nodes = [
        helper.make_node(
            "AveragePool", ["pixels"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]
        ),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["descriptors"], axis=1, p=2),
    ]
    shape: list[str | int | None] = ["image", 3, image_size, image_size]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, ["image", dim])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    preprocessing = Preprocessing(image_size=image_size, colour="colour")
    architecture = {"name": "tiny"}
    sha256 = file_sha256(folder / "model.onnx")
    card = ModelCard(
        architecture=architecture,
        dim=dim,
        preprocessing=preprocessing,
        fingerprint=fingerprint(sha256, architecture, preprocessing),
        files={"model.onnx": sha256},
        provenance="made by the tests",
        licence="Apache-2.0",
    )
    write_model_card(folder, card)
    return folder


def make_collection(folder: Path) -> tuple[Collection, list[Path]]:
    """Make an empty collection of a tiny model in a folder, and twenty pictures beside it."""
    describer = load_describer(make_model(folder / "model"), n_threads=1)
    collection = Collection.create(folder / "collection", describer=describer)
    return collection, make_pictures(folder / "pictures", 20)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model folder."""
    return make_model(tmp_path / "model")


@pytest.fixture
def describer(model: Path) -> OnnxDescriber:
    """The tiny model on one thread."""
    return load_describer(model, n_threads=1)
