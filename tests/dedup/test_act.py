"""Spare copies: moved, trashed or linked only while everything is as it was found; never lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_model, make_pictures
from tests.dedup.conftest import DEMO, put
from vit4icd.dedup.act import Action, Deed, carry_out, planned
from vit4icd.dedup.find import find_duplicates
from vit4icd.dedup.result import Duplicates
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.errors import ConfigError
from vit4icd.storage import file_sha256


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> OnnxDescriber:
    return load_describer(make_model(tmp_path_factory.mktemp("model")), n_threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures; the first has two copies of the same bytes, one of them in a sub-folder."""
    folder = tmp_path / "photos"
    (first, *_) = make_pictures(folder, 3)
    (folder / "deeper").mkdir()
    for name in ("copy one.jpg", "deeper/copy.jpg"):
        (folder / name).write_bytes(first.read_bytes())
    os.utime(first, (0, 0))
    return folder


def _found(folder: Path, describer: OnnxDescriber, **options: object) -> Duplicates:
    cache = folder.parent / "cache"
    return find_duplicates([folder], cache, describer, threshold=1.5, **options)  # type: ignore[arg-type]


def _tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def _lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text("utf-8").splitlines()]


def _left(deeds: list[Deed]) -> dict[str, str | None]:
    return {Path(deed.path).name: deed.left_because for deed in deeds}


def test_plans_without_touching_anything(photos: Path, tiny: OnnxDescriber) -> None:
    before = _tree(photos)
    deeds = planned(_found(photos, tiny), "move")
    assert [Path(deed.path).name for deed in deeds] == ["copy one.jpg", "copy.jpg"]
    assert {Path(deed.kept).name for deed in deeds} == {"000.jpg"}
    assert all(deed.is_done for deed in deeds)
    assert _tree(photos) == before


def test_moves_and_can_be_undone(photos: Path, tmp_path: Path, tiny: OnnxDescriber) -> None:
    before, journal = _tree(photos), tmp_path / "journal.jsonl"
    deeds = carry_out(_found(photos, tiny), "move", journal=journal, to=tmp_path / "spare")
    assert sorted(_tree(photos)) == ["000.jpg", "001.jpg", "002.jpg"]
    for deed in deeds:
        assert deed.to == str(tmp_path / "spare" / Path(deed.path).relative_to("/"))
        assert Path(deed.to).read_bytes() == (photos / "000.jpg").read_bytes()
    head, *lines = _lines(journal)
    assert head["format_version"] == 1
    assert [line["state"] for line in lines] == ["begun", "done", "begun", "done"]
    for line in lines:
        if line["state"] == "done":
            subprocess.run(line["undo"], shell=True, check=True)
    assert _tree(photos) == before


def test_never_overwrites_what_is_there(photos: Path, tmp_path: Path, tiny: OnnxDescriber) -> None:
    spare = tmp_path / "spare"
    taken = spare / (photos / "copy one.jpg").relative_to("/")
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"something else")
    deeds = carry_out(_found(photos, tiny), "move", journal=tmp_path / "j", to=spare)
    assert taken.read_bytes() == b"something else"
    assert deeds[0].to == str(taken.with_name("copy one (2).jpg"))


def test_links_files_of_the_same_bytes(photos: Path, tmp_path: Path, tiny: OnnxDescriber) -> None:
    before, journal = _tree(photos), tmp_path / "journal.jsonl"
    carry_out(_found(photos, tiny), "hardlink", journal=journal)
    assert _tree(photos) == before
    assert (photos / "copy one.jpg").samefile(photos / "000.jpg")
    assert (photos / "deeper" / "copy.jpg").samefile(photos / "000.jpg")
    assert not _found(photos, tiny).groups
    subprocess.run(_lines(journal)[2]["undo"], shell=True, check=True)
    assert not (photos / "copy one.jpg").samefile(photos / "000.jpg")
    assert _tree(photos) == before


def test_links_only_files_of_the_same_bytes(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    put("cat", folder / "cat.jpg")
    put("cat", folder / "small.jpg", width=200)
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    before = _tree(folder)
    deeds = carry_out(found, "hardlink", journal=tmp_path / "j")
    assert _left(deeds) == {"small.jpg": "it has other bytes than the kept one"}
    assert planned(found, "hardlink") == deeds
    assert _tree(folder) == before


def test_leaves_what_the_kept_one_cannot_stand_for(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    put("astronaut", folder / "astronaut.jpg")
    (folder / "pasted.jpg").write_bytes((DEMO / "queries" / "q01.jpg").read_bytes())
    found = find_duplicates([folder], tmp_path / "cache", describer, verify=True, n_threads=1)
    deeds = carry_out(found, "move", journal=tmp_path / "j", to=tmp_path / "spare")
    assert _left(deeds) == {"pasted.jpg": "most of it is not in the kept one"}
    assert (folder / "pasted.jpg").exists()


@pytest.mark.parametrize("action", ["move", "hardlink"])
def test_leaves_files_that_changed_or_went(
    action: Action, photos: Path, tmp_path: Path, tiny: OnnxDescriber
) -> None:
    found = _found(photos, tiny)
    (photos / "copy one.jpg").write_bytes(b"written after the search")
    (photos / "deeper" / "copy.jpg").unlink()
    deeds = carry_out(found, action, journal=tmp_path / "j", to=tmp_path / "spare")
    assert _left(deeds) == {
        "copy one.jpg": "it changed after it was found",
        "copy.jpg": "No such file or directory",
    }
    assert (photos / "copy one.jpg").read_bytes() == b"written after the search"
    assert [line["state"] for line in _lines(tmp_path / "j")[1:]] == ["left", "left"]


def _write_again(kept: Path) -> None:
    kept.write_bytes(b"another")


def _write_in_secret(kept: Path) -> None:
    """Change bytes, but neither size nor time."""
    status = kept.stat()
    kept.write_bytes(bytes(status.st_size))
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns))


def _link_elsewhere(kept: Path) -> None:
    kept.rename(kept.with_suffix(".moved"))
    kept.symlink_to(kept.with_suffix(".moved"))


@pytest.mark.parametrize("action", ["move", "hardlink"])
@pytest.mark.parametrize("change", [Path.unlink, _write_again, _write_in_secret, _link_elsewhere])
def test_leaves_all_when_the_kept_one_is_not_as_it_was(
    change: object, action: Action, photos: Path, tmp_path: Path, tiny: OnnxDescriber
) -> None:
    found = _found(photos, tiny)
    change(photos / "000.jpg")  # type: ignore[operator]
    before = _tree(photos)
    deeds = carry_out(found, action, journal=tmp_path / "j", to=tmp_path / "spare")
    assert not any(deed.is_done for deed in deeds)
    assert _tree(photos) == before
    assert not _tree(tmp_path / "spare")


def test_never_follows_a_link_that_took_a_files_place(
    photos: Path, tmp_path: Path, tiny: OnnxDescriber
) -> None:
    """The folder of a copy becomes a link to the folder of the kept one: it is the kept one now."""
    found = _found(photos, tiny)
    (photos / "deeper" / "copy.jpg").unlink()
    (photos / "deeper").rmdir()
    (photos / "copy.jpg").hardlink_to(photos / "000.jpg")
    (photos / "deeper").symlink_to(photos, target_is_directory=True)
    deeds = carry_out(found, "move", journal=tmp_path / "j", to=tmp_path / "spare")
    assert _left(deeds)["copy.jpg"] == "it changed after it was found"
    assert (photos / "000.jpg").exists()
    assert (photos / "copy.jpg").exists()


def test_leaves_what_a_symbolic_link_leads_to(
    photos: Path, tmp_path: Path, tiny: OnnxDescriber
) -> None:
    (photos / "link.jpg").symlink_to(photos / "deeper" / "copy.jpg")
    deeds = carry_out(_found(photos, tiny), "move", journal=tmp_path / "j", to=tmp_path / "spare")
    assert _left(deeds) == {"copy one.jpg": None, "copy.jpg": "a symbolic link leads to it"}
    assert (photos / "link.jpg").exists()


def test_moves_every_name_of_a_hard_linked_file(
    photos: Path, tmp_path: Path, tiny: OnnxDescriber
) -> None:
    (photos / "name two.jpg").hardlink_to(photos / "copy one.jpg")
    deeds = carry_out(_found(photos, tiny), "move", journal=tmp_path / "j", to=tmp_path / "spare")
    assert _left(deeds) == {"copy one.jpg": None, "name two.jpg": None, "copy.jpg": None}
    assert sorted(_tree(photos)) == ["000.jpg", "001.jpg", "002.jpg"]


def test_moves_to_another_disk_by_a_checked_copy(
    photos: Path, tmp_path: Path, tiny: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, replace = _found(photos, tiny), Path.replace

    def on_another_disk(source: Path, target: Path) -> Path:
        if source.is_relative_to(photos):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", on_another_disk)
    deeds = carry_out(found, "move", journal=tmp_path / "j", to=tmp_path / "spare")
    assert all(deed.is_done for deed in deeds)
    assert not (photos / "copy one.jpg").exists()
    assert set(_tree(tmp_path / "spare").values()) == {file_sha256(photos / "000.jpg")}


def test_leaves_the_file_when_the_copy_on_another_disk_differs(
    photos: Path, tmp_path: Path, tiny: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, before = _found(photos, tiny), _tree(photos)

    def on_another_disk(source: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "replace", on_another_disk)
    monkeypatch.setattr(shutil, "copy2", lambda _, target: Path(target).write_bytes(b"cut"))
    deeds = carry_out(found, "move", journal=tmp_path / "j", to=tmp_path / "spare")
    assert set(_left(deeds).values()) == {"its copy on the other disk differs"}
    assert _tree(photos) == before
    assert not _tree(tmp_path / "spare")


def test_puts_a_file_back_when_it_cannot_be_linked(
    photos: Path, tmp_path: Path, tiny: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, before = _found(photos, tiny), _tree(photos)

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", refuse)
    deeds = carry_out(found, "hardlink", journal=tmp_path / "j")
    assert set(_left(deeds).values()) == {"Too many links"}
    assert _tree(photos) == before


def test_refuses_a_target_that_is_searched(
    photos: Path, tmp_path: Path, tiny: OnnxDescriber
) -> None:
    found = _found(photos, tiny)
    for target in (None, photos, photos / "spare"):
        with pytest.raises(ConfigError, match="move to|choose a folder outside"):
            carry_out(found, "move", journal=tmp_path / "j", to=target)
    assert not (tmp_path / "j").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the trash of freedesktop.org")
def test_sends_files_to_the_trash(photos: Path, tmp_path: Path, model: Path) -> None:
    odd = photos / os.fsdecode(b"latin-\xe9\n.jpg")
    odd.write_bytes((photos / "000.jpg").read_bytes())
    code = (
        "import sys; from pathlib import Path; from vit4icd.dedup.act import carry_out;"
        "from vit4icd.dedup.find import find_duplicates;"
        "from vit4icd.describer import load_describer;"
        "photos, work, model = map(Path, sys.argv[1:]);"
        "found = find_duplicates([photos], work / 'cache', load_describer(model), threshold=1.5);"
        "print([deed.left_because for deed in carry_out(found, 'trash', journal=work / 'j')])"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    words = [sys.executable, "-c", code, str(photos), str(tmp_path), str(model)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[None, None, None]\n"
    assert sorted(_tree(photos)) == ["000.jpg", "001.jpg", "002.jpg"]
    trash = home / "data" / "Trash"
    assert {os.fsencode(path.name) for path in (trash / "files").iterdir()} == {
        b"copy one.jpg", b"copy.jpg", b"latin-\xe9\n.jpg",
    }  # fmt: skip
    info = (trash / "info" / "copy.jpg.trashinfo").read_text()
    assert f"Path={photos}/deeper/copy.jpg" in info
    assert _lines(tmp_path / "j")[-1]["undo"].startswith("restore ")


@settings(max_examples=25)
@given(
    layout=st.dictionaries(
        st.sampled_from([f"{folder}{name}.jpg" for folder in ("", "x/", "y/") for name in "abcd"]),
        st.integers(0, 2),
        min_size=1,
    ),
    links=st.lists(st.tuples(st.booleans(), st.integers(0, 11), st.integers(0, 11)), max_size=4),
    action=st.sampled_from(["move", "hardlink"]),
    as_reference=st.booleans(),
)
def test_never_loses_a_picture(
    layout: dict[str, int],
    links: list[tuple[bool, int, int]],
    action: Action,
    as_reference: bool,
    tiny: OnnxDescriber,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever lies where, under whatever links: each content stays, no link comes to dangle."""
    work = tmp_path_factory.mktemp("any")
    originals = [path.read_bytes() for path in make_pictures(work / "originals", 3)]
    photos = work / "photos"
    for part in ("x", "y"):
        (photos / part).mkdir(parents=True)
    for name, number in layout.items():
        (photos / name).write_bytes(originals[number])
    names = sorted(layout)
    for number, (is_hard, source, target) in enumerate(links):
        path = photos / f"link-{number}.jpg"
        if is_hard:
            path.hardlink_to(photos / names[source % len(names)])
        else:
            path.symlink_to(photos / names[target % len(names)])
    before, leading = set(_tree(photos).values()), _tree(photos).keys()
    found = find_duplicates(
        [photos],
        work / "cache",
        tiny,
        references=[photos / "x"] if as_reference and any((photos / "x").iterdir()) else [],
        threshold=1.5,
    )
    references = _tree(photos / "x")
    deeds = carry_out(found, action, journal=work / "j", to=work / "spare")
    assert {deed.left_because for deed in deeds} <= {None, "a symbolic link leads to it"}
    assert {*_tree(photos).values()} == before
    assert all((photos / name).exists() for name in leading if (photos / name).is_symlink())
    assert not as_reference or _tree(photos / "x") == references
    if action == "move":
        moved = [path for path in (work / "spare").rglob("*") if path.is_file()]
        assert len(moved) == sum(deed.is_done for deed in deeds)
