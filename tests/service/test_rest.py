"""The calls of MatchEngine: a client written for it finds what it expects."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.service.conftest import Serving, search
from vit4icd.images import read_image, write_image
from vit4icd.service.uploads import Limits


def test_adds_counts_lists_and_deletes(client: TestClient, pictures: list[Path]) -> None:
    files = {f"images[{row}]": ("x", path.read_bytes()) for row, path in enumerate(pictures[:3])}
    paths = {f"filepaths[{row}]": f"folder/{row}.jpg" for row in range(3)}
    added = client.post("/rest/add/", files=files, data=paths).json()
    assert added.pop("basis")["n_images"] == 3
    assert added == {"status": "ok", "error": [], "method": "add", "result": []}
    one = {"image": ("y", pictures[3].read_bytes())}
    assert client.post("/rest/add", files=one, data={"filepath": "3.jpg"}).status_code == 200
    assert client.get("/rest/count/").json()["result"] == [4]
    assert client.get("/rest/list/?offset=1&limit=2").json()["result"] == [
        "folder/0.jpg",
        "folder/1.jpg",
    ]
    gone = client.delete("/rest/delete/", params={"filepath": "folder/1.jpg"})
    assert gone.json()["status"] == "ok"
    assert client.get("/rest/count").json()["result"] == [3]
    again = client.delete("/rest/delete/", params={"filepath": "folder/1.jpg"})
    assert (again.status_code, again.json()["status"]) == (404, "fail")
    assert client.get("/rest/ping/").json()["status"] == "ok"


def test_says_how_much_of_each_picture_the_other_covers(serving: Serving, tmp_path: Path) -> None:
    photograph = Path(__file__).parents[2] / "src/vit4icd/demo/photographs/cat.jpg"
    whole = read_image(photograph)
    height, width = whole.shape[:2]
    part = whole[height // 6 : -height // 6, width // 6 : -width // 6]
    write_image(tmp_path / "part.jpg", part, suffix=".jpg")
    query = (tmp_path / "part.jpg").read_bytes()
    with serving() as client:
        client.post(
            "/rest/add/",
            files={"image": ("c", photograph.read_bytes())},
            data={"filepath": "cat.jpg"},
        )
        (row,) = client.post("/rest/search/", files={"image": ("q", query)}).json()["result"]
        assert row["filepath"] == "cat.jpg"
        assert float(row["query_overlap_percent"]) > 95
        assert 35 < float(row["target_overlap_percent"]) < 60
        assert 0 <= float(row["score"]) <= 100
        drawn = client.get(row["overlay"])
        assert drawn.headers["content-type"] == "image/jpeg"
        assert read_image(drawn.content).shape == part.shape
        (pair,) = client.post(
            "/rest/compare/",
            files={"image1": ("a", query), "image2": ("b", photograph.read_bytes())},
        ).json()["result"]
        assert float(pair["query_overlap_percent"]) > 95


def test_takes_options_in_the_address_or_as_fields(
    filled: TestClient, pictures: list[Path]
) -> None:
    image = {"image": ("q", pictures[0].read_bytes())}

    def found(address: dict[str, str], fields: dict[str, str]) -> list[dict[str, str]]:
        answer = filled.post("/rest/search/", files=image, params=address, data=fields)
        rows: list[dict[str, str]] = answer.json()["result"]
        return rows

    assert filled.post("/rest/add/", files=image, data={"filepath": "again"}).status_code == 200
    rows = found({}, {"timeout": "9", "check_horizontal_flip": "False"})  # it knows no timeout
    assert [row["filepath"] for row in rows] == ["000.jpg", "again"]
    for more in ({"limit": "1"}, {"min_score": "100", "check_horizontal_flip": "true"}):
        assert found(more, {}) == found({}, more)
    assert len(found({}, {"limit": "1"})) == 1
    assert found({"offset": "1", "limit": "1"}, {}) == found({}, {"offset": "1"}) == rows[1:]
    assert filled.post("/rest/search/", files=image, data={"min_score": "101"}).status_code == 400


def test_searches_what_was_added_by_its_filepath(serving: Serving) -> None:
    photographs = Path(__file__).parents[2] / "src/vit4icd/demo/photographs"
    with serving() as client:
        for name in ("cat.jpg", "fig.jpg"):
            image = {"image": ("x", (photographs / name).read_bytes())}
            client.post("/rest/add/", files=image, data={"filepath": name})
        asked = {"filepath": "fig.jpg"}
        for answer in (
            client.post("/rest/search/", params=asked),
            client.post("/rest/search/", data=asked),
        ):
            assert [row["filepath"] for row in answer.json()["result"]] == ["fig.jpg"]
        gone = client.post("/rest/search/", data={"filepath": "nowhere.jpg"})
        assert (gone.status_code, gone.json()["status"]) == (404, "fail")
        assert "nowhere.jpg" in gone.json()["error"][0]


def test_fetches_no_address(client: TestClient) -> None:
    for path, name in (("/rest/add/", "url"), ("/rest/search/", "url"), ("/rest/compare/", "url1")):
        answer = client.post(
            path, files={"x": ("x", b"")}, data={name: "http://169.254.169.254/latest"}
        )
        assert answer.status_code == 400, answer.text
        assert answer.json()["status"] == "fail"
        assert "upload" in answer.json()["error"][0]


def test_fails_in_its_own_words(client: TestClient) -> None:
    answer = client.post("/rest/search/", files={"image": ("x", b"no picture")})
    assert answer.status_code == 415
    assert answer.json()["status"] == "fail"
    assert answer.json()["error"][0].startswith("not a picture")


KEY = {"Authorization": "Basic " + base64.b64encode(b"me:any").decode()}  # no key is needed here


def test_knows_the_requests_of_the_client_of_matchengine(
    client: TestClient, pictures: list[Path]
) -> None:
    """As TinEye's own client sends them: all but pictures in the address, GET without pictures."""
    data = [path.read_bytes() for path in pictures[:3]]
    added = client.post(
        "/rest/add/",
        params={f"filepaths[{row}]": f"folder/{row}.jpg" for row in range(3)},
        files={f"images[{row}]": (f"1531.{row}", one) for row, one in enumerate(data)},
    )
    assert added.json()["status"] == "ok"
    paths = [f"folder/{row}.jpg" for row in range(3)]
    assert client.get("/rest/list/", params={"offset": 0, "limit": 20}).json()["result"] == paths
    options: dict[str, str | int] = {
        "min_score": 0,
        "offset": 0,
        "limit": 10,
        "check_horizontal_flip": "False",
    }
    image = {"image": ("query.jpg", data[1])}
    for found in (
        client.post("/rest/search/", params=options, files=image),
        client.get("/rest/search/", params=options | {"filepath": "folder/1.jpg"}),
    ):
        assert [row["filepath"] for row in found.json()["result"]] == ["folder/1.jpg"]
        assert found.json()["basis"]["fingerprint"]
        assert found.json()["basis"]["threshold"] is not None
    both = {"image1": ("a.jpg", data[0]), "image2": ("b.jpg", data[0])}
    asked: dict[str, str | int] = {"min_score": 0, "check_horizontal_flip": "False"}
    compared = client.post("/rest/compare/", params=asked, files=both).json()
    assert float(compared["result"][0]["score"]) > 99
    gone = {"filepaths[0]": "folder/0.jpg", "filepaths[1]": "folder/2.jpg"}
    assert client.get("/rest/delete/", params=gone, headers=KEY).json()["status"] == "ok"
    assert client.get("/rest/count/").json()["result"] == [1]
    assert client.get("/rest/ping/").json()["basis"]["fingerprint"]
    for path, urls in (
        ("search", {"url": "http://example.org/a"}),
        ("add", {"urls[0]": "http://example.org/a", "filepaths[0]": "a"}),
        ("compare", {"url1": "http://example.org/a", "url2": "http://example.org/b"}),
    ):
        answer = client.get(f"/rest/{path}/", params=urls, headers=KEY)
        assert (answer.status_code, answer.json()["status"]) == (400, "fail")
        assert "fetches nothing" in answer.json()["error"][0]


def test_takes_fields_where_no_picture_comes(filled: TestClient) -> None:
    one = filled.post("/rest/list/", data={"offset": "1", "limit": "1"}).json()
    assert one["result"] == ["001.jpg"]
    assert filled.post("/rest/list", params={"limit": 1}, data={"offset": "1"}).json() == one
    assert filled.post("/rest/list/", data={"limit": "-1"}).status_code == 400
    for sent in ({"filepath": "000.jpg"}, {"filepaths[0]": "001.jpg", "filepaths[1]": "002.jpg"}):
        assert filled.post("/rest/delete/", data=sent).json()["status"] == "ok"
    assert filled.post("/rest/list/").json()["result"] == ["003.jpg", "004.jpg", "005.jpg"]


def test_changes_nothing_by_an_address_alone(client: TestClient, pictures: list[Path]) -> None:
    image = {"image": ("a", pictures[0].read_bytes())}
    client.post("/rest/add/", files=image, data={"filepath": "a"})
    for path in ("delete/?filepath=a", "delete?filepaths[0]=a", "add/?url=http://a.example"):
        answer = client.get(f"/rest/{path}")  # as any page could have a browser do
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert client.get("/rest/count/").json()["result"] == [1]


def test_changes_nothing_by_what_a_browser_adds_to_an_address(
    guarded: TestClient, keys: dict[str, str], pictures: list[Path]
) -> None:
    image = {"image": ("a", pictures[0].read_bytes())}
    key = (" ", keys["admin"])
    assert guarded.post("/rest/add/?filepath=a", files=image, auth=key).status_code == 200
    guarded.post("/login", data={"key": keys["admin"]})  # the cookie goes along from here on
    for headers in ({}, {"Authorization": "Negotiate YWJj"}, {"Authorization": "Digest a=b"}):
        answer = guarded.get("/rest/delete/?filepath=a", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for site in ("cross-site", "same-site", "none"):
        answer = guarded.get("/rest/delete/?filepath=a", headers={"Sec-Fetch-Site": site}, auth=key)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert guarded.get("/rest/count/").json()["result"] == [1]
    assert guarded.get("/rest/delete/?filepath=a", auth=key).json()["status"] == "ok"


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_adds_all_that_can_be_added(client: TestClient, pictures: list[Path], bad: int) -> None:
    data = [path.read_bytes() for path in pictures[:3]]
    data[bad] = b"no picture"
    answer = client.post(
        "/rest/add/",
        files={f"images[{row}]": ("x", one) for row, one in enumerate(data)},
        data={f"filepaths[{row}]": f"{row}.jpg" for row in range(3)},
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "warn")
    (error,) = answer.json()["error"]
    assert error.startswith(f"{bad}.jpg: ")
    stored = [f"{row}.jpg" for row in range(3) if row != bad]
    assert client.get("/rest/list/").json()["result"] == stored


@pytest.mark.parametrize("large", [0, 1, 2])
def test_adds_what_is_beside_too_large_a_picture(
    serving: Serving, pictures: list[Path], large: int
) -> None:
    data = [path.read_bytes() for path in pictures[:3]]
    data[large] = b"\xff" * 100_000
    with serving(limits=Limits(max_bytes=50_000)) as client:
        answer = client.post(
            "/rest/add/",
            params={f"filepaths[{row}]": f"{row}.jpg" for row in range(3)},
            files={f"images[{row}]": ("x", one) for row, one in enumerate(data)},
        )
        assert (answer.status_code, answer.json()["status"]) == (200, "warn")
        (error,) = answer.json()["error"]
        assert error.startswith(f"{large}.jpg: more than 50000 bytes")
        stored = [f"{row}.jpg" for row in range(3) if row != large]
        assert client.get("/rest/list/").json()["result"] == stored


def test_says_of_each_picture_what_is_wrong_if_all_are(client: TestClient) -> None:
    answer = client.post(
        "/rest/add/",
        params={"filepaths[0]": "a.jpg", "filepaths[1]": "b" * 1_025, "filepaths[2]": "a.jpg"},
        files={f"images[{row}]": ("x", b"no picture") for row in range(3)},
    )
    assert (answer.status_code, answer.json()["status"]) == (415, "fail")
    first, second, third = answer.json()["error"]
    assert first.startswith("a.jpg: not a picture")
    assert third == first
    assert second.startswith("bbb")
    gone = client.delete("/rest/delete/", params={"filepaths[0]": "a.jpg", "filepaths[1]": "c"})
    assert (gone.status_code, gone.json()["status"]) == (404, "fail")
    assert [error.partition(":")[0] for error in gone.json()["error"]] == ["a.jpg", "c"]


def test_adds_what_comes_together_in_few_commits(client: TestClient, pictures: list[Path]) -> None:
    collection = client.app.state.service.library.first.collection  # type: ignore[attr-defined]
    before, _ = collection.newest()
    files = {f"images[{row}]": ("x", path.read_bytes()) for row, path in enumerate(pictures)}
    client.post("/rest/add/", files=files)
    after, n_images = collection.newest()
    assert n_images == len(pictures)
    assert after - before < len(pictures)


def test_removes_all_that_are_there(filled: TestClient) -> None:
    asked = {"filepaths[0]": "000.jpg", "filepaths[1]": "nowhere", "filepaths[2]": "001.jpg"}
    answer = filled.delete("/rest/delete/", params=asked)
    assert answer.json()["status"] == "warn"
    assert answer.json()["error"] == ["nowhere: there is no picture 'nowhere'"]
    assert filled.get("/rest/count/").json()["result"] == [4]
    assert filled.delete("/rest/delete/").status_code == 400


def test_compares_from_a_score_on(client: TestClient, pictures: list[Path]) -> None:
    first, second = (path.read_bytes() for path in pictures[:2])
    same = {"image1": ("a", first), "image2": ("b", first)}
    other = {"image1": ("a", first), "image2": ("b", second)}

    def compared(files: dict[str, tuple[str, bytes]], least: str) -> Any:
        return client.post("/rest/compare/", files=files, data={"min_score": least})

    (row,) = compared(same, "0").json()["result"]
    assert compared(same, row["score"]).json()["result"] == [row]
    assert compared(other, "99.99").json()["result"] == []
    assert compared(same, "101").status_code == 400


def test_compares_the_mirrored_picture_if_asked(client: TestClient, tmp_path: Path) -> None:
    photograph = Path(__file__).parents[2] / "src/vit4icd/demo/photographs/astronaut.jpg"
    mirrored = np.ascontiguousarray(read_image(photograph)[:, ::-1])
    write_image(tmp_path / "mirrored.png", mirrored, suffix=".png")
    both = {
        "image1": ("a", photograph.read_bytes()),
        "image2": ("b", (tmp_path / "mirrored.png").read_bytes()),
    }

    def compared(flip: str) -> float:
        asked = {"min_score": "0", "check_horizontal_flip": flip}
        in_address = client.post("/rest/compare/", params=asked, files=both).json()["result"]
        assert client.post("/rest/compare/", data=asked, files=both).json()["result"] == in_address
        return float(in_address[0]["score"])

    assert compared("True") > 99 > compared("False")


def test_knows_a_picture_that_was_added_by_its_content(serving: Serving) -> None:
    photographs = Path(__file__).parents[2] / "src/vit4icd/demo/photographs"
    with serving() as client:
        data = (photographs / "cat.jpg").read_bytes()
        again = _again(data)
        for name, one in (("one", data), ("two", again)):
            client.post("/rest/add/", files={"image": ("x", one)}, data={"filepath": name})
        found = search(client, data, review=True).json()["matches"]
        (match,) = [one for one in found if one["reference"] == "two"]
        made = client.post("/v1/decisions", json={"decision": "reject", "match": match["id"]})
        assert made.status_code == 201
        rows = client.get("/rest/search/", params={"filepath": "one"}).json()["result"]
        assert [row["filepath"] for row in rows] == ["one"]


def _again(data: bytes) -> bytes:
    """Return the same picture in another file."""
    sink = io.BytesIO()
    Image.fromarray(read_image(data)).save(sink, "PNG")
    return sink.getvalue()
