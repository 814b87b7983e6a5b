"""Paths: ids are names and nothing else; no file but the service's own is ever opened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.conftest import make_pictures
from tests.service.conftest import add, fill, search, serving_in

HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows\\win.ini",
    "C:\\windows\\win.ini",
    "\\\\server\\share\\x.jpg",
    "file:///etc/passwd",
    "a\0b",
    "%2e%2e%2fetc%2fpasswd",
    "CON",
    "line\nbreak",
    "emoji 🐈 and é",
    "'; DROP TABLE findings; --",
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One client of six pictures for all tests: what one of them breaks, the others meet."""
    folder = tmp_path_factory.mktemp("served")
    with serving_in(folder)() as client:
        yield fill(client, make_pictures(folder / "pictures", 6))


@pytest.mark.parametrize("id_", HOSTILE)
def test_takes_any_id_for_a_name(filled: TestClient, pictures: list[Path], id_: str) -> None:
    folder = filled.app.state.service.config.folder.parent  # type: ignore[attr-defined]
    before = {path for path in folder.rglob("*") if "collection" not in path.parts[-3:]}
    added = add(filled, pictures[0].read_bytes(), id_)
    assert added.status_code == 201, added.text
    path = f"/v1/images/{added.json()['picture']}"
    assert filled.get(path).json()["image"]["id"] == id_
    assert filled.get(f"{path}/thumbnail").status_code == 200
    assert filled.delete(path).json()["n_removed"] == 1
    assert filled.delete(path).status_code == 404
    after = {path for path in folder.rglob("*") if "collection" not in path.parts[-3:]}
    names = {path.name for path in after - before}
    assert not names & {Path(id_.replace("\0", "")).name}


@pytest.mark.parametrize("handle", [
    "../../review.sqlite", "..%2f..%2freview.sqlite", "%2e%2e%2freview.sqlite",
    "q" + "0" * 63, "q" + "../" * 21 + "x", "r", "r%00", "rLi4vLi4", "r" + "A" * 5_000, "secret",
    "rA", "r_wBh",  # cut short; of a collection that is not UTF-8
])  # fmt: skip
def test_shows_nothing_under_names_that_are_none(filled: TestClient, handle: str) -> None:
    for path in (f"/v1/images/{handle}/thumbnail", f"/static/{handle}", f"/v1/matches/{handle}"):
        answer = filled.get(path)
        assert answer.status_code == 404, path
        assert b"SQLite" not in answer.content


@pytest.mark.parametrize("name", [*HOSTILE, ".", "x" * 1_000])
def test_shows_a_clients_file_name_and_opens_nothing_by_it(
    filled: TestClient, pictures: list[Path], name: str
) -> None:
    found = search(filled, pictures[0].read_bytes(), name.replace("\0", "").replace("\n", ""))
    assert found.status_code == 200, found.text
    shown = found.json()["query"]["name"]
    assert "/" not in shown
    assert "\\" not in shown
    assert len(shown) <= 200


def test_refuses_ids_that_are_too_long(client: TestClient, pictures: list[Path]) -> None:
    answer = add(client, pictures[0].read_bytes(), "x" * 1_025)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
