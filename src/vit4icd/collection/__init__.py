"""Collections: references that are kept, added to, searched and looked after, without a server."""

from vit4icd.collection.adding import AddProgress, AddSummary
from vit4icd.collection.checking import Verification
from vit4icd.collection.collection import Collection
from vit4icd.collection.formats import match_fields, matches_table, write_fields
from vit4icd.collection.identity import Info
from vit4icd.collection.pictures import IdFrom, Pictures
from vit4icd.collection.records import Record
from vit4icd.collection.recovery import Recovery, Salvage, drop_damaged, go_back, newest_whole
from vit4icd.collection.searching import Answer, Basis
from vit4icd.collection.table import Snapshot

__all__ = [
    "AddProgress",
    "AddSummary",
    "Answer",
    "Basis",
    "Collection",
    "IdFrom",
    "Info",
    "Pictures",
    "Record",
    "Recovery",
    "Salvage",
    "Snapshot",
    "Verification",
    "drop_damaged",
    "go_back",
    "match_fields",
    "matches_table",
    "newest_whole",
    "write_fields",
]
