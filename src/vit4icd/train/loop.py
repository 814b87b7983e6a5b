"""The one training loop: step, average, log, save, stop, resume; it knows no loss and no data."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vit4icd.errors import ConfigError, DataError
from vit4icd.train.ema import EmaWeights
from vit4icd.train.processes import Place, any_process, mean_over_processes
from vit4icd.train.runs import load_run, save_run, trim_log
from vit4icd.train.schedule import Schedule

__all__ = ["Batch", "LoopConfig", "Progress", "StepReport", "run"]

Batch = dict[str, Tensor]
"""What a feed gives for one step: named columns, images along the first axis."""
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How a stage is stepped through, whatever it optimises."""

    schedule: Schedule
    backbone_rate: float = 1.0
    """Learning rate of the backbone as a share of the schedule's; 1 in the original."""
    weight_decay: float = 0.0
    ema_decay: float = 0.9999
    accumulate: int = 1
    """Batches whose gradients are averaged before one optimiser step."""
    precision: Precision = "float32"
    compile: bool = False
    keep_eval_mode: bool = False
    """Train without drop-path and with fixed running statistics, as stages 2b and 3 do."""
    save_every_s: float = 300.0

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision is one of {get_args(Precision)}, not {self.precision!r}")
        if self.accumulate < 1 or not 0 <= self.ema_decay < 1:
            raise ConfigError(
                "accumulate must be at least 1 and ema_decay below 1, "
                f"not {self.accumulate} and {self.ema_decay}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one step did: its number from 1, of how many, its losses and its speed."""

    step: int
    n_steps: int
    learning_rate: float
    losses: Mapping[str, float]
    images_per_s: float


Progress = Callable[[StepReport], None]


@dataclass(kw_only=True, slots=True)
class _Machine:
    """Everything that changes while a stage trains."""

    learner: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EmaWeights
    place: Place
    config: LoopConfig
    seed: int
    step: int = 0
    saved_at: float = field(default_factory=time.monotonic)


def run(
    learner: nn.Module,
    open_feed: Callable[[int], Iterable[Batch]],
    *,
    config: LoopConfig,
    folder: Path,
    place: Place,
    seed: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Train a learner to the end of its schedule and return its averaged state.

    ``learner(batch)`` returns named losses; their entry "loss" is minimised. ``open_feed(n)``
    iterates over batches from the n-th on, the same ones whenever it is asked. The state is saved
    in ``folder/last.pt`` every ``save_every_s`` seconds, at the end, and on Ctrl-C or SIGTERM; a
    resumed run goes on to the same weights as one that was never stopped. Draws inside a step come
    from a generator seeded by (seed, step, rank).

    Raises:
        KeyboardInterrupt: the run was told to stop; its state is saved.
        MismatchError: the saved state is of another learner.
        DataError: a loss became NaN or infinite; the last saved state is untouched.
    """
    machine = _assemble(learner, config, place, seed)
    if resume and (folder / "last.pt").exists():
        machine.step = load_run(folder / "last.pt", learner, machine.optimizer, machine.ema)
    if resume and place.leads:
        trim_log(folder / "log.jsonl", machine.step)
    _train(machine, open_feed, folder, progress)
    return machine.ema.averaged_state(learner)


def _assemble(learner: nn.Module, config: LoopConfig, place: Place, seed: int) -> _Machine:
    learner.to(place.device)
    learner.train(not config.keep_eval_mode)
    wrapped: nn.Module = torch.compile(learner) if config.compile else learner  # type: ignore[assignment]
    if place.n_processes > 1:
        wrapped = DistributedDataParallel(wrapped)
    return _Machine(
        learner=learner,
        wrapped=wrapped,
        optimizer=_adam(learner, config),
        ema=EmaWeights(learner, decay=config.ema_decay),
        place=place,
        config=config,
        seed=seed,
    )


def _adam(learner: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    named = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    backbone = [p for name, p in named if ".backbone." in name]
    others = [p for name, p in named if ".backbone." not in name]
    groups = [
        {"params": backbone, "rate": config.backbone_rate},
        {"params": others, "rate": 1.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.schedule.learning_rate,
        weight_decay=config.weight_decay,
    )


def _train(
    machine: _Machine,
    open_feed: Callable[[int], Iterable[Batch]],
    folder: Path,
    progress: Progress | None,
) -> None:
    config, n_steps = machine.config, machine.config.schedule.n_steps
    batches = iter(open_feed(machine.step * config.accumulate)) if machine.step < n_steps else None
    with _stop_signals() as stop_asked:
        while machine.step < n_steps:
            assert batches is not None
            report = _step(machine, batches)
            if machine.place.leads:
                _log(folder / "log.jsonl", report)
                if progress is not None:
                    progress(report)
            stop = any_process(stop_asked.is_set(), machine.place)
            _save_if_due(machine, folder, last=stop or machine.step == n_steps)
            if stop and machine.step < n_steps:
                raise KeyboardInterrupt


def _step(machine: _Machine, batches: Iterator[Batch]) -> StepReport:
    config, started = machine.config, time.monotonic()
    rate = config.schedule.learning_rate_at(machine.step)
    for group in machine.optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    torch.manual_seed(_step_seed(machine.seed, machine.step, machine.place.rank))
    machine.optimizer.zero_grad(set_to_none=True)
    totals: dict[str, Tensor] = {}
    n_images = 0
    for turn in range(config.accumulate):
        batch = {
            name: t.to(machine.place.device, non_blocking=True) for name, t in next(batches).items()
        }
        losses = _backward(machine, batch, last=turn == config.accumulate - 1)
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + value.detach() / config.accumulate
        n_images += len(batch["images"]) * machine.place.n_processes
    means = _finite(totals, machine)
    machine.optimizer.step()
    machine.ema.update(machine.learner)
    machine.step += 1
    return StepReport(
        step=machine.step,
        n_steps=config.schedule.n_steps,
        learning_rate=rate,
        losses=means,
        images_per_s=n_images / max(time.monotonic() - started, 1e-9),
    )


def _backward(machine: _Machine, batch: Batch, *, last: bool) -> Mapping[str, Tensor]:
    config, device = machine.config, machine.place.device
    waits = isinstance(machine.wrapped, DistributedDataParallel) and not last
    with machine.wrapped.no_sync() if waits else nullcontext():  # type: ignore[operator]
        with torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"
        ):
            losses: Mapping[str, Tensor] = machine.wrapped(batch)
        (losses["loss"] / config.accumulate).backward()
    return losses


def _finite(totals: Mapping[str, Tensor], machine: _Machine) -> dict[str, float]:
    stacked = torch.stack([value.float() for value in totals.values()])
    values = mean_over_processes(stacked, machine.place).tolist()
    means = dict(zip(totals, values, strict=True))
    if not all(map(math.isfinite, values)):
        raise DataError(
            f"the loss is not finite at step {machine.step + 1}: {means}; "
            "lower the learning rate and resume from the last saved state"
        )
    return means


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 4_099 + rank


def _save_if_due(machine: _Machine, folder: Path, *, last: bool) -> None:
    if not machine.place.leads:
        return
    if last or time.monotonic() - machine.saved_at >= machine.config.save_every_s:
        save_run(folder / "last.pt", machine.learner, machine.optimizer, machine.ema, machine.step)
        machine.saved_at = time.monotonic()


def _log(path: Path, report: StepReport) -> None:
    line = {
        "step": report.step,
        "learning_rate": report.learning_rate,
        **{name: round(value, 6) for name, value in report.losses.items()},
        "images_per_s": round(report.images_per_s, 1),
    }
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event that is looked at between steps."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
