"""The pages: every group and reason is on them, names are escaped, and they stay of a size."""

import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.dedup.conftest import put
from vit4icd.dedup import page
from vit4icd.dedup.find import find_duplicates
from vit4icd.dedup.leaks import find_leaks
from vit4icd.dedup.page import groups_page, leaks_page
from vit4icd.describer import OnnxDescriber


class _Read(HTMLParser):
    """Collects what a page shows, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_shows_every_group_with_its_reasons(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    names = ["<script>alert(1).jpg", os.fsdecode(b"latin-\xe9.jpg"), '"quoted".jpg']
    for name in names:
        put("cat", folder / name)
    put("fig", folder / "fig.jpg")
    put("fig", folder / "small.jpg", width=200)
    (folder / "bad.jpg").write_bytes(b"no picture")
    found = find_duplicates([folder], tmp_path / "cache", describer, verify=True, n_threads=1)
    shown = _Read(groups_page(found))
    assert shown.tags.count("article") == 5
    assert "script" not in shown.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in shown.sources)
    assert len(shown.sources) == 5
    for text in ("keep", "same bytes", "proven: ", "unsupported_format", "latin-�.jpg", names[0]):
        assert text in shown.text


def test_keeps_the_page_small_and_says_so(
    folder: Path, tmp_path: Path, describer: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "fig", "clock"):
        for number in range(4):
            put(name, folder / f"{name}-{number}.jpg")
    monkeypatch.setattr(page, "_GROUPS", 2)
    monkeypatch.setattr(page, "_MEMBERS", 3)
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    shown = _Read(groups_page(found))
    assert shown.tags.count("article") == 6
    assert "1 more groups are listed in groups.json" in shown.text
    assert "1 more files of this group" in shown.text


def test_shows_a_group_whose_files_are_gone(
    folder: Path, tmp_path: Path, describer: OnnxDescriber
) -> None:
    for name in ("a.jpg", "b.jpg"):
        put("cat", folder / name)
    found = find_duplicates([folder], tmp_path / "cache", describer, n_threads=1)
    (folder / "a.jpg").unlink()
    shown = _Read(groups_page(found))
    assert shown.tags.count("article") == 2
    assert "no picture" in shown.text


def test_shows_leaks_beside_what_they_copy(tmp_path: Path, describer: OnnxDescriber) -> None:
    for part, width in (("train", None), ("test", 200)):
        (tmp_path / part).mkdir()
        put("cat", tmp_path / part / "cat.jpg", width=width)
    leaks = find_leaks(
        [tmp_path / "train"], [tmp_path / "test"], tmp_path / "cache", describer, verify=True
    )
    shown = _Read(leaks_page(leaks))
    assert shown.tags.count("article") == 1
    assert shown.tags.count("img") == 2
    assert "of 1 test pictures" in shown.text
