"""The image edits that copies meet, each drawn apart from applied, all from passed generators."""

from vit4icd.edits.plan import (
    Donors,
    EditConfig,
    EditPlan,
    apply_plan,
    draw_plan,
    edited_copy,
    official_config,
    robust_config,
)
from vit4icd.edits.sheet import contact_sheet
from vit4icd.edits.table import (
    EDITS,
    HELD_OUT_EDITS,
    OFFICIAL_EDITS,
    PASTE_EDITS,
    TRAINING_EDITS,
    Edit,
)

__all__ = [
    "EDITS",
    "HELD_OUT_EDITS",
    "OFFICIAL_EDITS",
    "PASTE_EDITS",
    "TRAINING_EDITS",
    "Donors",
    "Edit",
    "EditConfig",
    "EditPlan",
    "apply_plan",
    "contact_sheet",
    "draw_plan",
    "edited_copy",
    "official_config",
    "robust_config",
]
