"""Copies among files: groups, the copy worth keeping, what becomes of the others, and leaks."""

from vit4icd.dedup.act import Action, Deed, carry_out, planned, require_target
from vit4icd.dedup.files import PictureFile
from vit4icd.dedup.find import find_duplicates
from vit4icd.dedup.leaks import Leaks, find_leaks
from vit4icd.dedup.page import groups_page, leaks_page, shown_bytes
from vit4icd.dedup.result import Duplicates, Group, Member

__all__ = [
    "Action",
    "Deed",
    "Duplicates",
    "Group",
    "Leaks",
    "Member",
    "PictureFile",
    "carry_out",
    "find_duplicates",
    "find_leaks",
    "groups_page",
    "leaks_page",
    "planned",
    "require_target",
    "shown_bytes",
]
