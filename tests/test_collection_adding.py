"""Adding pictures: what becomes of those that are met more than once."""

from pathlib import Path

import pytest

from tests.conftest import make_model, make_pictures
from vit4icd.collection import Collection, adding


def test_counts_the_same_content_once_even_over_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "_COMMIT_ROWS", 3)
    paths = make_pictures(tmp_path / "pictures", 6)
    for path in paths:
        (path.parent / f"again-{path.name}").write_bytes(path.read_bytes())
    collection = Collection.create(tmp_path / "collection", model=make_model(tmp_path / "model"))
    summary = collection.add([path.parent for path in paths[:1]], id_from="sha256", features=False)
    assert (summary.n_added, summary.n_unchanged, len(collection)) == (6, 6, 6)
