"""Options: in the address or as fields of a form, the same; none is dropped in silence."""

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import add, search
from vit4icd.service import app as app_room

MINE = "/v1/collections/mine"


def _sent(client: TestClient, path: str, data: bytes, **fields: str) -> Any:
    """Send a picture as a form with fields."""
    return client.post(path, files={"image": ("any.jpg", data)}, data=fields)


def test_takes_options_as_fields_over_a_network(
    live: Callable[..., int], pictures: list[Path]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", live(), timeout=60)

    def post(path: str, **fields: str) -> Any:
        parts = [
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        body = b"".join([head, pictures[0].read_bytes(), b"\r\n", *parts, b"--b--\r\n"])
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        connection.request("POST", f"{MINE}/{path}", body, headers)
        with connection.getresponse() as answer:
            return answer.status, json.loads(answer.read())

    status, added = post("images", id="a/é", metadata='{"owner": "me"}', regions="true")
    assert (status, added["id"]) == (201, "a/é")
    status, found = post("search", k="1", verify="true", threshold="-1")
    assert (status, found["basis"]["threshold"]) == (200, -1)
    assert found["matches"][0]["metadata"] == {"owner": "me"}
    assert found["matches"][0]["verified"]
    status, problem = post("search", regoins="true")
    assert (status, problem["code"]) == (400, "invalid_option")
    connection.close()


def test_takes_every_option_in_either_place(client: TestClient, pictures: list[Path]) -> None:
    for number, path in enumerate(pictures):
        data, fields = path.read_bytes(), {"metadata": f'{{"number": "{number}"}}'}
        sent = _sent(client, f"{MINE}/images", data, id=f"form {number}", **fields)
        assert sent.status_code == add(client, data, f"address {number}", **fields).status_code
        one, other = (client.get(f"{MINE}/images/{it} {number}") for it in ("form", "address"))
        assert one.json()["image"]["metadata"] == other.json()["image"]["metadata"]
    options = {
        "k": "3", "threshold": "-2", "verify": "true", "flip": "1", "rotate": "yes",
        "regions": "on", "review": "true",
    }  # fmt: skip
    data = pictures[0].read_bytes()
    found = _sent(client, f"{MINE}/search", data, **options).json()
    again = search(client, data, name="any.jpg", **options).json()
    assert len(found["matches"]) == 3
    assert found == again
    assert found != search(client, data, name="any.jpg").json()


def test_takes_some_options_in_the_address_and_others_as_fields(
    filled: TestClient, pictures: list[Path]
) -> None:
    path = f"{MINE}/search?k=2"
    found = _sent(filled, path, pictures[0].read_bytes(), threshold="-2").json()
    assert (len(found["matches"]), found["basis"]["threshold"]) == (2, -2)


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("POST", "collections/mine/search?rotat=true&k=3", "flip, k, regions, review, rotate"),
        ("GET", "collections/mine/images?limits=3", "after, limit"),
        ("DELETE", "collections/mine/images/a/b?force=1", "none"),
        ("GET", "collections?verbose=1", "none"),
        ("POST", "collections/mine/jobs?region=true", "regions"),
        ("GET", "collections/mine/groups?strict=1", "after, limit, strictness, threshold"),
        ("GET", "matches?status=undecided", "after"),
    ],
)
def test_refuses_options_that_it_does_not_know(
    method: str, path: str, known: str, client: TestClient
) -> None:
    answer = client.request(method, f"/v1/{path}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_option")
    unknown = path.partition("?")[2].partition("=")[0]
    assert answer.json()["detail"].startswith(f"unknown options: {unknown}; there are: {known}")


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("collections/mine/images", "id, image_url, metadata, regions"),
        (
            "collections/mine/search",
            "flip, image_url, k, regions, review, rotate, threshold, verify",
        ),
        ("compare", "query_url, reference_url"),
    ],
)
def test_refuses_fields_that_it_does_not_know(
    path: str, known: str, client: TestClient, pictures: list[Path]
) -> None:
    data = pictures[0].read_bytes()
    names = ("query", "reference") if path == "compare" else ("image",)
    for files in (dict.fromkeys(names, ("any.jpg", data)), None):  # None: no parts
        answer = client.post(f"/v1/{path}", files=files, data={"rotat": "true", "Flip": "1"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_option")
        assert answer.json()["detail"] == f"unknown fields: Flip, rotat; there are: {known}"
    assert client.get(f"{MINE}/images").json()["images"] == []


def test_refuses_what_stands_in_both_places(client: TestClient, pictures: list[Path]) -> None:
    for value in ("2", "3"):
        answer = _sent(client, f"{MINE}/search?k=2", pictures[0].read_bytes(), k=value)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_option")
        assert answer.json()["detail"] == "both in the address and in the form: k"


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("search", "k", "0"),
        ("search", "k", ""),
        ("search", "rotate", "perhaps"),
        ("search", "threshold", "often"),
        ("images", "regions", "9"),
        ("images", "id", ""),
        ("images", "metadata", "[]"),
    ],
)
def test_refuses_fields_out_of_range_as_options(
    path: str, name: str, value: str, client: TestClient, pictures: list[Path]
) -> None:
    data = pictures[0].read_bytes()
    sent = _sent(client, f"{MINE}/{path}", data, **{name: value})
    asked = client.post(f"{MINE}/{path}", params={name: value}, files={"image": ("any.jpg", data)})
    assert sent.status_code == asked.status_code == 400
    assert sent.json()["code"] == asked.json()["code"]
    assert sent.json()["detail"] == asked.json()["detail"].replace("query.", "form.")


def test_says_how_a_file_is_sent_where_its_name_came(client: TestClient) -> None:
    answer = client.post(f"{MINE}/search", files={"image": (None, "cat.jpg")})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["detail"] == "image is no file; with curl: -F image=@FILE"


def test_refuses_forms_where_none_is_read(filled: TestClient) -> None:
    answer = filled.post(f"{MINE}/groups", data={"limit": "5"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["detail"].endswith("options stand in the address: limit, threshold")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert filled.post(f"{MINE}/groups?limit=5", content=b"", headers=form).status_code == 201


def test_refuses_decisions_with_words_that_it_does_not_know(client: TestClient) -> None:
    pair = {"query": "a" * 64, "reference": "b" * 64}
    wrong = client.post("/v1/decisions", json={**pair, "decision": "reject", "onn": "pair"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_request")
    assert "onn" in wrong.json()["detail"]
    assert client.post("/v1/decisions", json={**pair, "decision": "reject"}).status_code == 201


def test_describes_fields_as_it_describes_options(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/collections/{collection}/images", "/v1/collections/{collection}/search"):
        operation = paths[path]["post"]
        options = {one["name"]: one for one in operation["parameters"] if one["in"] == "query"}
        content = operation["requestBody"]["content"]
        assert len(options) > 2
        for kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            schema = content[kind]["schema"]
            fields = schema["properties"]
            assert fields.keys() - options.keys() <= {"image", "image_url"}
            assert not schema["additionalProperties"]
            for name, option in options.items():
                assert fields[name].get("default") == option["schema"].get("default")
                assert fields[name].get("description") == option.get("description")
    lenient = paths["/rest/search/"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert lenient["schema"]["additionalProperties"]


def test_knows_its_options_before_the_first_request(
    client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_room, "get_openapi", None)  # which two threads may not call at once
    assert add(client, pictures[0].read_bytes(), "a").status_code == 201
