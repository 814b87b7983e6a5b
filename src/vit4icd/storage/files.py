"""Whole files: they appear complete or not at all; it knows no format but JSON."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit4icd.errors import FormatError

__all__ = ["atomic_path", "read_json", "write_json"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it into place when the block succeeds.

    The content is flushed to the disk first. When the block raises, the temporary file goes and
    what was at ``path`` stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; floats keep their precision."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8", errors="surrogateescape")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FormatError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8", errors="surrogateescape"))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}") from error


def _flush(path: Path) -> None:
    """Flush a file, or on POSIX a folder's entries, to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
