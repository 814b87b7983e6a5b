"""Runs a model folder: prepared pixels to descriptors; it reads no pictures and no data sets."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import onnxruntime
from jaxtyping import Float32, UInt8

from vit4icd.calibration import Calibration, read_calibration
from vit4icd.errors import ConfigError, DataError, FormatError, MismatchError
from vit4icd.preprocessing import Preprocessing, prepare
from vit4icd.storage import ModelCard, file_sha256, read_descriptors, read_model_card
from vit4icd.types import DescriptorSet

__all__ = [
    "DEFAULT_MODEL",
    "Describer",
    "Device",
    "OnnxDescriber",
    "available_threads",
    "load_describer",
]

DEFAULT_MODEL = Path(__file__).parent / "models" / "default"
"""The model folder that ships with the package."""

Device = Literal["auto", "cpu", "cuda"]
Pixels = Float32[np.ndarray, "image 3 size size"]


@runtime_checkable
class Describer(Protocol):
    """What turns prepared pixels into descriptors, whatever runs it."""

    @property
    def dim(self) -> int:
        """Length of a descriptor."""
        ...

    @property
    def fingerprint(self) -> str:
        """Name of the weights and the preprocessing."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures are to be prepared."""
        ...

    @property
    def n_threads(self) -> int:
        """Processors that it may use; as many threads may prepare pictures for it."""
        ...

    def describe(self, pixels: Pixels) -> Float32[np.ndarray, "image dim"]:
        """Return L2-normalised descriptors."""
        ...


class OnnxDescriber:
    """A model folder run by ONNX Runtime; threads may share it.

    On processors, pictures are run side by side, one thread each, which is faster than all threads
    on one batch and makes a picture's descriptor independent of its company. A picture that comes
    alone gets all threads; its descriptor may differ in the last digit.

    ``background`` and ``calibration`` are what the folder holds beside the weights: descriptors for
    score normalisation, and what scores mean; None where it has none.

    Raises:
        FormatError: the folder is incomplete, or ``model.onnx`` is not the file that model.json
            was written for.
        ConfigError: CUDA is asked for and not available.
    """

    def __init__(self, folder: Path, *, device: Device = "auto", n_threads: int | None = None):
        self.card: ModelCard = read_model_card(folder)
        path = folder / "model.onnx"
        if not path.exists():
            raise FormatError(f"{folder} has no model.onnx; write one with: vit4icd export")
        if file_sha256(path) != self.card.files.get("model.onnx"):
            raise FormatError(f"{path} is not the file that model.json describes; restore it")
        self.folder = folder
        self.n_threads = n_threads or available_threads()
        self._path, self._providers = path, _providers(device)
        self._session = self._opened(1)
        if device == "cuda" and self.provider != "CUDAExecutionProvider":
            raise ConfigError("CUDA cannot be used here: look at the driver, or use --device cpu")
        self._side_by_side = ThreadPoolExecutor(self.n_threads, "engine")

    def _opened(self, n_threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # threads that wait for work in a loop would take the processor from those that decode
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(self._path, options, providers=self._providers)
        except Exception as error:  # ONNX Runtime's own have no base but this one
            raise FormatError(
                f"{self._path} cannot be run by ONNX Runtime {onnxruntime.__version__}: {error}"
            ) from error

    @cached_property
    def _session_of_one(self) -> onnxruntime.InferenceSession:
        return self._session if self.n_threads == 1 else self._opened(self.n_threads)

    @property
    def dim(self) -> int:
        """Length of a descriptor."""
        return self.card.dim

    @property
    def fingerprint(self) -> str:
        """Name of the weights and the preprocessing."""
        return self.card.fingerprint

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures are to be prepared."""
        return self.card.preprocessing

    @property
    def provider(self) -> str:
        """What runs the model, as ONNX Runtime calls it."""
        return str(self._session.get_providers()[0])

    @cached_property
    def background(self) -> DescriptorSet | None:
        """Descriptors of images that match nothing, for score normalisation."""
        path = self.folder / "background.h5"
        if not path.exists():
            return None
        background = read_descriptors(path)
        self._require_own(path, background.fingerprint)
        return background

    @cached_property
    def calibration(self) -> Calibration | None:
        """What normalised scores of this model mean; None without the background to make them."""
        calibration = None if self.background is None else read_calibration(self.folder)
        if calibration is not None:
            self._require_own(self.folder / "calibration.json", calibration.fingerprint)
        return calibration

    def _require_own(self, path: Path, fingerprint: str | None) -> None:
        if fingerprint != self.fingerprint:
            raise MismatchError(
                f"{path} belongs to model {fingerprint}, not {self.fingerprint}; "
                "make it anew with: vit4icd calibrate"
            )

    def describe(self, pixels: Pixels) -> Float32[np.ndarray, "image dim"]:
        """Return L2-normalised descriptors of prepared pixels.

        Raises:
            DataError: pixels of another size than the model's.
        """
        size = self.preprocessing.image_size
        if pixels.shape[1:] != (3, size, size):
            raise DataError(
                f"pixels are {pixels.shape[1:]}, but the model wants (3, {size}, {size})"
            )
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        if self.provider != "CPUExecutionProvider":
            return _run(self._session, pixels)
        if len(pixels) == 1:
            return _run(self._session_of_one, pixels)
        rows = (pixels[row : row + 1] for row in range(len(pixels)))
        return np.concatenate(list(self._side_by_side.map(partial(_run, self._session), rows)))

    def describe_images(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> Float32[np.ndarray, "image dim"]:
        """Return L2-normalised descriptors of RGB pictures of any size."""
        if not images:
            return np.empty((0, self.dim), np.float32)
        return self.describe(np.stack([prepare(image, self.preprocessing) for image in images]))


def load_describer(
    folder: Path | None = None, *, device: Device = "auto", n_threads: int | None = None
) -> OnnxDescriber:
    """Open a model folder, the packaged one by default.

    ``n_threads`` defaults to the processors this process may use.

    Raises:
        FormatError: there is no model folder, or it is damaged.
        ConfigError: CUDA is asked for and not available.
    """
    return OnnxDescriber(folder or DEFAULT_MODEL, device=device, n_threads=n_threads)


def available_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run(session: onnxruntime.InferenceSession, pixels: Pixels) -> Float32[np.ndarray, "image dim"]:
    (descriptors,) = session.run(["descriptors"], {"pixels": pixels})
    result: Float32[np.ndarray, "image dim"] = descriptors
    return result


def _providers(device: Device) -> list[str]:
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            "this ONNX Runtime has no CUDA; use --device cpu, or put the other build in its place: "
            "pip uninstall onnxruntime; pip install onnxruntime-gpu"
        )
    if device != "cpu" and has_cuda:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
