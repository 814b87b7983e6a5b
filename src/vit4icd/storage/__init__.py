"""Every file format, read and written in one place; writes are atomic, versions are checked."""

from vit4icd.storage.descriptors import (
    IdRule,
    map_descriptors,
    official_id,
    read_descriptors,
    write_descriptors,
)
from vit4icd.storage.files import (
    atomic_path,
    flush,
    name_fields,
    read_json,
    read_name,
    sole_writer,
    write_json,
)
from vit4icd.storage.journal import DescriptorWriter
from vit4icd.storage.models import (
    ModelCard,
    file_sha256,
    fingerprint,
    read_model_card,
    write_model_card,
)
from vit4icd.storage.tables import read_pairs, read_truth, write_pairs

__all__ = [
    "DescriptorWriter",
    "IdRule",
    "ModelCard",
    "atomic_path",
    "file_sha256",
    "fingerprint",
    "flush",
    "map_descriptors",
    "name_fields",
    "official_id",
    "read_descriptors",
    "read_json",
    "read_model_card",
    "read_name",
    "read_pairs",
    "read_truth",
    "sole_writer",
    "write_descriptors",
    "write_json",
    "write_model_card",
    "write_pairs",
]
