"""The numbers of a table's versions, by the names of its files on this machine; it opens none."""

import json
from pathlib import Path

__all__ = ["is_free", "last_number", "manifests"]

_LAST = Path("_versions", "latest_version_hint.json")
_WRITTEN_FIRST = {"data": ".lance", "_transactions": ".txn", "_versions": None}
"""Folders that are there before the first version is, and the files in them."""
_NEWEST = 2**64 - 1  # less the number of a version, this is the name of its manifest


def manifests(folder: Path) -> dict[int, Path]:
    """Return the manifest of each version in a folder, by its number."""
    paths = ((path.name.partition(".")[0], path) for path in folder.glob("*.manifest*"))
    return {_NEWEST - int(stem): path for stem, path in paths if stem.isdigit()}


def last_number(table: Path) -> int:
    """Return the number of the version that was committed last; 0 where nothing says it.

    Its manifest may be lost; a newer version may have been committed, but not be noted yet.
    """
    try:
        return int(json.loads((table / _LAST).read_bytes())["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def is_free(folder: Path) -> bool:
    """Return whether a collection can be made here: there is nothing, or what a kill left."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.suffix == _WRITTEN_FIRST.get(path.relative_to(folder).parts[0])
        or path.name in _WRITTEN_FIRST
        for path in folder.rglob("*")
    )
