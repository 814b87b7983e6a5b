"""Write docs/edits.md from the edits themselves: python scripts/document_edits.py"""

from pathlib import Path

from vit4icd.edits import EDITS, HELD_OUT_EDITS, OFFICIAL_EDITS

PAGE = Path(__file__).parents[1] / "docs" / "edits.md"
HEAD = """# The edits

Every edit draws its parameters apart from applying them, from a generator that is passed in, so
that a copy can be made again from its plan (names and parameters, plain JSON). Neighbouring moves
are composed into one warp. `vit4icd edits PICTURE --out sheet.png` shows all of them.

The 24 edits marked *official* are those of ViT4ICD's training set, with their parameter ranges.
Those marked *held out* are never trained on by any recipe, so that robustness to edits that a model
has not seen can be reported. Written by `scripts/document_edits.py`.

| edit | family | what it does | parameters at full strength | |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page as it should be."""
    return HEAD + "".join(map(_row, EDITS))


def _row(name: str) -> str:
    edit = EDITS[name]
    applied = edit.pixels or edit.mix or edit.matrix
    kind = "official" if name in OFFICIAL_EDITS else "held out" if name in HELD_OUT_EDITS else ""
    does, draws = (_sentence(function.__doc__) for function in (applied, edit.draw) if function)
    return f"| `{name}` | {edit.family} | {does} | {draws} | {kind} |\n"


def _sentence(docstring: str | None) -> str:
    return " ".join((docstring or "").split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
