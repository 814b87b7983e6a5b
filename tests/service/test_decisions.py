"""Decisions: a log that only grows, survives a kill, and keeps rejected pairs away."""

import csv
import io
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serving, add, search
from vit4icd.errors import StoreError
from vit4icd.service.database import Database
from vit4icd.service.decisions import Decisions, to_csv
from vit4icd.service.handles import handle_of_reference


def _decide(client: TestClient, **fields: str) -> int:
    answer = client.post("/v1/decisions", json=fields)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["number"])


def test_never_returns_a_rejected_pair_whatever_its_name(
    serving: Serving, pictures: list[Path]
) -> None:
    data = pictures[0].read_bytes()
    with serving() as client:
        add(client, data, "a.jpg")
        match = search(client, data, review=True).json()["matches"][0]
        _decide(client, decision="reject", match=match["id"])
        found = search(client, data, "other name.jpg").json()
        assert (found["matches"], found["n_rejected"]) == ([], 1)
    with serving() as client:  # after a restart, and under another id
        client.delete("/v1/collections/mine/images/a.jpg")
        add(client, data, "b.jpg")
        assert search(client, data).json()["n_rejected"] == 1
        _decide(client, decision="undo", match=match["id"])
        assert search(client, data).json()["matches"][0]["reference"] == "b.jpg"


def test_shows_and_judges_what_was_matched_when_its_id_is_replaced(
    client: TestClient, pictures: list[Path]
) -> None:
    first, second = (path.read_bytes() for path in pictures[:2])
    held = client.app.state.service  # type: ignore[attr-defined]

    def found() -> dict[str, Any]:
        match: dict[str, Any] = search(client, first, review=True).json()["matches"][0]
        return match

    def shown(picture: str) -> Any:
        return client.get(f"/v1/images/{picture}/thumbnail")

    add(client, first, "a")
    match, plain = found(), handle_of_reference("mine", "a")
    before = shown(match["picture"])
    assert shown(plain).headers["cache-control"] == "private, no-store"
    held.library.first.collection.add([second], ids=["a"])  # as vit4icd index add does
    assert shown(match["picture"]).content == before.content
    assert client.get(f"/v1/images/{match['picture']}").status_code == 404
    assert client.delete(f"/v1/images/{match['picture']}").status_code == 404
    for status in (409, 404):  # such a match is kept no longer
        body = {"decision": "reject", "match": match["id"]}
        assert client.post("/v1/decisions", json=body).status_code == status
    assert held.decisions.page() == []
    add(client, first, "a")
    judged = found()
    _decide(client, decision="accept", match=judged["id"])
    add(client, second, "a")
    assert shown(plain).content != before.content
    assert shown(judged["picture"]).content == before.content  # as the list of decisions has it
    _decide(client, decision="undo", match=judged["id"])


@pytest.mark.parametrize("kind", ["search", "group"])
@pytest.mark.parametrize("act", ["replace", "remove"])
def test_keeps_no_open_match_of_what_was_replaced_or_removed(
    client: TestClient, pictures: list[Path], kind: str, act: str
) -> None:
    first, second = (path.read_bytes() for path in pictures[:2])
    add(client, first, "a")
    if kind == "group":
        add(client, first, "b")
        client.post("/v1/collections/mine/groups?threshold=0.99")
    else:
        search(client, first, review=True)
    assert client.get("/v1/matches", params={"kind": kind}).json()["n_all"] == 1
    if act == "replace":
        add(client, second, "a")
    else:
        client.delete("/v1/collections/mine/images/a")
    assert client.get("/v1/matches").json()["n_all"] == 0


def test_keeps_pictures_of_the_negative_list_silent(
    filled: TestClient, pictures: list[Path]
) -> None:
    data = pictures[1].read_bytes()
    match = search(filled, data, review=True).json()["matches"][0]
    assert match["reference"] == "001.jpg"
    _decide(filled, decision="never", match=match["id"])
    found = search(filled, data).json()
    assert found["n_never"] == 1
    assert all(one["reference"] != "001.jpg" for one in found["matches"])
    sha256 = match["image"]["sha256"]
    _decide(filled, decision="undo", reference=sha256, on="reference")
    assert search(filled, data).json()["n_never"] == 0


@pytest.mark.parametrize("decision", ["never", "reject"])
def test_fills_the_places_of_matches_that_are_held_back(
    filled: TestClient, pictures: list[Path], decision: str
) -> None:
    data = pictures[1].read_bytes()
    ranked = search(filled, data, review=True, threshold=-1, k=6).json()["matches"]
    for match in ranked[:3]:
        _decide(filled, decision=decision, match=match["id"])
    found = search(filled, data, threshold=-1, k=2).json()
    left = [match["reference"] for match in ranked[3:]]
    assert [match["reference"] for match in found["matches"]] == left[:2]
    assert found["nearest"]["reference"] == left[0]
    assert found["n_never"] + found["n_rejected"] == 3
    rest = filled.post("/rest/search/", params={"limit": 1}, files={"image": ("any.jpg", data)})
    shown = [row["filepath"] for row in rest.json()["result"]]
    assert not {match["reference"] for match in ranked[:3]} & set(shown)
    alone = search(filled, data, threshold=2).json()
    assert (alone["matches"], alone["nearest"]) == ([], None)


def test_queues_undecided_matches_by_probability(filled: TestClient, pictures: list[Path]) -> None:
    for path in pictures:
        search(filled, path.read_bytes(), path.name, review=True, threshold=-1, k=3)
    queue = filled.get("/v1/matches").json()
    assert queue["n_all"] == 18 == sum(queue["counts"])
    levels = [finding["level"] for finding in queue["findings"]]
    assert levels == sorted(levels, reverse=True)
    assert sum(queue["sums"]) == pytest.approx(sum(max(0.0, level) for level in levels), abs=0.01)
    first = queue["findings"][0]["id"]
    _decide(filled, decision="accept", match=first)
    name = queue["findings"][0]["query"]["name"]
    (again,) = (path.read_bytes() for path in pictures if path.name == name)
    found = search(filled, again, name, review=True, threshold=-1, k=3).json()["matches"]
    assert {match["state"] for match in found if match["id"] == first} == {"accepted"}
    assert filled.get("/v1/matches").json()["n_all"] == 17
    accepted = filled.get("/v1/matches", params={"state": "accepted"}).json()["findings"]
    assert [finding["id"] for finding in accepted] == [first]
    seen: set[str] = set()
    after = None
    while True:
        params = {"limit": "5"} | ({"after": after} if after else {})
        page = filled.get("/v1/matches", params=params).json()
        seen |= {finding["id"] for finding in page["findings"]}
        after = page["next"]
        if after is None:
            break
    assert len(seen) == 17


def test_forgets_the_oldest_undecided_matches_only(serving: Serving, pictures: list[Path]) -> None:
    with serving(keep_findings=2) as client:
        for path in pictures[:4]:
            add(client, path.read_bytes(), path.name)
        ids = []
        for path in pictures[:4]:
            found = search(client, path.read_bytes(), review=True, k=1).json()
            ids.append((found["matches"][0]["id"], found["query"]["picture"]))
            if len(ids) == 1:
                _decide(client, decision="accept", match=ids[0][0])
        status = [client.get(f"/v1/matches/{id_}").status_code for id_, _ in ids]
        assert status == [200, 404, 200, 200]
        shown = [client.get(f"/v1/images/{it}/thumbnail").status_code for _, it in ids]
        assert shown == [200] * 4  # each is held by its reference, which is the same picture


def test_exports_the_log(filled: TestClient, pictures: list[Path]) -> None:
    match = search(filled, pictures[0].read_bytes(), "=cmd|calc!A0.jpg", review=True)
    id_ = match.json()["matches"][0]["id"]
    _decide(filled, decision="accept", match=id_)
    _decide(filled, decision="undo", match=id_)
    exported = filled.get("/v1/decisions/export").json()
    assert [row["decision"] for row in exported] == ["accept", "undo"]
    text = filled.get("/v1/decisions", params={"format": "csv"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["decision"] == "accept"
    assert rows[0]["query_name"].startswith("'=cmd")
    assert filled.get("/v1/decisions", params={"order": "newest"}).json()["decisions"] == []


def test_decides_nothing_that_is_believed_to_be_what_it_is_not(
    filled: TestClient, pictures: list[Path]
) -> None:
    match = search(filled, pictures[0].read_bytes(), review=True).json()["matches"][0]
    _decide(filled, decision="reject", match=match["id"], state="undecided")
    for fields in (
        {"decision": "accept", "match": match["id"], "state": "undecided"},
        {"decision": "never", "match": match["id"], "state": "accepted"},
        {
            "decision": "undo", "query": match["image"]["sha256"],
            "reference": match["image"]["sha256"], "state": "accepted",
        },
    ):  # fmt: skip
        answer = filled.post("/v1/decisions", json=fields)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "rejected now" in answer.json()["detail"]
    _decide(filled, decision="accept", match=match["id"], state="rejected")
    assert [row["decision"] for row in filled.get("/v1/decisions/export").json()] == [
        "reject",
        "accept",
    ]


def test_tells_what_a_pair_was_found_by(filled: TestClient, pictures: list[Path]) -> None:
    found = search(filled, pictures[0].read_bytes(), review=True).json()
    add(filled, pictures[0].read_bytes(), "again.jpg")  # a version later
    filled.post("/v1/collections/mine/groups")
    for finding in filled.get("/v1/matches").json()["findings"]:
        asked = found["basis"] if finding["kind"] == "search" else _newest(filled)
        assert finding["basis"] == asked
    _decide(filled, decision="reject", match=found["matches"][0]["id"])
    (row,) = filled.get("/v1/decisions/export").json()
    told = {name: found["basis"][name] for name in ("fingerprint", "threshold", "version")}
    assert {name: row[name] for name in told} == told


def _newest(client: TestClient) -> Any:
    return client.get("/v1/collections/mine/groups").json()["basis"]


def test_escapes_formulas_in_every_cell(tmp_path: Path) -> None:
    database = Database(tmp_path / "review.sqlite")
    decisions = Decisions(database)
    starts = ["=1", "+1", "-1", "@x", "\t=1", "\r=1"]
    made = [
        decisions.add("accept", query="a", reference="b", fields={"name": start})
        for start in starts
    ]
    database.close()
    rows = list(csv.DictReader(io.StringIO(to_csv(made), newline="")))
    assert [row["name"] for row in rows] == ["'" + start for start in starts]


def test_takes_accept_and_reject_for_pairs_only(filled: TestClient, pictures: list[Path]) -> None:
    match = search(filled, pictures[1].read_bytes(), review=True).json()["matches"][0]
    _decide(filled, decision="never", match=match["id"])
    for decision in ("accept", "reject"):
        fields = {"decision": decision, "match": match["id"], "on": "reference"}
        answer = filled.post("/v1/decisions", json=fields)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert search(filled, pictures[1].read_bytes()).json()["n_never"] == 1


def test_lists_decisions_on_references_however_old_they_are(tmp_path: Path) -> None:
    database = Database(tmp_path / "review.sqlite")
    decisions = Decisions(database)
    decisions.add("never", query="", reference="logo")
    for number in range(3):
        decisions.add("reject", query=f"q{number}", reference="r")
    assert [one.reference for one in decisions.newest(2, on="reference")] == ["logo"]
    assert [one.query for one in decisions.newest(2, on="pair")] == ["q2", "q1"]
    assert [one.number for one in decisions.newest(9)] == [4, 3, 2, 1]
    database.close()


def test_lists_the_newest_decisions_page_by_page(client: TestClient) -> None:
    for number in range(5):
        _decide(client, decision="never", reference=f"{number:064d}")
    seen, after = list[int](), 0
    while after is not None:
        params: dict[str, Any] = {"order": "newest", "limit": 2, "after": after}
        page = client.get("/v1/decisions", params=params).json()
        seen += [one["number"] for one in page["decisions"]]
        after = page["next"]
    assert seen == [5, 4, 3, 2, 1]


def test_says_where_the_disk_is_full(tmp_path: Path) -> None:
    database = Database(tmp_path / "review.sqlite")
    decisions = Decisions(database)
    (pages,) = database.read("PRAGMA page_count")[0]
    database.read(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match=r"review\.sqlite cannot be used: .* full"):
        decisions.add("reject", query="a", reference="b", fields={"name": "x" * 100_000})
    database.read("PRAGMA max_page_count = 1000000")
    assert decisions.add("reject", query="a", reference="b").number == 1
    database.close()


def test_says_that_another_process_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit4icd.service.database._WAIT_S", 0.01)
    database = Database(tmp_path / "review.sqlite")
    with database.writing(), pytest.raises(StoreError, match="cannot be used: .* locked"):
        Database(tmp_path / "review.sqlite")
    database.close()


def test_only_ever_adds_to_the_log(tmp_path: Path) -> None:
    database = Database(tmp_path / "review.sqlite")
    decisions = Decisions(database)
    decisions.add("reject", query="a", reference="b")
    for statement in ("DELETE FROM decisions", "UPDATE decisions SET kind = 'accept'"):
        with (
            pytest.raises(sqlite3.IntegrityError, match="only ever added"),
            database.writing() as c,
        ):
            c.execute(statement)
    assert decisions.rejected("b") == {"a"}
    database.close()


_CHILD = """
import sys
from pathlib import Path
from vit4icd.service.database import Database
from vit4icd.service.decisions import Decisions
decisions = Decisions(Database(Path(sys.argv[1])))
for number in range(100_000):
    decisions.add("reject", query=f"q{number}", reference="r")
    print(number, flush=True)
"""


def test_loses_no_decision_to_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "review.sqlite"
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told = 0
        while told < 20:
            told = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        told = max([told, *map(int, rest)])
        database = Database(path)
        rejected = Decisions(database).rejected("r")
        database.close()
        assert {f"q{number}" for number in range(told + 1)} <= rejected
