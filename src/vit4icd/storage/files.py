"""Whole files, which appear complete or not at all, and names in JSON; it knows no other format."""

import base64
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit4icd.errors import FormatError, StoreError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "atomic_path",
    "flush",
    "name_fields",
    "read_json",
    "read_name",
    "sole_writer",
    "write_json",
]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it into place when the block succeeds.

    The content is flushed to the disk first. When the block raises, the temporary file goes and
    what was at ``path`` stays. Each call has a path of its own, so that several may write one file
    at once; the last one's stays. A link's target is written, and a device or pipe, which nothing
    can take the place of, is given as it is.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other runs from writing a folder, which is made if it is missing; a kill lets go of it.

    On Windows nobody is kept from it.

    Raises:
        StoreError: another run is writing it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = os.stat(folder).st_ino == os.fstat(descriptor).st_ino  # noqa: PTH116
        except (BlockingIOError, FileNotFoundError):
            is_there = False  # or another run has finished, and removed it, just now
        if not is_there:
            raise StoreError(
                f"another run is writing {folder}; wait until it has ended, or write elsewhere"
            )
        yield
    finally:
        os.close(descriptor)


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


def name_fields(key: str, name: str) -> dict[str, str]:
    r"""Return a file name as JSON fields; one that is not UTF-8 is given in base64 as well.

    Example:
        >>> name_fields("path", os.fsdecode(b"\xe9.jpg"))
        {'path': '�.jpg', 'path_base64': '6S5qcGc='}
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raw = os.fsencode(name)
        text = base64.b64encode(raw).decode("ascii")
        return {key: raw.decode("utf-8", "replace"), f"{key}_base64": text}
    return {key: name}


def read_name(key: str, fields: Mapping[str, Any]) -> str:
    """Return the file name that :func:`name_fields` gave."""
    encoded = fields.get(f"{key}_base64")
    return str(fields[key]) if encoded is None else os.fsdecode(base64.b64decode(encoded))


def flush(path: Path) -> None:
    """Flush a file, or on POSIX a folder's entries, to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
