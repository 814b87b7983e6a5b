"""The house itself: small rooms, documented verbs and fields, a light front door."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vit4icd
from vit4icd import cli

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "data" / "golden"
ROOMS = sorted((ROOT / "src" / "vit4icd").rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT / "src" / "vit4icd"))


@pytest.mark.parametrize("room", ROOMS, ids=_name)
def test_keeps_rooms_and_functions_small(room: Path) -> None:
    text = room.read_text("utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.body[0].lineno
            docstring = ast.get_docstring(node) or ""
            assert length - docstring.count("\n") <= 60, node.name


@pytest.mark.parametrize("room", ROOMS, ids=_name)
def test_says_in_one_sentence_what_a_room_is_for(room: Path) -> None:
    docstring = ast.get_docstring(ast.parse(room.read_text("utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?"))


def test_the_command_imports_nothing_heavy_before_it_knows_the_verb() -> None:
    code = "import sys, vit4icd.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"cv2", "faiss", "fastapi", "h5py", "lance", "numpy", "onnxruntime", "PIL", "torch"}
    assert heavy.isdisjoint(done.stdout.split())


def test_works_without_the_training_wing() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; "
        "import vit4icd.extract, vit4icd.evaluate, vit4icd.demo, vit4icd.scores"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documents_every_verb_and_option() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    readme = "".join(page.read_text("utf-8") for page in pages)
    for verb, function in cli.VERBS.items():
        assert f"vit4icd {verb}" in readme, verb
        docstring = function.__doc__ or ""
        for name in function.__annotations__.keys() - {"return"}:
            assert f"    {name}: " in docstring, (verb, name)


def test_pins_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    needs = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        needs += extra
    names = {re.split(r"[<>=\[; ]", need)[0].lower() for need in needs}
    assert names - {"vit4icd"} <= pinned
    assert project["version"] == vit4icd.__version__


def test_shows_the_two_commands_first() -> None:
    first = (ROOT / "README.md").read_text("utf-8").split("\n## ")[0]
    assert "make demo" in first
    assert "make test" in first


def _public_names() -> str:
    return "".join(f"{_name(room)}: {' '.join(_exported(room))}\n" for room in ROOMS)


def _exported(room: Path) -> list[str]:
    for node in ast.parse(room.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def test_keeps_its_public_names() -> None:
    """A change here breaks someone: say so in CHANGELOG.md, then run scripts/golden.py."""
    assert _public_names() == (GOLDEN / "public_names.txt").read_text("utf-8")


def test_takes_only_public_names_of_other_rooms() -> None:
    public = {_module(room): set(_exported(room)) for room in ROOMS}
    for room in ROOMS:
        for node in ast.walk(ast.parse(room.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (names := public.get(node.module or "")):
                others = {each.name for each in node.names} - names
                assert all(f"{node.module}.{name}" in public for name in others), room


def _module(room: Path) -> str:
    parts = ("vit4icd", *Path(_name(room)).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def help_file(verb: str) -> str:
    return f"help-{verb.replace(' ', '-') or 'all'}.txt"


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_keeps_its_help(verb: str) -> None:
    words = [sys.executable, "-m", "vit4icd", *verb.split(), "--help"]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == (GOLDEN / help_file(verb)).read_text("utf-8")


def test_documents_the_edits_as_they_are() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from document_edits import page
    finally:
        sys.path.pop(0)
    assert page() == (ROOT / "docs" / "edits.md").read_text("utf-8")


def test_lists_every_room_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for room in ROOMS:
        parts = room.relative_to(ROOT / "src" / "vit4icd").parts
        if room.name.startswith("__") or (len(parts) > 1 and parts[0] != "train"):
            continue
        assert room.name in page, room


def test_names_the_licence_of_every_demo_picture() -> None:
    folder = ROOT / "src" / "vit4icd" / "demo"
    licences = (folder / "LICENCES.md").read_text("utf-8")
    for path in (folder / "photographs").iterdir():
        assert f"| {path.stem} |" in licences
