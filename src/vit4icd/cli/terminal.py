"""What verbs show: progress and remarks on stderr, tables on stdout."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

__all__ = ["Advance", "bar", "counted", "n_columns", "print_table", "say", "shown", "talk"]

_WIDE = 10_000  # columns of a table that no terminal shows, so that nothing is cut off

_STRAY = 0xDC00  # where Python keeps bytes that are no UTF-8

talk = Console(stderr=True, highlight=False)
"""Where remarks go; it honours NO_COLOR and draws nothing when it is no terminal."""

Advance = Callable[[int, int, str], None]
"""Told what is done, of how much, and a remark."""


@contextmanager
def bar(what: str, quiet: bool, *, with_lines: bool = False) -> Iterator[Advance]:
    """Draw progress on a terminal; elsewhere, and when quiet, draw nothing.

    Nor where lines of data come meanwhile, and to a terminal, too: they would mix.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    shown = talk.is_terminal and not quiet and not (with_lines and sys.stdout.isatty())
    with Progress(
        *columns, console=talk, disable=not shown, transient=True, redirect_stdout=False
    ) as progress:
        task = progress.add_task(what, total=None, remark="")
        yield lambda done, total, remark: progress.update(
            task, completed=done, total=total, remark=remark
        )


def counted(n: int, thing: str) -> str:
    """Return how many things there are, in words that fit one of them, too.

    Example:
        >>> counted(1, "picture"), counted(0, "file")
        ('1 picture', '0 files')
    """
    return f"{n} {thing}" + "s" * (n != 1)


def say(quiet: bool, text: str) -> None:
    """Write a remark, unless the user asked for quiet."""
    if not quiet:
        talk.print(text, markup=False, soft_wrap=True)


def n_columns(out: Path | None) -> int:
    """Return how wide a table can be: as the terminal, or so that every row is one line."""
    return _console().width if out is None and sys.stdout.isatty() else _WIDE


def print_table(table: Table, out: Path | None, lines: Sequence[str] = ()) -> None:
    """Print to a terminal at its width, with long cells folded; elsewhere, each row is one line."""
    for column in table.columns:
        column.overflow = "fold"
    if out is None:
        _draw(_console(width=n_columns(out)), table, lines)
        return
    from vit4icd.storage import atomic_path

    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        _draw(_console(file=file, width=_WIDE), table, lines)


def shown(name: str) -> str:
    r"""Return a name that any terminal can print: control and stray bytes are escaped.

    Example:
        >>> print(shown("a\n" + b"\xe9.jpg".decode("utf-8", "surrogateescape")))
        a\n\xe9.jpg
    """
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in name)


def _escaped(sign: str) -> str:
    """Return how Python writes a sign; of a stray byte, which it holds as U+DC80 on, the byte."""
    code = ord(sign) - _STRAY
    return f"\\x{code:02x}" if 0x80 <= code <= 0xFF else repr(sign)[1:-1]


def _console(**options: Any) -> Console:
    """Return a console that prints names as they are."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def _draw(console: Console, table: Table, lines: Sequence[str]) -> None:
    if table.row_count:
        console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True)
