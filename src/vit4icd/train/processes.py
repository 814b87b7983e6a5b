"""Which process this is, of how many, and on which device; it knows nothing of models or data."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed

from vit4icd.allocator import keep_freed_memory
from vit4icd.errors import ConfigError

__all__ = [
    "Place",
    "any_process",
    "gather_rows",
    "mean_over_processes",
    "take_place",
    "wait_for_all",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """This process's rank among ``n_processes``, and the device it computes on."""

    rank: int = 0
    n_processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0


@contextmanager
def take_place(device: str = "auto") -> Iterator[Place]:
    """Join the processes that torchrun started, or work alone; leave them on exit.

    ``device`` is "auto" (CUDA where there is one, else CPU), "cpu" or "cuda". On a CPU the process
    keeps memory that is freed, to its end.

    Raises:
        ConfigError: CUDA is asked for, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA here, or torch's CPU build; use --device cpu")
    wants_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if not wants_cuda:
        keep_freed_memory()
    if "WORLD_SIZE" not in os.environ:
        yield Place(device=torch.device("cuda" if wants_cuda else "cpu"))
        return
    distributed.init_process_group("nccl" if wants_cuda else "gloo")
    try:
        local = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if wants_cuda else None
        if local is not None:
            torch.cuda.set_device(local)
        yield Place(
            rank=distributed.get_rank(),
            n_processes=distributed.get_world_size(),
            device=local or torch.device("cpu"),
        )
    finally:
        distributed.destroy_process_group()


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate every process's rows in rank order; gradients flow to this process's own.

    The other processes' rows are constants here, and DDP takes the mean of what the processes find.
    So that a loss over all rows, computed by each of them, receives its whole gradient, a process's
    own rows give theirs as many times as there are processes.
    """
    if not distributed.is_initialized():
        return rows
    n_processes = distributed.get_world_size()
    gathered = [torch.empty_like(rows) for _ in range(n_processes)]
    distributed.all_gather(gathered, rows.detach().contiguous())
    if rows.requires_grad:
        gathered[distributed.get_rank()] = rows * n_processes - rows.detach() * (n_processes - 1)
    return torch.cat(gathered)


def any_process(flag: bool, place: Place) -> bool:
    """Return whether the flag is set in any process, so that all of them act in the same step."""
    if place.n_processes == 1:
        return flag
    votes = torch.tensor([float(flag)], device=place.device)
    distributed.all_reduce(votes, distributed.ReduceOp.MAX)
    return bool(votes.item())


def wait_for_all(place: Place) -> None:
    """Return when every process has come here."""
    if place.n_processes > 1:
        distributed.barrier()


def mean_over_processes(values: Tensor, place: Place) -> Tensor:
    """Return the mean of a tensor over the processes."""
    if place.n_processes == 1:
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total / place.n_processes
