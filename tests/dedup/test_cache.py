"""What was learnt of contents: never stale, never learnt twice, and a bad file costs itself."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_model, make_pictures
from vit4icd.dedup.cache import Cache, read_content
from vit4icd.dedup.files import PictureFile, take_inventory
from vit4icd.describer import load_describer
from vit4icd.errors import FormatError, ImageError, StoreError
from vit4icd.preprocessing import Preprocessing
from vit4icd.storage import sole_writer


class _Counting:
    """A describer that counts the pictures it is given."""

    def __init__(self, model: Path) -> None:
        self._inner = load_describer(model, n_threads=1)
        self.n_described = 0

    @property
    def dim(self) -> int:
        return self._inner.dim

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    @property
    def preprocessing(self) -> Preprocessing:
        return self._inner.preprocessing

    @property
    def n_threads(self) -> int:
        return self._inner.n_threads

    def describe(self, pixels: np.ndarray) -> np.ndarray:
        self.n_described += len(pixels)
        return self._inner.describe(pixels)


def _contents(*folders: Path) -> dict[str, Sequence[PictureFile]]:
    return {**take_inventory(folders).by_content()}


def test_describes_each_content_once(model: Path, tmp_path: Path) -> None:
    (path, *_) = make_pictures(tmp_path / "photos", 5)
    (tmp_path / "photos" / "again.jpg").write_bytes(path.read_bytes())
    describer, cache = _Counting(model), Cache(tmp_path / "cache")
    contents = _contents(tmp_path / "photos")
    first, _ = cache.descriptors(contents, describer)
    assert describer.n_described == 5
    assert list(first.ids) == list(contents)
    path.rename(tmp_path / "photos" / "moved.jpg")
    make_pictures(tmp_path / "more", 3, seed=1)
    contents = _contents(tmp_path / "photos", tmp_path / "more")
    second, _ = cache.descriptors(contents, describer)
    assert describer.n_described == 8
    assert list(second.ids) == list(contents)
    row = {name: number for number, name in enumerate(second.ids)}
    np.testing.assert_array_equal(second.vectors[[row[name] for name in first.ids]], first.vectors)


def test_lets_one_run_at_a_time_add_descriptors(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    describer, cache = _Counting(model), Cache(tmp_path / "cache")
    contents = _contents(pictures)
    with (
        sole_writer(cache.folder),
        pytest.raises(StoreError, match="another run is writing"),
    ):
        cache.descriptors(contents, describer)
    cache.descriptors(contents, describer)
    with sole_writer(cache.folder):  # nothing is left to be added
        assert len(cache.descriptors(contents, describer)[0]) == len(contents)


def test_describes_anew_what_changed(model: Path, pictures: Path, tmp_path: Path) -> None:
    describer, cache = _Counting(model), Cache(tmp_path / "cache")
    cache.descriptors(_contents(pictures), describer)
    (pictures / "003.jpg").write_bytes((pictures / "004.jpg").read_bytes())
    contents = _contents(pictures)
    found, _ = cache.descriptors(contents, describer)
    assert describer.n_described == 20
    assert len(found) == 19
    assert [file.path for file in contents[found.ids[3]]] == [
        str(pictures / "003.jpg"),
        str(pictures / "004.jpg"),
    ]


@pytest.mark.parametrize("place", [0, 7, 19])
def test_loses_only_the_bad_file(place: int, model: Path, pictures: Path, tmp_path: Path) -> None:
    describer = load_describer(model)
    good, _ = Cache(tmp_path / "good").descriptors(_contents(pictures), describer)
    bad = pictures / f"{place:03d}.jpg"
    bad.write_bytes(b"\xff\xd8\xffnot a jpeg")
    found, skipped = Cache(tmp_path / "bad").descriptors(_contents(pictures), describer)
    assert [item.name for item in skipped] == [str(bad)]
    assert list(found.ids) == [name for row, name in enumerate(good.ids) if row != place]
    np.testing.assert_array_equal(found.vectors, np.delete(good.vectors, place, axis=0))


def test_gives_an_empty_set_where_nothing_can_be_read(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    describer, cache = load_describer(model), Cache(tmp_path / "cache")
    assert len(cache.descriptors({}, describer)[0]) == 0
    found, skipped = cache.descriptors(_contents(tmp_path), describer)
    assert (len(found), found.dim, len(skipped)) == (0, 8, 1)


def test_keeps_models_apart(model: Path, pictures: Path, tmp_path: Path) -> None:
    cache, contents = Cache(tmp_path / "cache"), _contents(pictures)
    one, _ = cache.descriptors(contents, load_describer(model))
    other, _ = cache.descriptors(contents, load_describer(make_model(tmp_path / "o", seed=1)))
    assert one.fingerprint != other.fingerprint
    assert not np.allclose(one.vectors, other.vectors)


def test_reads_a_file_only_with_the_bytes_it_was_found_with(pictures: Path) -> None:
    (pictures / "copy.jpg").write_bytes((pictures / "000.jpg").read_bytes())
    files = next(files for files in _contents(pictures).values() if len(files) == 2)
    data = (pictures / "copy.jpg").read_bytes()
    (pictures / "000.jpg").write_bytes(b"another")
    assert read_content(files) == data
    (pictures / "copy.jpg").unlink()
    with pytest.raises(ImageError) as refused:
        read_content(files)
    assert refused.value.reason == "missing"
    (pictures / "copy.jpg").write_bytes(b"another")
    with pytest.raises(ImageError) as refused:
        read_content(files)
    assert refused.value.reason == "changed"


def test_looks_at_a_content_once(pictures: Path, tmp_path: Path) -> None:
    contents, cache = _contents(pictures), Cache(tmp_path / "cache")
    looks = cache.looks(contents)
    assert [looks[name].header.width for name in contents] == [60 + row % 7 for row in range(20)]
    for path in pictures.iterdir():
        path.unlink()
    assert Cache(tmp_path / "cache").looks(contents) == looks


def test_looks_again_at_what_another_version_stored(pictures: Path, tmp_path: Path) -> None:
    contents, cache = _contents(pictures), Cache(tmp_path / "cache")
    looks, path = cache.looks(contents), tmp_path / "cache" / "looks.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[0]["header"]["width"]
    rows[1]["header"]["mood"] = "blue"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cache.looks(contents) == looks
    assert len(path.read_text().splitlines()) == 20
    path.write_text("[1]\n")
    with pytest.raises(FormatError, match="is damaged"):
        cache.looks(contents)


def test_remembers_what_a_stopped_run_has_learnt(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_in_the_middle(n_done: int, _n_files: int, _n_skipped: int) -> None:
        if n_done == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr("vit4icd.dedup.files._SETTLED_NS", -1)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        cache.inventory([pictures], n_workers=1, progress=stop_in_the_middle)
    assert len((tmp_path / "cache" / "files.jsonl").read_text().splitlines()) == 12
    assert len(cache.inventory([pictures]).files) == 20
    assert len((tmp_path / "cache" / "files.jsonl").read_text().splitlines()) == 20


def test_refuses_a_damaged_cache(pictures: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.inventory([pictures])
    for text in ("{", "{}\n", '{"path": "a", "stamp": {"inode": 1}, "sha256": ""}\n', "[1]\n"):
        (tmp_path / "cache" / "files.jsonl").write_text(text)
        with pytest.raises(FormatError, match=r"(?s)files\.jsonl is damaged .* delete"):
            cache.inventory([pictures])
