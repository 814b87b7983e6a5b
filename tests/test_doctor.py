"""The doctor: a sound installation passes, and each thing that is wrong is named with a cure."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.conftest import make_model
from vit4icd import doctor
from vit4icd import installation as room
from vit4icd.describer import DEFAULT_MODEL
from vit4icd.doctor import examine
from vit4icd.installation import Check, installation
from vit4icd.storage import file_sha256


def _by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_finds_a_sound_installation_sound(tmp_path: Path) -> None:
    checks = _by_name(examine(n_threads=1, folder=tmp_path))
    assert not [check for check in checks.values() if check.state == "wrong"]
    names = {"vit4icd", "onnxruntime", "faiss-cpu", "threads", "disk", "model", "calibration"}
    assert names | {"engine", "self test", "speed"} <= checks.keys()
    assert checks["numpy"].found == metadata.version("numpy")
    assert checks["engine"].found.startswith("ONNX Runtime on CPUExecutionProvider")
    assert float(checks["speed"].found.split()[0]) > 0


def test_knows_every_library_of_the_base_installation() -> None:
    names = {check.name for check in installation()} - {"vit4icd"}
    needs = [need for need in metadata.requires("vit4icd") or [] if "extra ==" not in need]
    assert len(names) == len(needs) > 8


@pytest.mark.parametrize("damage", ["weights", "card", "edited", "gone", "engine", "files"])
def test_names_a_broken_model(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, folder)
    card = json.loads((folder / "model.json").read_text())
    if damage == "weights":
        (folder / "model.onnx").write_bytes(b"short")
    elif damage == "card":
        (folder / "model.json").write_text("{}")
    elif damage == "edited":
        card["preprocessing"]["image_size"] = 224
        (folder / "model.json").write_text(json.dumps(card))
    elif damage == "engine":  # what ONNX Runtime cannot load, and model.json describes
        (folder / "model.onnx").write_bytes(b"no protobuf")
        card["files"]["model.onnx"] = file_sha256(folder / "model.onnx")
        (folder / "model.json").write_text(json.dumps(card))
    elif damage == "files":
        (folder / "model.json").write_text(json.dumps({**card, "files": []}))
    else:
        shutil.rmtree(folder)
    check = _by_name(examine(folder, n_threads=1, folder=tmp_path))["model"]
    assert check.state == "wrong"
    assert check.advice


def test_warns_of_a_model_without_calibration(tmp_path: Path) -> None:
    checks = _by_name(examine(make_model(tmp_path / "model"), n_threads=1, folder=tmp_path))
    assert checks["calibration"].state == "warning"
    assert "vit4icd calibrate" in checks["calibration"].advice


def test_notices_an_engine_that_gives_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)

    def noise(self: object, pixels: np.ndarray) -> np.ndarray:
        vectors = rng.standard_normal((len(pixels), 512)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    monkeypatch.setattr("vit4icd.describer.OnnxDescriber.describe", noise)
    check = _by_name(examine(n_threads=1, folder=tmp_path))["self test"]
    assert check.state == "wrong"


def test_reports_what_a_check_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr("vit4icd.describer.OnnxDescriber.describe", fail)
    checks = _by_name(examine(n_threads=1, folder=tmp_path))
    for name in ("self test", "speed"):
        assert checks[name].state == "wrong"
        assert "illegal instruction" in checks[name].found


def test_names_a_library_that_is_missing_or_old() -> None:
    assert room._library("no-such-library", "1").state == "wrong"
    old = room._library("numpy", "999.1")
    assert (old.state, old.advice) == ("wrong", "pip install 'numpy>=999.1'")
    assert room._numbers("2.13.0+cpu") == (2, 13, 0)


def test_takes_another_build_of_a_library_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def of_the_other_build(name: str) -> str:
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return version("onnxruntime" if name == "onnxruntime-gpu" else name)

    monkeypatch.setattr(metadata, "version", of_the_other_build)
    assert room._library("onnxruntime", "1.0").state == "good"


def test_tells_of_a_library_that_is_there_and_broken(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    words = [sys.executable, "-m", "vit4icd", "doctor", "--json"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    wrong = [check for check in json.loads(done.stdout) if check["state"] == "wrong"]
    assert [check["name"] for check in wrong] == ["opencv-python-headless"]
    assert "libGL" in wrong[0]["found"]
    assert wrong[0]["advice"] == "pip install --force-reinstall opencv-python-headless"


def test_gives_no_second_advice_where_cuda_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", list)
    check = _by_name(examine(device="cuda", n_threads=1))["model"]
    assert "pip install onnxruntime-gpu" in check.found
    assert check.advice == ""


def test_warns_of_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_threads", lambda: 4)
    monkeypatch.setattr(doctor, "_quota", lambda: None)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 1.0, 1.0))
    assert doctor._threads(4, {"OMP_NUM_THREADS": "4"}).state == "good"
    assert doctor._threads(8, {}).advice == "--threads 4"
    assert doctor._threads(4, {"OMP_NUM_THREADS": "8"}).advice == "set OMP_NUM_THREADS=4"
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 1.0, 1.0))
    assert "load 9.0" in doctor._threads(4, {}).found
    monkeypatch.setattr(doctor, "_quota", lambda: 1.5)
    assert doctor._threads(4, {}).advice == "--threads 2"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_reads_what_a_container_may_use(
    files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert doctor._quota(tmp_path) == quota


def test_warns_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free, state in ((10**6, "wrong"), (10**9, "warning"), (10**10, "good")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert doctor._disk(tmp_path).state == state
