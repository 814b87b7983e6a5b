"""Adding pictures: what becomes of those that are met more than once."""

import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_model, make_pictures
from vit4icd.collection import AddProgress, Collection, adding, writing
from vit4icd.collection.blocks import File, files_of
from vit4icd.collection.features import FEATURE_COLUMNS, ids_with_features
from vit4icd.collection.pictures import Pictures, sha256_of
from vit4icd.collection.records import encode
from vit4icd.collection.table import Table
from vit4icd.collection.views import picture_of
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import DataError, ImageError


def test_refuses_metadata_that_is_no_text(pictures: Path, describer: OnnxDescriber) -> None:
    collection = Collection.create(pictures.parent / "collection", describer=describer)
    for metadata in ({"owner": "caf\udce9"}, [{"owner": "\ud83d"}] * 20):
        with pytest.raises(DataError, match="UTF-8"):
            collection.add(pictures, metadata=metadata)
    assert len(collection) == 0


def test_reads_metadata_that_an_older_version_let_in(
    pictures: Path, describer: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = Collection.create(pictures.parent / "collection", describer=describer)
    monkeypatch.setattr("vit4icd.collection.pictures._require_text", lambda metadata: None)
    collection.add(pictures / "000.jpg", id_from="name", metadata={"owner": "caf\udce9"})
    assert collection.get("000.jpg").metadata == {"owner": "caf\udce9"}


def _made_at(folder: Path, age_s: float) -> None:
    when = time.time() - age_s
    for path in folder.iterdir():
        os.utime(path, (when, when))


def test_counts_the_same_content_once_even_over_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_COMMIT_ROWS", 3)
    paths = make_pictures(tmp_path / "pictures", 6)
    for path in paths:
        (path.parent / f"again-{path.name}").write_bytes(path.read_bytes())
    collection = Collection.create(tmp_path / "collection", model=make_model(tmp_path / "model"))
    summary = collection.add([path.parent for path in paths[:1]], id_from="sha256", features=False)
    assert (summary.n_added, summary.n_unchanged, len(collection)) == (6, 6, 6)


def test_reads_files_again_only_once_when_they_look_new(
    describer: OnnxDescriber, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit4icd.collection.pictures._SETTLED_NS", 0)
    monkeypatch.setattr(writing, "_COMMIT_ROWS", 8)
    collection = Collection.create(tmp_path / "collection", describer=describer)
    collection.add(pictures, id_from="name", metadata={"owner": "me"})
    before, descriptors = collection.list(), collection.descriptors()
    _made_at(pictures, age_s=60)
    version = collection.version
    assert collection.add(pictures, id_from="name").n_unchanged == 20
    assert 1 <= collection.version - version <= 3  # one commit for eight files or more
    assert collection.verify().problems == ()
    again = collection.descriptors()
    order = [again.ids.index(id_) for id_ in descriptors.ids]
    assert (again.vectors[order] == descriptors.vectors).all()
    assert [record.to_json() for record in collection.list()] == [one.to_json() for one in before]
    version, read = collection.version, []
    monkeypatch.setattr(Pictures, "read", lambda pictures, row: read.append(row))
    assert collection.add(pictures, id_from="name").n_unchanged == 20
    assert (collection.version, read) == (version, [])


def test_keeps_what_others_wrote_when_it_renews_stamps(
    describer: OnnxDescriber, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = Collection.create(tmp_path / "collection", describer=describer)
    collection.add(pictures, id_from="name")
    _made_at(pictures, age_s=60)
    renew = Table.restamp

    def late(table: Table, records: list[object]) -> None:
        shutil.copy(pictures / "001.jpg", tmp_path / "000.jpg")
        collection.add(tmp_path / "000.jpg", id_from="name")
        collection.remove(["002.jpg"])
        monkeypatch.setattr(Table, "restamp", renew)
        renew(table, records)  # type: ignore[arg-type]

    monkeypatch.setattr("vit4icd.collection.pictures._SETTLED_NS", 0)
    monkeypatch.setattr(Table, "restamp", late)
    assert collection.add(pictures, id_from="name").n_unchanged == 20
    assert collection.get("000.jpg").sha256 == collection.get("001.jpg").sha256
    assert "002.jpg" not in collection
    assert collection.verify().problems == ()
    assert len(collection) == 19


@pytest.mark.parametrize("n_rows", [3, 100])  # of a commit
def test_tells_what_another_id_holds_already(
    n_rows: int, describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_COMMIT_ROWS", n_rows)
    folder = tmp_path / "pictures"
    make_pictures(folder, 6)
    for name in ("010.jpg", "011.jpg"):
        shutil.copy(folder / "000.jpg", folder / name)
    told: list[AddProgress] = []
    collection = Collection.create(tmp_path / "collection", describer=describer)
    add = partial(collection.add, features=False, progress=told.append)
    doubles = {"010.jpg": "000.jpg", "011.jpg": "000.jpg"}
    assert add(folder, id_from="name").same_bytes == doubles
    assert add(folder, id_from="name").same_bytes == {}  # nothing was stored
    shutil.copy(folder / "002.jpg", folder / "000.jpg")
    assert add(folder / "000.jpg", id_from="name").same_bytes == {"000.jpg": "002.jpg"}
    assert add(folder / "003.jpg", ids=["new"]).same_bytes == {"new": "003.jpg"}
    assert add(folder / "004.jpg", id_from="sha256").same_bytes.keys() == {
        sha256_of((folder / "004.jpg").read_bytes())
    }
    reports = [report.same_bytes for report in told if report.same_bytes]
    assert {id_ for same_bytes in reports for id_ in same_bytes} > {*doubles, "000.jpg", "new"}
    assert all(report.same_bytes.keys() <= set(report.stored) for report in told)


def test_takes_pictures_that_changed_places_for_no_doubles(
    describer: OnnxDescriber, pictures: Path, tmp_path: Path
) -> None:
    collection = Collection.create(tmp_path / "collection", describer=describer)
    collection.add(pictures, id_from="name")
    (pictures / "000.jpg").rename(pictures / "000.old")
    (pictures / "001.jpg").rename(pictures / "000.jpg")
    (pictures / "000.old").rename(pictures / "001.jpg")
    summary = collection.add(pictures, id_from="name")
    assert (summary.n_updated, summary.same_bytes) == (2, {})


@pytest.mark.parametrize("changed", [False, True])
def test_keeps_parts_and_features_that_another_writer_stored_meanwhile(
    changed: bool, describer: OnnxDescriber, pictures: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    collection = Collection.create(tmp_path / "collection", describer=describer)
    other = Collection.open(collection.uri, describer=describer)

    first = (pictures / "000.jpg").read_bytes()

    def late(source: bytes, *given: Any, **options: Any) -> np.ndarray:
        if source == first:
            monkeypatch.setattr(adding, "picture_of", picture_of)
            if changed:  # what is on its way is another picture than that of this name now
                shutil.copy(pictures / "001.jpg", pictures / "000.jpg")
            other.add(pictures, id_from="name", regions=True)
        return picture_of(source, *given, **options)

    monkeypatch.setattr(adding, "picture_of", late)
    collection.add(pictures, id_from="name", features=False)
    n_parts = {record.id: record.n_parts for record in collection.list()}
    assert n_parts == {f"{row:03d}.jpg": 0 if changed and not row else 9 for row in range(20)}
    features = collection._table.find([*map(encode, n_parts)], FEATURE_COLUMNS)
    assert ids_with_features(features) == {id_ for id_, n in n_parts.items() if n}
    assert collection.verify().problems == ()


def test_keeps_parts_that_another_writer_stores_in_the_middle_of_a_commit(
    describer: OnnxDescriber, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = Collection.create(tmp_path / "collection", describer=describer)
    other = Collection.open(collection.uri, describer=describer)
    look, looks = writing.Writer._with_kept, list[int]()

    def looked(self: writing.Writer, *given: Any) -> Any:
        looked_up = look(self, *given)
        looks.append(len(looked_up))
        if len(looks) == 1:
            other.add(pictures, id_from="name", regions=True)  # which looks, too
        return looked_up

    monkeypatch.setattr(writing.Writer, "_with_kept", looked)
    collection.add(pictures, id_from="name")
    assert len(looks) == 3
    assert {record.n_parts for record in collection.list()} == {9}
    assert collection.verify().problems == ()


def test_takes_pictures_from_memory_only_as_large_as_it_is_told(
    tmp_path: Path, describer: OnnxDescriber
) -> None:
    picture = Image.open(make_pictures(tmp_path / "pictures", 1)[0])
    n_pixels = picture.width * picture.height
    assert len(sha256_of(picture, max_pixels=n_pixels)) == 64
    with pytest.raises(ImageError) as caught:
        sha256_of(picture, max_pixels=n_pixels - 1)
    assert caught.value.reason == "too_large"
    collection = Collection.create(tmp_path / "collection", describer=describer)
    for most, n_added in ((n_pixels - 1, 0), (n_pixels, 1)):
        summary = collection.add(picture, ids=["one"], max_pixels=most, features=False)
        assert (summary.n_added, len(summary.skipped)) == (n_added, 1 - n_added)


def test_verifies_one_version_while_another_is_written(
    pictures: Path, describer: OnnxDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(table: Table, data: object = None) -> list[File]:
        found = files_of(table, data)  # type: ignore[arg-type]
        collection.add(pictures / "001.jpg", id_from="name")
        return found

    collection = Collection.create(pictures.parent / "collection", describer=describer)
    collection.add(pictures / "000.jpg", id_from="name")
    monkeypatch.setattr("vit4icd.collection.checking.files_of", listed)
    assert collection.verify().problems == ()
    assert len(collection) == 2
