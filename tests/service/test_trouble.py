"""What happens around a request: stores that are away for a while, and others at the same time."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serving, add, search, until
from vit4icd.collection import Collection
from vit4icd.errors import FormatError, StoreError
from vit4icd.service import state as state_room
from vit4icd.service.library import Added, Adding, Found, New, Query, Searching, Shelf
from vit4icd.service.previews import Previews
from vit4icd.service.routes import health
from vit4icd.service.state import State

AWAY = StoreError("s3://bucket/mine cannot be reached")


def _held(client: TestClient) -> State:
    held = client.app.state.service  # type: ignore[attr-defined]
    assert isinstance(held, State)
    return held


def _never(client: TestClient, reference: str) -> None:
    made = client.post("/v1/decisions", json={"decision": "never", "reference": reference})
    assert made.status_code == 201


def test_loads_once_the_collection_can_be_reached(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(shelf: Shelf) -> None:
        tries.append(shelf.name)
        if len(tries) < 3:
            raise AWAY
        warm_up(shelf)

    warm_up, tries = Shelf.warm_up, list[str]()
    monkeypatch.setattr(Shelf, "warm_up", failing)
    monkeypatch.setattr(state_room, "_AGAIN_S", 0.01)
    with serving() as client:  # which waits until it is ready
        assert len(tries) == 3
        assert client.get("/v1/collections/mine/images").status_code == 200


def test_says_while_it_tries_again_why_it_is_not_ready(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(shelf: Shelf) -> None:
        raise AWAY

    with serving() as client:
        monkeypatch.setattr(Shelf, "warm_up", failing)
        assert not _held(client)._loaded()
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert "s3://bucket/mine" in answer.json()["detail"]
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("error", "code"), [(FormatError("row 3 is damaged"), "damaged"), (MemoryError(), "internal")]
)
def test_tells_that_it_will_never_be_ready(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def failing(shelf: Shelf) -> None:
        raise error

    with serving() as client:
        monkeypatch.setattr(Shelf, "warm_up", failing)
        assert _held(client)._loaded()
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (500, code)


@pytest.mark.parametrize("rule", [health.health, health.ready])
def test_says_that_it_lives_without_a_thread(rule: Callable[..., Any]) -> None:
    assert inspect.iscoroutinefunction(rule)  # a plain function waits for one of forty threads


def test_gives_the_figures_that_can_be_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(collection: Collection) -> int:
        raise AWAY

    assert "\nvit4icd_images 0.0" in client.get("/metrics").text
    monkeypatch.setattr(Collection, "__len__", failing)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert "\nvit4icd_images " not in answer.text
    assert "\nvit4icd_ready 1.0" in answer.text


def test_does_not_blame_an_upload_for_what_takes_long_after_it(
    filled: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(searching: Searching, items: Sequence[Query]) -> list[Found | Exception]:
        raise TimeoutError

    monkeypatch.setattr(Searching, "run", failing)
    answer = search(filled, pictures[0].read_bytes())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")


def test_shows_what_was_stored_last_when_two_add_at_once(
    client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (path.read_bytes() for path in pictures[:2])

    def late(previews: Previews, *args: Any) -> set[bytes]:
        monkeypatch.setattr(Previews, "hold", hold)
        assert add(client, second, "a").status_code == 201  # meanwhile, and whole
        found = search(client, second, review=True).json()
        assert found["matches"][0]["state"] == "undecided"
        return hold(previews, *args)

    hold = Previews.hold
    monkeypatch.setattr(Previews, "hold", late)
    held = _held(client)
    adding = Adding(shelf=held.library.first, previews=held.previews, max_pixels=1_000_000)
    (added,) = adding.run([New("a", first)])
    assert isinstance(added, Added)
    assert held.previews.read(added.sha256) is None  # nobody has that picture any more
    picture = client.get("/v1/collections/mine/images/a").json()["image"]["picture"]
    assert client.get(f"/v1/images/{picture}/thumbnail").status_code == 200
    assert client.get("/v1/matches").json()["n_all"] == 1


def test_keeps_the_preview_of_what_is_added_again_while_it_is_removed(
    client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(previews: Previews, *args: Any, **options: Any) -> None:
        add(client, data, "a")  # meanwhile, and whole
        release(previews, *args, **options)

    data, release = pictures[0].read_bytes(), Previews.release
    picture = add(client, data, "a").json()["picture"]
    monkeypatch.setattr(Previews, "release", late)
    assert client.delete("/v1/collections/mine/images/a").status_code == 200
    assert client.get(f"/v1/images/{picture}/thumbnail").status_code == 200


def _replacing(client: TestClient, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next search find "a", and somebody replace it before that is answered."""

    def run(searching: Searching, items: Sequence[Query]) -> list[Found | Exception]:
        monkeypatch.setattr(Searching, "run", unpatched)
        found = unpatched(searching, items)
        searching.shelf.collection.add([data], ids=["a"])
        return found

    unpatched = Searching.run
    monkeypatch.setattr(Searching, "run", run)


def test_tells_of_the_content_that_was_searched(
    client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (path.read_bytes() for path in pictures[:2])
    sha256 = add(client, first, "a").json()["sha256"]
    _replacing(client, second, monkeypatch)
    found = search(client, first, review=True).json()
    assert found["matches"][0]["image"]["sha256"] == sha256
    assert client.get("/v1/matches").json()["n_all"] == 0  # nobody has to judge what is gone


def test_looks_no_reference_up_for_a_search(
    filled: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise AssertionError("each look opens the newest version")

    _never(filled, "0" * 64)
    monkeypatch.setattr(Collection, "get", failing)
    monkeypatch.setattr(Collection, "find", failing)
    found = search(filled, pictures[3].read_bytes(), threshold=-1).json()
    assert found["matches"][0]["image"]["id"] == "003.jpg"
    assert len(found["matches"]) == 6


def test_answers_with_all_matches_however_few_are_kept(
    serving: Serving, pictures: list[Path]
) -> None:
    with serving(keep_findings=2) as client:
        for path in pictures:
            add(client, path.read_bytes(), path.name)
        found = search(client, pictures[0].read_bytes(), threshold=-1, review=True).json()
        assert len(found["matches"]) == len(pictures)
        until(lambda: client.get("/v1/matches").json()["n_all"] == 2)
