"""Groups of copies: found, kept by the best, told apart, and never chained or guessed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_model, make_pictures
from tests.dedup.conftest import DEMO, photograph, put, put_plain
from vit4icd.dedup.cache import Cache
from vit4icd.dedup.find import find_duplicates
from vit4icd.dedup.result import Duplicates, Group
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.errors import ConfigError, DataError, ImageError
from vit4icd.images import read_image, write_image


def _names(group: Group) -> list[str]:
    return [Path(member.file.path).name for member in group.members]


def _groups(found: Duplicates) -> list[list[str]]:
    return [_names(group) for group in found.groups]


def test_finds_copies_and_keeps_the_best(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    put("cat", folder / "cat.jpg")
    put("cat", folder / "cat-again.jpg")
    put("cat", folder / "cat-small.png", width=200)
    put("brook", folder / "brook-coded.jpg", width=640, quality=40)
    put("brook", folder / "brook.jpg")
    for name in ("clock", "fig", "dogs", "peaks", "wine"):
        put(name, folder / f"{name}.jpg")
    for name in ("brook", "brook-coded"):
        os.utime(folder / f"{name}.jpg", (1, 1))
    os.utime(folder / "cat.jpg", (0, 0))
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    assert _groups(found) == [
        ["brook.jpg", "brook-coded.jpg"],
        ["cat.jpg", "cat-again.jpg", "cat-small.png"],
    ]
    brook, cat = found.groups
    assert brook.kept[0].reason.startswith("most bytes: ")
    assert cat.kept[0].reason == "oldest file: 1970-01-01 00:00 UTC"
    again, small = cat.spare
    assert again.reason == "same bytes"
    assert again.match is not None
    assert again.match.verdict == "exact"
    assert small.match is not None
    assert (small.match.verdict, small.match.verified) == ("copy", False)
    assert {small.match.query, small.match.reference} == {cat.kept[0].file.path, small.file.path}
    assert found.n_spare == 3
    assert found.n_spare_bytes == sum(
        member.file.stamp.size for member in (*brook.spare, *cat.spare)
    )


def test_describes_nothing_again_for_another_threshold(
    folder: Path, tmp_path: Path, describer: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("cat", folder / "cat.jpg")
    put("cat", folder / "small.jpg", width=160)
    first = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)

    def never(pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("described again")

    monkeypatch.setattr(describer, "describe", never)
    again = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    assert again == first
    strict = find_duplicates([folder], tmp_path / "cache", describer, threshold=1.5, n_threads=1)
    assert (len(first.groups), len(strict.groups)) == (1, 0)


def test_proves_pairs_if_asked(folder: Path, tmp_path: Path, describer: OnnxDescriber) -> None:
    put("coffee", folder / "coffee.jpg")
    put("coffee", folder / "small.jpg", width=300)
    for name in ("clock", "fig", "dogs"):
        put(name, folder / f"{name}.jpg")
    found = find_duplicates([folder], tmp_path / "cache", describer, verify=True, n_threads=1)
    assert _groups(found) == [["coffee.jpg", "small.jpg"]]
    match = found.groups[0].spare[0].match
    assert match is not None
    assert match.overlap is not None
    assert match.verified
    assert found.groups[0].spare[0].reason.startswith("proven: ")
    assert found.groups[0].spare[0].caution is None
    assert json.loads(json.dumps(found.to_json()))["groups"][0]["members"][1]["match"]["overlap"]


def test_warns_where_the_kept_one_was_altered(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    """The defaced copy has as many pixels and is older: it is kept, but nothing goes for it."""
    put("astronaut", folder / "astronaut.jpg")
    image = read_image(photograph("astronaut"))
    image[200:260, 100:160] = 0
    write_image(folder / "defaced.jpg", image, suffix=".jpg", quality=95)
    os.utime(folder / "defaced.jpg", (0, 0))
    found = find_duplicates([folder], tmp_path / "cache", describer, verify=True, n_threads=1)
    assert _groups(found) == [["defaced.jpg", "astronaut.jpg"]]
    assert found.groups[0].spare[0].caution == "their pixels differ visibly"


def test_does_not_take_what_could_not_be_tried_for_disproven(
    folder: Path, tmp_path: Path, describer: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("coffee", folder / "coffee.jpg")
    put("coffee", folder / "small.jpg", width=300)

    def gone(files: object) -> bytes:
        raise ImageError("changed", "it changed after it was hashed")

    monkeypatch.setattr("vit4icd.dedup.links.read_content", gone)
    found = find_duplicates([folder], tmp_path / "cache", describer, verify=True, n_threads=1)
    match = found.groups[0].spare[0].match
    assert match is not None
    assert (match.verdict, match.overlap, match.verified) == ("copy", None, False)


@pytest.mark.parametrize(("most", "is_cut"), [(1, True), (3, False), (4, False)])
def test_says_that_pairs_were_cut_only_where_some_were(
    folder: Path,
    tmp_path: Path,
    describer: OnnxDescriber,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    is_cut: bool,
) -> None:
    for width in (300, 400, 500):  # three pairs
        put("coffee", folder / f"{width}.jpg", width=width)
    monkeypatch.setattr("vit4icd.dedup.links.MAX_PAIRS", most)
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    assert found.is_cut == is_cut
    assert len(found.groups[0].members) == (2 if is_cut else 3)


def test_warns_where_the_kept_one_lacks_something(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    """A photograph pasted small into a larger picture is a copy, but neither makes up for both."""
    put("astronaut", folder / "astronaut.jpg")
    pasted = DEMO / "queries" / "q01.jpg"
    (folder / "pasted.jpg").write_bytes(pasted.read_bytes())
    found = find_duplicates([folder], tmp_path / "cache", describer, verify=True, n_threads=1)
    assert _groups(found) == [["astronaut.jpg", "pasted.jpg"]]
    assert found.groups[0].spare[0].caution == "most of it is not in the kept one"


def test_only_compares_with_references(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    put("cat", library / "cat.jpg", width=220)
    put("cat", library / "cat-too.jpg", width=230)
    put("cat", folder / "cat-large.jpg")
    put("fig", folder / "fig.jpg")
    put("fig", library / "fig.jpg")
    put("clock", folder / "clock.jpg")
    put("clock", folder / "clock-small.jpg", width=200)
    put("wine", library / "wine.jpg")
    put("wine", library / "wine-small.jpg", width=200)
    found = find_duplicates(
        [folder], tmp_path / "cache", describer, references=[library], n_threads=1
    )
    assert _groups(found) == [
        ["cat-too.jpg", "cat-large.jpg"],
        ["clock.jpg", "clock-small.jpg"],
        ["fig.jpg", "fig.jpg"],
    ]
    for group in found.groups:
        for member in group.members:
            assert member.is_kept == (member.file.is_reference or "clock.jpg" in member.file.path)
    assert [group.kept[0].reason for group in (found.groups[0], found.groups[2])] == (
        ["reference", "reference"]
    )


def test_gives_links_with_references_the_score_of_a_pair_without_direction(
    tmp_path: Path, describer: OnnxDescriber
) -> None:
    for part, width in (("a", None), ("b", 300)):
        (tmp_path / part).mkdir()
        for name in ("cat", "fig", "clock", "dahlia"):
            put(name, tmp_path / part / f"{name}.jpg", width=width)
    one = find_duplicates(
        [tmp_path / "a", tmp_path / "b"], tmp_path / "cache", describer, n_threads=1
    )
    two = find_duplicates(
        [tmp_path / "b"], tmp_path / "cache", describer, references=[tmp_path / "a"], n_threads=1
    )
    assert len(one.groups) == len(two.groups) == 4
    for left, right in zip(one.groups, two.groups, strict=True):
        ours, theirs = left.spare[0].match, right.spare[0].match
        assert ours is not None
        assert theirs is not None
        assert ours.score == pytest.approx(theirs.score, abs=1e-6)
        assert ours.similarity == pytest.approx(theirs.similarity, abs=1e-6)


def test_refuses_to_judge_plain_pictures(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    for level in (0, 128, 250, 255):
        put_plain(folder / f"plain-{level}.jpg", level)
    put_plain(folder / "plain-twin.jpg", 255)
    put("cat", folder / "cat.jpg")
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    assert _groups(found) == [["plain-255.jpg", "plain-twin.jpg"]]  # the same bytes
    assert {item.reason for item in found.skipped} == {"image_too_plain"}
    assert "plain-128.jpg" in {Path(item.name).name for item in found.skipped}


def test_groups_files_of_the_same_bytes_even_if_they_are_no_pictures(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"\xff\xd8\xffbroken")
    (folder / "empty-a.jpg").write_bytes(b"")
    (folder / "empty-b.jpg").write_bytes(b"")
    put("cat", folder / "cat.jpg")
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    assert _groups(found) == [["a.jpg", "b.jpg"]]
    assert found.groups[0].members[0].header is None
    assert len(found.skipped) == 4


def test_counts_neither_links_nor_one_file_as_copies(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    put("cat", folder / "cat.jpg")
    (folder / "hard.jpg").hardlink_to(folder / "cat.jpg")
    (folder / "soft.jpg").symlink_to(folder / "cat.jpg")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    assert not found.groups
    assert (found.n_files, found.n_symlinks) == (1, 1)


def test_counts_each_file_once_however_it_is_reached(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
    put("cat", folder / "a" / "cat.jpg")
    put("cat", folder / "b" / "copy.jpg")
    (folder / "b" / "copy-again.jpg").hardlink_to(folder / "b" / "copy.jpg")
    (folder / "b" / "cat-too.jpg").hardlink_to(folder / "a" / "cat.jpg")
    put("brook", folder / "a" / "brook.jpg")
    (folder / "a" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "bad.jpg").write_bytes(b"no picture")
    (folder / "b" / "link.jpg").symlink_to(folder / "a" / "brook.jpg")
    inputs = [folder / "a" / "cat.jpg", folder, folder / "b", folder]
    found = find_duplicates(inputs, tmp_path / "cache", describer, n_threads=1)
    (group,) = found.groups
    assert (len(group.members), found.n_spare) == (2, 1)
    assert found.n_spare_bytes == (folder / "b" / "copy.jpg").stat().st_size
    assert (found.n_files, found.n_contents, found.n_symlinks) == (4, 3, 1)
    reasons = sorted((Path(item.name).name, item.reason) for item in found.skipped)
    assert reasons == [("bad.jpg", "unsupported_format"), ("empty.jpg", "empty")]
    other = find_duplicates(
        [folder / "b"], tmp_path / "cache", describer, references=[folder / "a"], n_threads=1
    )
    assert (other.n_files, other.n_spare, other.n_symlinks) == (4, 1, 1)
    assert sorted(item.name for item in other.skipped) == sorted(
        item.name for item in found.skipped
    )


def test_takes_a_score_where_the_model_has_no_calibration(tmp_path: Path) -> None:
    model = load_describer(make_model(tmp_path / "model"), n_threads=1)
    (path, *_) = make_pictures(tmp_path / "photos", 6)
    with pytest.raises(ConfigError, match="vit4icd calibrate"):
        find_duplicates([tmp_path / "photos"], tmp_path / "cache", model)
    found = find_duplicates([tmp_path / "photos"], tmp_path / "cache", model, threshold="0.99999")
    assert not found.groups
    (tmp_path / "photos" / "twin.jpg").write_bytes(path.read_bytes() + b"\0")
    found = find_duplicates([tmp_path / "photos"], tmp_path / "cache", model, threshold="0.99999")
    assert _groups(found) == [["000.jpg", "twin.jpg"]]
    assert found.groups[0].spare[0].reason == "copy, score 1.00"


def test_links_members_that_are_no_pair_of_the_kept_one(tmp_path: Path) -> None:
    model = load_describer(make_model(tmp_path / "model"), n_threads=1)
    make_pictures(tmp_path / "photos", 30)
    found = {
        strictness: find_duplicates(
            [tmp_path / "photos"], tmp_path / "cache", model, threshold=0.6, strictness=strictness
        )
        for strictness in ("clique", "component")
    }
    clique = found["clique"]
    assert all(member.match is not None for group in clique.groups for member in group.spare)
    linked = [member for group in found["component"].groups for member in group.spare]
    assert {"linked through others of its group"} < {
        member.reason if member.match is None else "paired" for member in linked
    }
    assert all((member.match is None) == bool(member.caution) for member in linked)
    assert len(found["component"].groups) < len(clique.groups)


def test_refuses_a_folder_without_pictures(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    with pytest.raises(DataError, match=r"there is no picture in .*photos"):
        find_duplicates([folder], tmp_path / "cache", describer)
    (folder / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no picture that can be read in .*bad\.jpg: "):
        find_duplicates([folder], tmp_path / "cache", describer)
    with pytest.raises(DataError, match="gone"):
        find_duplicates([folder / "gone"], tmp_path / "cache", describer)


def test_loses_only_a_file_that_goes_after_it_was_described(
    folder: Path, tmp_path: Path, describer: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "fig"):
        put(name, folder / f"{name}.jpg")
        put(name, folder / f"{name}-small.jpg", width=200)
    looks = Cache.looks

    def looked_late(self: Cache, contents: object, **options: object) -> object:
        (folder / "cat-small.jpg").unlink(missing_ok=True)
        return looks(self, contents, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Cache, "looks", looked_late)
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    assert _groups(found) == [["fig.jpg", "fig-small.jpg"]]
    assert photograph("cat").exists()
