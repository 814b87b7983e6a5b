"""The state of an unfinished stage on disk, so that it can go on; finished models are exported."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vit4icd.errors import FormatError, MismatchError
from vit4icd.storage import atomic_path
from vit4icd.train.ema import EmaWeights

__all__ = ["load_into", "load_learner", "load_run", "save_learner", "save_run", "trim_log"]

_FORMAT_VERSION = 1


def save_run(
    path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, ema: EmaWeights, step: int
) -> None:
    """Write weights, optimiser, averaged weights and step count; the file appears whole or not."""
    state = {
        "format_version": _FORMAT_VERSION,
        "step": step,
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
    }
    _save(path, state)


def load_run(
    path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, ema: EmaWeights
) -> int:
    """Restore what :func:`save_run` wrote and return the number of steps already made.

    Raises:
        FormatError: the file is damaged or of a newer version.
        MismatchError: the state is of another learner.
    """
    state = _load(path)
    load_into(learner, state["learner"], path)
    optimizer.load_state_dict(state["optimizer"])
    ema.load_state_dict(state["ema"])
    return int(state["step"])


def save_learner(path: Path, state: dict[str, Tensor]) -> None:
    """Write a stage's averaged weights, which the next stage starts from."""
    _save(path, {"format_version": _FORMAT_VERSION, "learner": state})


def load_learner(path: Path) -> dict[str, Tensor]:
    """Read what :func:`save_learner` wrote.

    Raises:
        FormatError: the file is damaged or of a newer version.
    """
    state: dict[str, Tensor] = _load(path)["learner"]
    return state


def trim_log(path: Path, step: int) -> None:
    """Drop the log's lines of steps after ``step``, which a resumed run makes again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text("utf-8").splitlines() if _step_of(line) <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), "utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut short by a kill
        return float("inf")


def _save(path: Path, state: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _load(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FormatError(
            f"{path} is not a saved training state, or is damaged: {error}"
        ) from error
    if not isinstance(state, dict) or state.get("format_version") != _FORMAT_VERSION:
        raise FormatError(f"{path} is not a saved training state of format {_FORMAT_VERSION}")
    return state


def load_into(learner: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Give a learner the weights that were read from a path.

    Raises:
        MismatchError: they are of another learner.
    """
    try:
        learner.load_state_dict(state)
    except RuntimeError as error:
        raise MismatchError(
            f"{path} was saved by another model or data set: {error}; "
            "use another --out folder or the recipe and data of that run"
        ) from error
