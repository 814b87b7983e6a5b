"""What every verb shows on a terminal: progress and remarks, all on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["Advance", "bar", "say", "talk"]

talk = Console(stderr=True, highlight=False)
"""Where remarks go; it honours NO_COLOR and draws nothing when it is no terminal."""

Advance = Callable[[int, int, str], None]
"""Told what is done, of how much, and a remark."""


@contextmanager
def bar(what: str, quiet: bool) -> Iterator[Advance]:
    """Draw progress on a terminal; elsewhere, and when quiet, draw nothing."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    shown = talk.is_terminal and not quiet
    with Progress(*columns, console=talk, disable=not shown, transient=True) as progress:
        task = progress.add_task(what, total=None, remark="")
        yield lambda done, total, remark: progress.update(
            task, completed=done, total=total, remark=remark
        )


def say(quiet: bool, text: str) -> None:
    """Write a remark, unless the user asked for quiet."""
    if not quiet:
        talk.print(text, markup=False, soft_wrap=True)
