"""A copy of what a service wrote, made while it runs; it knows no collection."""

import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from vit4icd.errors import ConfigError, StoreError
from vit4icd.service.database import DATABASE, copy_database
from vit4icd.service.previews import PREVIEWS
from vit4icd.storage import flush

__all__ = ["back_up"]


def back_up(data: Path, out: Path) -> int:
    """Copy decisions, queue and previews to a new folder, which ``--data`` takes as it is.

    The folder appears once it is whole. The .tar files of jobs that are not done are left out: what
    restores it sends those again; and so is the secret of sessions: people log in again. Returns
    how many previews were copied.

    Raises:
        ConfigError: there is something at ``out`` already, or no service wrote ``data``.
        StoreError: a file cannot be read or written.
        FormatError: the decisions are damaged.
    """
    source = data / DATABASE
    if out.exists():
        raise ConfigError(f"{out} is there already; name a folder that is not")
    if not source.is_file():
        raise ConfigError(f"{data} holds no {DATABASE}; name the service's collection, or --data")
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        copy_database(source, temporary / DATABASE)
        n_previews = _copy_previews(data / PREVIEWS, temporary / PREVIEWS)
        flush(temporary)
        temporary.rename(out)
        flush(out.parent)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return n_previews


def _copy_previews(folder: Path, out: Path) -> int:
    """Copy the previews, after the decisions that show them; some may go meanwhile."""
    n_copied = 0
    for path in folder.glob("??/*.jpg"):
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.copy2(path, target)
            n_copied += 1
    return n_copied
