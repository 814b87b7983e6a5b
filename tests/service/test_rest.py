"""The calls of MatchEngine: a client written for it finds what it expects."""

from pathlib import Path

from fastapi.testclient import TestClient

from tests.service.conftest import Serving
from vit4icd.images import read_image, write_image


def test_adds_counts_lists_and_deletes(client: TestClient, pictures: list[Path]) -> None:
    files = {f"images[{row}]": ("x", path.read_bytes()) for row, path in enumerate(pictures[:3])}
    paths = {f"filepaths[{row}]": f"folder/{row}.jpg" for row in range(3)}
    added = client.post("/rest/add/", files=files, data=paths).json()
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
