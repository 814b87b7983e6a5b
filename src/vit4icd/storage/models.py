"""The model folder's ``model.json``: what a model is, wants and comes from; no weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import vit4icd
from vit4icd.errors import FormatError
from vit4icd.preprocessing import Preprocessing
from vit4icd.storage.files import read_json, write_json

__all__ = ["ModelCard", "file_sha256", "fingerprint", "read_model_card", "write_model_card"]

_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What ``model.json`` says of the model beside it."""

    architecture: Mapping[str, Any]
    """Fields of the network's description, enough to build it again."""
    dim: int
    preprocessing: Preprocessing
    fingerprint: str
    """Identifies weights and preprocessing; descriptors of different fingerprints never mix."""
    files: Mapping[str, str]
    """SHA-256 of each weights file in the folder."""
    provenance: str
    licence: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """The recipe it was trained with."""
    seed: int | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Scores above which a pair is a match at a stated precision, where they were measured."""
    package_version: str = vit4icd.__version__


def fingerprint(
    weights_sha256: str, architecture: Mapping[str, Any], preprocessing: Preprocessing
) -> str:
    """Return 16 hexadecimal digits that change with weights, network or preprocessing."""
    parts = [weights_sha256, dict(architecture), preprocessing.to_json()]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_model_card(folder: Path, card: ModelCard) -> None:
    """Write ``folder/model.json``."""
    fields = asdict(card) | {"preprocessing": card.preprocessing.to_json()}
    write_json(folder / "model.json", {"format_version": _FORMAT_VERSION, **fields})


def read_model_card(folder: Path) -> ModelCard:
    """Read ``folder/model.json``.

    Raises:
        FormatError: it is missing, malformed or of a newer version.
    """
    fields = read_json(folder / "model.json")
    try:
        version = fields.pop("format_version")
        if version > _FORMAT_VERSION:
            raise FormatError(
                f"{folder} has model format {version}; this version reads up to {_FORMAT_VERSION}"
            )
        if not isinstance(fields["files"], dict):
            raise TypeError("its files are no JSON object")
        preprocessing = Preprocessing.from_json(fields.pop("preprocessing"))
        return ModelCard(preprocessing=preprocessing, **fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise FormatError(f"{folder}/model.json is not a model description: {error}") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
