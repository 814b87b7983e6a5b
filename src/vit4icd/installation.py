"""Whether vit4icd and the libraries that it stands on are installed and load; it uses none.

It imports nothing heavy itself, so that it can tell what is broken.
"""

import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Literal

import vit4icd

__all__ = ["Check", "State", "installation"]

State = Literal["good", "warning", "wrong"]

_MODULES = {
    "faiss-cpu": "faiss",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pylance": "lance",
}  # where the module is not named as its distribution
_BUILDS = {
    "faiss-cpu": ("faiss-gpu", "faiss-gpu-cu12"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    "opencv-python-headless": (
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
}  # distributions of the same module


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do, where something is not as it should be."""


def installation() -> list[Check]:
    """Import every library of the base installation, and compare its version with the least."""
    return [Check(name="vit4icd", state="good", found=_system()), *_libraries()]


def _system() -> str:
    python = platform.python_version()
    return f"{vit4icd.__version__} on Python {python}, {platform.system()} {platform.machine()}"


def _libraries() -> Iterator[Check]:
    try:
        needs = metadata.requires("vit4icd") or []
    except metadata.PackageNotFoundError:
        yield Check(
            name="installation",
            state="wrong",
            found="vit4icd runs from a folder and is not installed",
            advice="pip install vit4icd",
        )
        return
    for need in needs:
        if "extra ==" not in need:
            name = re.split(r"[<>=!~; \[]", need)[0]
            least = re.search(r">=\s*([\d.]+)", need)
            yield _library(name.lower(), "0" if least is None else least[1])


def _library(name: str, least: str) -> Check:
    try:
        found = _version(name)
    except metadata.PackageNotFoundError:
        advice = f"pip install {name}"
        return Check(name=name, state="wrong", found="it is not installed", advice=advice)
    try:
        import_module(_MODULES.get(name, name))
    except Exception as error:  # a library that is there and broken may raise anything
        advice = f"pip install --force-reinstall {name}"
        return Check(name=name, state="wrong", found=f"{found}: {error}", advice=advice)
    if _numbers(found) < _numbers(least):
        advice = f"pip install '{name}>={least}'"
        return Check(name=name, state="wrong", found=f"{found}, below {least}", advice=advice)
    return Check(name=name, state="good", found=found)


def _version(name: str) -> str:
    """Return the version of a distribution, or of another build of the same library."""
    for other in (name, *_BUILDS.get(name, ())):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(other)
    raise metadata.PackageNotFoundError(name)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
