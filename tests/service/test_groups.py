"""Groups of copies: listed, judged pair by pair in the queue, and apart once they were rejected."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serving, add
from vit4icd.images import read_image, resize, write_image
from vit4icd.service import duplicates

PATH = "/v1/collections/mine/groups"
LEAST = {"threshold": "0.9999"}


def _groups(client: TestClient) -> list[set[str]]:
    return [set(group) for group in client.get(PATH, params=LEAST).json()["groups"]]


def _queued(client: TestClient, **params: object) -> dict[str, Any]:
    answer = client.post(PATH, params=LEAST | {name: str(it) for name, it in params.items()})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _queue(client: TestClient, **params: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/matches", params=params).json()["findings"]
    return found


def _larger(picture: Path) -> bytes:
    """Return the picture at twice its size: a copy by other bytes."""
    image = read_image(picture)
    larger = picture.with_name(f"larger-{picture.name}")
    write_image(larger, resize(image, 2 * image.shape[1], 2 * image.shape[0]), suffix=".png")
    return larger.read_bytes()


def test_lists_groups_of_copies(filled: TestClient, pictures: list[Path]) -> None:
    assert _groups(filled) == []
    add(filled, pictures[4].read_bytes(), "again.jpg")
    assert _groups(filled) == [{"004.jpg", "again.jpg"}]


def test_queues_the_largest_of_a_group_beside_each_other_one(
    filled: TestClient, pictures: list[Path]
) -> None:
    add(filled, pictures[4].read_bytes(), "again.jpg")
    add(filled, _larger(pictures[4]), "large.png")
    add(filled, pictures[2].read_bytes(), "twin.jpg")
    asked = _queued(filled, threshold=0.99)
    assert (asked["n_groups"], asked["n_queued"], asked["n_left"]) == (2, 3, 0)
    found = _queue(filled, kind="group")
    of_three = [one for one in found if one["group"]["n_images"] == 3]
    assert {one["query"]["name"] for one in of_three} == {"large.png"}
    assert {one["match"]["reference"] for one in of_three} == {"004.jpg", "again.jpg"}
    places = [one["group"]["id"] for one in found]
    assert len({places.index(one) for one in places}) == 2  # a group's pairs stand together
    assert places in (sorted(places), sorted(places, reverse=True))
    assert _queue(filled, kind="search") == []
    for side in (found[0]["query"]["picture"], found[0]["match"]["picture"]):
        assert filled.get(f"/v1/images/{side}/thumbnail").status_code == 200
    proof = f"/v1/matches/{found[0]['id']}/proof"
    assert filled.get(proof).status_code == 200
    filled.app.state.service.work.close()  # type: ignore[attr-defined]
    assert filled.get(proof).json()["code"] == "busy"  # a proof waits as every work does


def test_calls_equal_bytes_exact(filled: TestClient, pictures: list[Path]) -> None:
    add(filled, pictures[4].read_bytes(), "again.jpg")
    _queued(filled)
    (found,) = _queue(filled)
    assert (found["kind"], found["match"]["verdict"]) == ("group", "exact")
    assert found["match"]["similarity"] <= 1.001


def test_says_when_only_the_most_alike_pairs_were_looked_at(
    filled: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(filled, pictures[4].read_bytes(), "again.jpg")
    assert filled.get(PATH).json()["is_complete"]
    assert _queued(filled)["is_complete"]
    monkeypatch.setattr(duplicates, "_MAX_PAIRS", 1)
    assert not filled.get(PATH).json()["is_complete"]
    assert not _queued(filled)["is_complete"]


def test_never_groups_a_rejected_pair_again(serving: Serving, pictures: list[Path]) -> None:
    with serving() as client:
        add(client, pictures[0].read_bytes(), "small.jpg")
        add(client, _larger(pictures[0]), "large.png")
        assert _queued(client, threshold=0.99)["n_queued"] == 1
        (found,) = _queue(client)
        client.post("/v1/decisions", json={"decision": "reject", "match": found["id"]})
        assert _queue(client) == []
    with serving() as client:  # after a restart, and under another id
        client.delete("/v1/collections/mine/images/small.jpg")
        add(client, pictures[0].read_bytes(), "renamed.jpg")
        assert client.get(PATH, params={"threshold": "0.99"}).json()["groups"] == []
        assert _queued(client, threshold=0.99)["n_queued"] == 0
        client.post(
            "/v1/decisions",
            json={"decision": "undo", "query": found["query"]["sha256"],
                  "reference": found["match"]["image"]["sha256"]},
        )  # fmt: skip
        assert _queued(client, threshold=0.99)["n_queued"] == 1


def test_queues_no_pair_that_was_accepted(filled: TestClient, pictures: list[Path]) -> None:
    for name in ("again.jpg", "third.jpg"):
        add(filled, _larger(pictures[4]), name)
    assert _queued(filled, threshold=0.99, limit=1)["n_left"] == 1
    (found,) = _queue(filled)
    filled.post("/v1/decisions", json={"decision": "accept", "match": found["id"]})
    asked = _queued(filled, threshold=0.99, limit=1)
    assert (asked["n_groups"], asked["n_queued"], asked["n_left"]) == (1, 1, 0)
    assert _queue(filled)[0]["id"] != found["id"]


def test_groups_nothing_that_must_never_match(filled: TestClient, pictures: list[Path]) -> None:
    add(filled, pictures[4].read_bytes(), "again.jpg")
    _queued(filled)
    (found,) = _queue(filled)
    filled.post("/v1/decisions", json={"decision": "never", "match": found["id"]})
    assert _groups(filled) == []


def test_settles_pairs_with_what_must_never_match_on_either_side(
    filled: TestClient, pictures: list[Path]
) -> None:
    add(filled, pictures[4].read_bytes()[:-2] + b"\xff\xfe\x00\x02\xff\xd9", "again.jpg")
    _queued(filled)
    (found,) = _queue(filled)
    for side in ("query", "match"):
        sha256 = found[side].get("sha256") or found[side]["image"]["sha256"]
        fields = {"decision": "never", "reference": sha256}
        assert filled.post("/v1/decisions", json=fields).status_code == 201
        assert _queue(filled) == []
        filled.post("/v1/decisions", json=fields | {"decision": "undo", "on": "reference"})
        assert [one["id"] for one in _queue(filled)] == [found["id"]]


def test_queues_nothing_of_an_empty_collection(client: TestClient) -> None:
    asked = _queued(client)
    assert (asked["n_groups"], asked["n_queued"]) == (0, 0)
    assert client.post(PATH, params={"limit": 2_000}).status_code == 400
