"""The kinds of arguments that verbs take, and how the help shows them; it reads none."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

__all__ = [
    "Device",
    "Flag",
    "Format",
    "Json",
    "MaybeCount",
    "MaybeDevice",
    "MaybeNumber",
    "MaybePath",
    "MaybeText",
    "MaybeThreshold",
    "Out",
    "Pictures",
    "Place",
]

# What is left out speaks for itself in the text: no "(default: None)" after it.
Device = Literal["auto", "cpu", "cuda"]
Flag = Annotated[bool, arg(help_behavior_hint="")]
Format = Literal["table", "json", "jsonl", "csv", "parquet"]
Json = Annotated[bool, arg(name="json", help_behavior_hint="")]
MaybeCount = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
MaybeDevice = Annotated[
    Device | None, arg(metavar="{auto,cpu,cuda}", help_behavior_hint="(default: auto)")
]
MaybeNumber = Annotated[float | None, arg(metavar="NUMBER", help_behavior_hint="")]
MaybePath = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
MaybeText = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
MaybeThreshold = Annotated[str | None, arg(metavar="STR", help_behavior_hint="(default: auto)")]
Out = Annotated[Path | None, arg(aliases=["-o"], metavar="PATH", help_behavior_hint="")]
Pictures = Annotated[
    Positional[tuple[Path, ...]], arg(metavar="[PICTURE ...]", help_behavior_hint="")
]
Place = Annotated[Positional[str], arg(metavar="COLLECTION")]
