"""Back to the newest whole version, where a power cut left a later one cut short; it mends none."""

from dataclasses import dataclass
from pathlib import Path

from vit4icd.collection.checking import verify
from vit4icd.collection.table import Table
from vit4icd.errors import ConfigError, DataError, StoreError, Vit4icdError
from vit4icd.storage import flush

__all__ = ["Recovery", "recover"]

_ASIDE = "_cut"  # folder within the collection for what is taken out of it
_NEWEST = 2**64 - 1  # less the number of a version, this is the name of its manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """Which version of a collection is whole, and what is wrong with those after it."""

    version: int
    """The newest whole one."""
    n_images: int
    cut: dict[int, str]
    """Later versions, with what is wrong with each; none where nothing is to be recovered."""
    done: bool
    """Whether the collection was taken back to it."""


def recover(uri: str | Path, *, dry_run: bool = False) -> Recovery:
    """Make the newest whole version of a collection the newest of all.

    A power cut in the middle of a commit may leave a version whose files are empty or missing,
    though all that was acknowledged before is whole in the version before. What the later versions
    alone hold is put aside, in the folder ``_cut`` of the collection. Nothing may write to it
    meanwhile. With ``dry_run`` nothing is changed.

    Raises:
        ConfigError: an object store, whose files are whole or not there at all.
        StoreError: there is no collection.
        DataError: no version is whole.
    """
    if "://" in str(uri):
        raise ConfigError(f"{uri} is no folder on a disk; go back with: vit4icd index restore")
    if not Table.exists(str(uri)):
        raise StoreError(f"there is no collection at {uri}")
    manifests = _manifests(Path(uri))
    cut: dict[int, str] = {}
    for version in sorted(manifests, reverse=True):
        n_images, problem = _looked_at(str(uri), version)
        if problem is None:
            if not dry_run:
                _put_aside(Path(uri), [manifests[later] for later in cut])
            return Recovery(version=version, n_images=n_images, cut=cut, done=not dry_run)
        cut[version] = problem
    said = "; ".join(f"version {version}: {problem}" for version, problem in cut.items())
    raise DataError(f"no version of the collection {uri} is whole; bring back a copy of it: {said}")


def _manifests(folder: Path) -> dict[int, Path]:
    """Return the file of each version by its number."""
    paths = (folder / "_versions").glob("*.manifest")
    return {_NEWEST - int(path.stem): path for path in paths if path.stem.isdigit()}


def _looked_at(uri: str, version: int) -> tuple[int, str | None]:
    """Return how many pictures a version holds, and the first thing that is wrong with it."""
    try:
        found = verify(Table(uri, version=version), features=False)
    except Vit4icdError as error:
        return 0, str(error)
    return found.n_images, next(iter(found.problems), None)


def _put_aside(folder: Path, manifests: list[Path]) -> None:
    if not manifests:
        return
    aside = folder / _ASIDE
    aside.mkdir(exist_ok=True)
    for manifest in manifests:
        manifest.replace(aside / manifest.name)
    for changed in (aside, folder / "_versions", folder):
        flush(changed)
