"""What a collection says of itself: which model it belongs to, since when, what it holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import vit4icd
from vit4icd.collection.table import Snapshot, Table
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import MismatchError

__all__ = ["Info", "identity_of", "info_of", "require_own"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """What a collection is and holds."""

    uri: str
    n_images: int
    n_parts: int
    """Parts of the pictures that are described beside them."""
    dim: int
    model: str
    fingerprint: str
    created: datetime
    package_version: str
    format_version: int
    version: int
    snapshots: tuple[Snapshot, ...]


def identity_of(describer: OnnxDescriber) -> Mapping[str, Any]:
    """Return what is written into a collection that is made now, for this model."""
    return {
        "package_version": vit4icd.__version__,
        "fingerprint": describer.fingerprint,
        "model": str(describer.folder),
        "preprocessing": describer.preprocessing.to_json(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def info_of(table: Table) -> Info:
    """Return what a collection is and holds."""
    metadata, seal = table.metadata, table.seal()
    return Info(
        uri=table.uri,
        n_images=seal.n_rows,
        n_parts=seal.n_parts,
        dim=metadata["dim"],
        model=metadata["model"],
        fingerprint=metadata["fingerprint"],
        created=datetime.fromisoformat(metadata["created"]),
        package_version=metadata["package_version"],
        format_version=metadata["format_version"],
        version=table.version,
        snapshots=tuple(table.snapshots()),
    )


def require_own(table: Table, describer: OnnxDescriber) -> None:
    """Refuse another model than that which a collection was made with.

    Raises:
        MismatchError: it is another.
    """
    metadata = table.metadata
    if describer.fingerprint != metadata["fingerprint"]:
        raise MismatchError(
            f"the collection {table.uri} was made with the model "
            f"{metadata['model']} ({metadata['fingerprint']}), not {describer.folder} "
            f"({describer.fingerprint}); name its own with --model, or build a new collection "
            "from the pictures: vit4icd index add NEW PICTURES"
        )
