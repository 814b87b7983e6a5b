"""Whether this installation works, and how fast it will be, found by using it; it mends nothing."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime

from vit4icd.describer import Device, OnnxDescriber, available_threads, load_describer
from vit4icd.errors import ConfigError, Vit4icdError
from vit4icd.extract import describe
from vit4icd.images import read_image, write_image
from vit4icd.installation import Check, State, installation
from vit4icd.storage import fingerprint

__all__ = ["examine"]

_PICTURES = Path(__file__).parent / "demo"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_GROUPS = Path("/sys/fs/cgroup")
_LEAST_COSINE = 0.9  # of a photograph with itself coded anew
_LOW_DISK, _NO_DISK = 2e9, 1e8  # bytes free
_SLOW = 5.0  # pictures a second


def examine(
    model: Path | None = None,
    *,
    device: Device = "auto",
    n_threads: int | None = None,
    folder: Path | None = None,
) -> list[Check]:
    """Check versions, threads, disk, model and engine, and measure the speed of describing.

    ``folder`` is where files will be written, the working folder by default. What cannot be checked
    because something before it is wrong is left out.
    """
    checks = [
        *installation(),
        _threads(n_threads, os.environ),
        _disk(folder or Path()),
    ]
    try:
        describer = load_describer(model, device=device, n_threads=n_threads)
    except Vit4icdError as error:
        advice = "install vit4icd anew" if model is None else "restore it, or export it anew"
        advice = "" if isinstance(error, ConfigError) else advice  # which says so itself
        return [*checks, Check(name="model", state="wrong", found=str(error), advice=advice)]
    return [
        *checks,
        *(_tried(check, describer) for check in (_model, _knowledge, _engine, _self_test, _speed)),
    ]


def _tried(check: Callable[[OnnxDescriber], Check], describer: OnnxDescriber) -> Check:
    try:
        return check(describer)
    except Exception as error:  # whatever it is, it is what the user came to find out
        return Check(
            name=check.__name__.strip("_").replace("_", " "),
            state="wrong",
            found=f"{type(error).__name__}: {error}",
            advice="install vit4icd anew; if that does not help, report this",
        )


def _threads(n_threads: int | None, environment: Mapping[str, str]) -> Check:
    """Compare the threads that will run with the processors that there are for them."""
    allowed, quota = available_threads(), _quota()
    used = n_threads or allowed
    found = f"{used} on {allowed} processors that this process may use"
    trouble: tuple[str, str] | None = None
    if quota is not None and used > quota + 0.5:
        trouble = f"its group may use {quota:.1f}", f"--threads {max(1, round(quota))}"
    elif used > allowed:
        trouble = "more than there are", f"--threads {allowed}"
    elif hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > allowed + 1:
        trouble = f"others use them too, load {load:.1f}", "let other programs end"
    for variable in _THREAD_VARIABLES:
        value = environment.get(variable, "")
        if value.isdecimal() and allowed < int(value) != used:
            trouble = f"{variable} is {value}", f"set {variable}={allowed}"
    if trouble is None:
        return Check(name="threads", state="good", found=found)
    return Check(name="threads", state="warning", found=f"{found}; {trouble[0]}", advice=trouble[1])


def _quota(groups: Path = _GROUPS) -> float | None:
    """Return how many processors' time a Linux control group allows; None without a limit."""
    files = (groups / "cpu" / "cpu.cfs_quota_us", groups / "cpu" / "cpu.cfs_period_us")
    with suppress(OSError, ValueError):
        if (groups / "cpu.max").exists():
            quota, period = map(int, (groups / "cpu.max").read_text().split())
        else:
            quota, period = (int(file.read_text()) for file in files)
        return quota / period if quota > 0 else None
    return None  # no such group, or "max"


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder.resolve()}"
    if free < _LOW_DISK:
        state: State = "wrong" if free < _NO_DISK else "warning"
        advice = "make room: 100,000 descriptors take 0.2 GB, local features 13 GB"
        return Check(name="disk", state=state, found=found, advice=advice)
    return Check(name="disk", state="good", found=found)


def _model(describer: OnnxDescriber) -> Check:
    """Compare the fingerprint with what the weights and the preprocessing come to."""
    card = describer.card
    found = f"{describer.folder}, {card.dim} numbers a picture, fingerprint {card.fingerprint}"
    due = fingerprint(card.files["model.onnx"], card.architecture, card.preprocessing)
    if due != card.fingerprint:
        found += f", which should be {due}"
        return Check(
            name="model", state="wrong", found=found, advice="model.json was edited; restore it"
        )
    return Check(name="model", state="good", found=found)


def _knowledge(describer: OnnxDescriber) -> Check:
    """Read the background and the calibration."""
    background, calibration = describer.background, describer.calibration
    if background is None or calibration is None:
        return Check(
            name="calibration",
            state="warning",
            found="the model folder has no calibration or no background",
            advice="scores cannot be told as probabilities; make both with: vit4icd calibrate",
        )
    found = f"{calibration.n_unrelated:,} unrelated pairs; {len(background):,} background images"
    return Check(name="calibration", state="good", found=found)


def _engine(describer: OnnxDescriber) -> Check:
    found = f"ONNX Runtime on {describer.provider}; there are " + ", ".join(
        onnxruntime.get_available_providers()
    )
    return Check(name="engine", state="good", found=found)


def _self_test(describer: OnnxDescriber) -> Check:
    """Describe a photograph, the same coded anew, and another one."""
    image = read_image(_PICTURES / "photographs" / "astronaut.jpg")
    other = read_image(_PICTURES / "photographs" / "brook.jpg")
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder) / "coded.jpg"
        write_image(coded, image, suffix=".jpg", quality=50)
        vectors = describer.describe_images([image, read_image(coded), other])
    (_, same, different) = (vectors @ vectors[0]).tolist()
    found = f"a photograph coded anew is {same:.3f} like itself, another {different:.3f}"
    is_unit = bool(np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3))
    if not is_unit or same < _LEAST_COSINE or different > same:
        advice = "the engine or the model is broken: install vit4icd anew, or try --device cpu"
        return Check(name="self test", state="wrong", found=found, advice=advice)
    return Check(name="self test", state="good", found=found)


def _speed(describer: OnnxDescriber) -> Check:
    """Describe the packaged pictures twice and take the better time."""
    inputs = [_PICTURES / "photographs", _PICTURES / "queries"]
    with tempfile.TemporaryDirectory() as folder:
        rates = [
            describe(inputs, Path(folder) / f"{run}.h5", describer).images_per_s for run in range(2)
        ]
    rate = max(rates)
    found = f"{rate:.0f} pictures of 0.3 megapixels a second, decoding included"
    if rate < _SLOW:
        advice = "let other programs end, or give it more processors"
        return Check(name="speed", state="warning", found=found, advice=advice)
    return Check(name="speed", state="good", found=found)
