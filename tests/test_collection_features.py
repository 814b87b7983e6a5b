"""Stored local features: one that cannot be read costs only itself, and is taken again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.test_cli_collecting import _run
from vit4icd.collection import Collection
from vit4icd.collection.descriptors import vectors_in
from vit4icd.collection.features import FEATURE_COLUMNS, features_in, ids_with_features
from vit4icd.collection.records import encode, records_in
from vit4icd.collection.rows import Row, to_table
from vit4icd.collection.table import Table
from vit4icd.describer import OnnxDescriber

PHOTOGRAPHS = Path("src/vit4icd/demo/photographs")
NAMES = ("cat.jpg", "lamp.jpg", "wine.jpg")


@pytest.fixture
def collection(describer: OnnxDescriber, tmp_path: Path) -> Collection:
    collection = Collection.create(tmp_path / "collection", describer=describer)
    collection.add([PHOTOGRAPHS / name for name in NAMES], id_from="name")
    return collection


def _features(collection: Collection, name: str) -> bytes:
    (data,) = Table(collection.uri).find([encode(name)], FEATURE_COLUMNS)["features"].to_pylist()
    return bytes(data)


def _of_format_1(collection: Collection) -> None:
    """Store the local features of the lamp as the first version wrote them, checksums right."""
    table = Table(collection.uri)
    row = table.find([b"lamp.jpg"], table.schema.names)
    (record,), vectors = records_in(row), vectors_in(row).values.astype(np.float32)
    older = (1).to_bytes(4, "little") + _features(collection, "lamp.jpg")[4:]
    table.upsert(to_table([Row(record=record, vector=vectors[0], features=older)], table.schema))


def _damaged(collection: Collection) -> None:
    """Change one byte of the lamp's local features, where they lie on the disk."""
    wanted = _features(collection, "lamp.jpg")
    files = (Path(collection.uri) / "data").iterdir()
    (path,) = (file for file in files if wanted in file.read_bytes())
    data = bytearray(path.read_bytes())
    data[data.index(wanted) + len(wanted) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [_of_format_1, _damaged])
def test_loses_only_the_features_that_cannot_be_read(
    spoil: Callable[[Collection], None], collection: Collection, describer: OnnxDescriber
) -> None:
    spoil(collection)
    opened = Collection.open(collection.uri, describer=describer)
    queries = [PHOTOGRAPHS / name for name in NAMES]
    for query, answer in zip(queries, opened.ask(queries, verify=True, threshold=-2), strict=True):
        verified = {match.reference: match.verified for match in answer.matches}
        assert verified == {"cat.jpg": True, "lamp.jpg": False, "wine.jpg": True}
        assert answer.matches[0].reference == query.name
        assert answer.untried == ("lamp.jpg",)
    (problem,) = opened.verify().problems
    assert "local features of 'lamp.jpg'" in problem
    assert "add the picture again" in problem
    summary = opened.add(queries, id_from="name")
    assert (summary.n_updated, summary.n_unchanged) == (1, 2)
    assert opened.verify().problems == ()
    (answer,) = opened.ask(queries[1], verify=True, threshold=-2)
    assert answer.untried == ()
    assert all(match.verified for match in answer.matches)


def test_reads_what_can_be_read(collection: Collection) -> None:
    _of_format_1(collection)
    collection.add(PHOTOGRAPHS / "coffee.jpg", id_from="name", features=False)
    table = Table(collection.uri)
    rows = table.find([encode(record.id) for record in collection.list()], FEATURE_COLUMNS)
    stored = features_in(rows)
    assert stored.readable.keys() == ids_with_features(rows) == {"cat.jpg", "wine.jpg"}
    (problem,) = stored.unreadable
    assert "(format 1)" in problem


def test_does_not_look_at_features_that_are_not_wanted(collection: Collection) -> None:
    _of_format_1(collection)
    again = collection.add(PHOTOGRAPHS / "lamp.jpg", id_from="name", features=False)
    assert again.n_unchanged == 1


def test_tells_the_user_once(
    collection: Collection, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _of_format_1(collection)
    queries = [PHOTOGRAPHS / name for name in NAMES]
    words = ("search", collection.uri, *queries, "--model", model, "--threshold", "-1")
    assert _run(*words, "--verify") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no proof was tried for 1 of the references found, such as lamp.jpg")
    assert _run(*words) == 0
    assert capsys.readouterr().err == ""
    assert _run("index", "verify", collection.uri) == 1
    assert "lamp.jpg" in capsys.readouterr().out


def test_keeps_local_features_whatever_a_picture_is_added_with(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    collection = Collection.create(tmp_path / "mine", model=model)
    one = sorted(pictures.iterdir())[:1]
    collection.add(one, id_from="name")
    summary = collection.add(one, id_from="name", metadata={"owner": "me"}, features=False)
    assert summary.n_updated == 1
    (answer,) = collection.ask(one, verify=True, threshold=-2)
    assert answer.untried == ()
