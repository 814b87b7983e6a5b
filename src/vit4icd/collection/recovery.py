"""What is whole of a damaged collection, brought back: a version, or files; it mends none."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vit4icd.collection.blocks import File, files_of
from vit4icd.collection.checking import verify
from vit4icd.collection.failures import without_hint
from vit4icd.collection.rows import Seal, seal_of
from vit4icd.collection.table import Table
from vit4icd.collection.versions import last_number, manifests
from vit4icd.errors import ConfigError, DataError, StoreError, Vit4icdError
from vit4icd.storage import flush

__all__ = ["Recovery", "Salvage", "drop_damaged", "go_back", "newest_whole"]

_ASIDE = "_cut"  # folder within the collection for the manifests and tags that are taken out of it
_TAGS = Path("_refs", "tags")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """Which version of a collection is whole, and what cannot be read of what came after it."""

    version: int
    """The newest whole one."""
    n_images: int
    cut: Mapping[int, str]
    """Later versions, the newest first, with what is wrong with each."""
    lost: tuple[str, ...]
    """Snapshots that cannot be read, or hold a version that is cut or gone."""

    @property
    def is_needed(self) -> bool:
        """Whether anything cannot be read."""
        return bool(self.cut or self.lost)


@dataclass(frozen=True, kw_only=True, slots=True)
class Salvage:
    """What a collection holds without its damaged files."""

    version: int
    n_images: int
    n_lost: int
    """Pictures that were in those files."""
    dropped: Mapping[str, str]
    """The files by name, with what is wrong with each."""
    cut: Mapping[int, str]
    """Later versions that cannot be opened: what they added or removed is lost."""


def newest_whole(uri: str | Path) -> Recovery:
    """Find the newest whole version of a collection in a folder; nothing is changed.

    A power cut in the middle of a commit may leave a version whose files are empty or missing,
    though all that was acknowledged before is whole in the version before.

    Raises:
        ConfigError: an object store, whose files are whole or not there at all.
        StoreError: there is no collection.
        DataError: no version is whole.
    """
    return _newest(
        uri,
        _checked,
        "is whole; bring back a copy of it, or go on without the files that are damaged: "
        f"vit4icd index recover {uri} --drop-damaged",
    )


def go_back(uri: str | Path, version: int) -> int:
    """Make the newest whole version the newest of all, and return its new number.

    The new number is above all that were ever given, so that nobody takes one version for another.
    Manifests of versions that are cut, and lost snapshots, go to the folder ``_cut`` of the
    collection; a later :meth:`Collection.compact` frees the rows that they alone hold. Nothing may
    write to the collection meanwhile.

    Raises:
        ConfigError: not the newest whole version, or an object store.
        StoreError: there is no collection, or it cannot be written.
        DataError: no version is whole.
    """
    found = newest_whole(uri)
    if version != found.version:
        raise ConfigError(f"the newest whole version of {uri} is {found.version}, not {version}")
    return _gone_back(uri, found)


def drop_damaged(uri: str | Path) -> Salvage:
    """Go on without the files that cannot be read, in a new version that holds the others.

    Versions that cannot be opened are given up as by :func:`go_back`. Rows that can be read, but
    are damaged, stay for :meth:`Collection.verify` to name. Nothing may write to the collection
    meanwhile.

    Raises:
        ConfigError: an object store.
        StoreError: there is no collection, or it cannot be written.
        DataError: no version can be opened.
    """
    opened = _newest(uri, _opened, "can be opened; bring back a copy of it")
    _gone_back(uri, opened)
    table = Table(str(uri), checked=False)
    seal, n_rows, dropped = Seal(), 0, {}
    for file in files_of(table):
        try:
            found, n_found = _counted(file)
        except Vit4icdError as error:
            dropped[file] = without_hint(str(error))
        else:
            seal, n_rows = seal.plus(found), n_rows + n_found
    has_seal = n_rows > seal.n_rows  # one row more than there are pictures
    n_lost = sum(file.n_rows for file in dropped) - (not has_seal)
    if dropped or not _is_sealed(table, seal):
        table.drop([file.number for file in dropped], seal)
    return Salvage(
        version=table.version,
        n_images=seal.n_rows,
        n_lost=n_lost,
        dropped={file.name: problem for file, problem in dropped.items()},
        cut=opened.cut,
    )


def _newest(
    uri: str | Path, look: Callable[[str, int], tuple[int, str | None]], wanted: str
) -> Recovery:
    """Return the newest version in which a look at its pictures finds nothing wrong."""
    if "://" in str(uri):
        raise ConfigError(f"{uri} is no folder on a disk; go back with: vit4icd index restore")
    there = manifests(Path(uri, "_versions"))
    if not there:
        raise StoreError(f"there is no collection at {uri}")
    last = last_number(Path(uri))
    cut = {last: "it is lost"} if last > max(there) else {}
    for version in sorted(there, reverse=True):
        n_images, problem = look(str(uri), version)
        if problem is None:
            tags, left = _tagged(Path(uri, _TAGS)), there.keys() - cut.keys()
            lost = tuple(name for name, at in tags.items() if at not in left)
            return Recovery(version=version, n_images=n_images, cut=cut, lost=lost)
        cut[version] = problem
    said = "; ".join(f"version {version}: {problem}" for version, problem in cut.items())
    raise DataError(f"no version of the collection {uri} {wanted}; {said}")


def _checked(uri: str, version: int) -> tuple[int, str | None]:
    """Return how many pictures a version holds, and the first thing that is wrong with it."""
    try:
        found = verify(Table(uri, version=version), thorough=False)
    except Vit4icdError as error:
        return 0, without_hint(str(error))
    problem = next(iter(found.problems), None)
    return found.n_images, None if problem is None else without_hint(problem)


def _opened(uri: str, version: int) -> tuple[int, str | None]:
    """Return how many rows a version is said to hold, and why it cannot be opened."""
    try:
        files = files_of(Table(uri, version=version, checked=False))
    except Vit4icdError as error:
        return 0, without_hint(str(error))
    return sum(file.n_rows for file in files), None


def _counted(file: File) -> tuple[Seal, int]:
    """Return the seal of the pictures in a file, and how many rows there are."""
    file.require_whole()
    seal, n_rows = Seal(), 0
    for rows in file.rows():
        seal, n_rows = seal.plus(seal_of(rows)), n_rows + len(rows)
    return seal, n_rows


def _is_sealed(table: Table, seal: Seal) -> bool:
    try:
        return table.seal() == seal
    except Vit4icdError:
        return False


def _gone_back(uri: str | Path, found: Recovery) -> int:
    """Make a version the newest, if it is not, and return its number."""
    if not found.is_needed:
        return found.version
    folder = Path(uri)
    there, tags = manifests(folder / "_versions"), folder / _TAGS
    tagged = {at for at in _tagged(tags).values() if at is not None}
    given = there.keys() | found.cut.keys() | manifests(folder / _ASIDE).keys() | tagged
    _put_aside(
        folder,
        [
            *(there[number] for number in found.cut if number in there),
            *(tags / f"{name}.json" for name in found.lost),
        ],
    )
    return Table(str(uri), checked=False).go_back(found.version, above=max(given))


def _tagged(folder: Path) -> dict[str, int | None]:
    """Return the version of each snapshot; None where that cannot be read."""
    found: dict[str, int | None] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = int(json.loads(path.read_bytes())["version"])
        except (OSError, ValueError, LookupError, TypeError):
            found[path.stem] = None
    return found


def _put_aside(folder: Path, paths: list[Path]) -> None:
    aside = folder / _ASIDE
    aside.mkdir(exist_ok=True)
    for path in paths:
        names = (f"{path.name}.{number}" for number in range(1, 1_000_000))
        free = next(name for name in names if not (aside / name).exists())
        path.rename(aside / free)
    for changed in {aside, folder, *(path.parent for path in paths)}:
        flush(changed)
