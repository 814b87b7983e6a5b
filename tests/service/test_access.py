"""Who may do what: secure as it comes, keys with scopes, the page's own requests only."""

import ast
import asyncio
import logging
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import ADDRESS, add, bearer, search, token_of
from vit4icd.errors import ConfigError
from vit4icd.service import access, require_safe
from vit4icd.service.keys import Key, Keys
from vit4icd.service.policy import HEADERS
from vit4icd.service.sessions import COOKIE

SERVICE = Path(__file__).parents[2] / "src" / "vit4icd" / "service"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_listens_on_the_loopback_only_unless_there_are_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="--make-key admin"):
        require_safe(host, None)
    require_safe(host, Keys((Key("read", "0" * 64),)))
    require_safe("127.0.0.1", None)


def test_lets_each_key_do_what_its_scope_allows(
    guarded: TestClient, keys: dict[str, str], pictures: list[Path]
) -> None:
    data, path = pictures[0].read_bytes(), "/v1/collections/mine/images"

    def put(headers: dict[str, str]) -> int:
        files = {"image": ("x.jpg", data)}
        return guarded.post(path, params={"id": "x"}, files=files, headers=headers).status_code

    assert put({}) == 401
    assert put(bearer("v4i_wrong")) == 401
    assert put(bearer(keys["read"])) == 403
    assert put(bearer(keys["admin"])) == 201
    basic = guarded.get(path, auth=("anybody", keys["read"]))
    assert basic.status_code == 200
    assert guarded.get(path).headers["www-authenticate"].startswith("Bearer")
    for method, address in (("DELETE", f"{path}/x"), ("POST", "/v1/decisions")):
        answer = guarded.request(method, address, headers=bearer(keys["read"]))
        assert answer.status_code == 403


SEARCHES = {  # what is no GET, and yet adds, removes and decides nothing
    ("POST", "/v1/collections/{collection}/search"): "a picture comes with it",
    ("POST", "/v1/compare"): "pictures come with it",
    ("POST", "/rest/search/"): "a picture comes with it",
    ("POST", "/rest/search"): "the same",
    ("POST", "/rest/compare/"): "pictures come with it",
    ("POST", "/rest/compare"): "the same",
    ("POST", "/rest/list/"): "its options may come as fields",
    ("POST", "/rest/list"): "the same",
}
BY_GET = {  # what changes things as MatchEngine's clients ask it: by a GET, with a header
    ("GET", f"/rest/{call}{end}") for call in ("add", "delete") for end in ("", "/")
}
OPEN = {  # what is answered without a key
    "/healthz": "who watches the service needs none",
    "/readyz": "the same",
    "/": "leads to the login",
    "/login": "asks for the key",
    "/logout": "only takes the cookie away",
    "/static/{name}": "the login has a style; the files are public",
    "/docs": "says what the source says",
    "/openapi.json": "the same",
}


def _operations(client: TestClient) -> set[tuple[str, str]]:
    """Return all methods and paths: those of the document, and those that it leaves out."""
    document = client.get("/openapi.json").json()["paths"]
    described = {(method.upper(), path) for path, methods in document.items() for method in methods}
    app: Any = client.app
    parts = [getattr(part, "original_router", None) for part in app.routes]
    routes = [*app.routes, *(route for part in parts if part for route in part.routes)]
    every = {
        (method, route.path)
        for route in routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    served = {(method, path.replace(":path}", "}")) for method, path in every}
    assert described < served
    return served


def _logged_in(client: TestClient, key: str) -> dict[str, str]:
    """Return the headers of the page's requests."""
    client.post("/login", data={"key": key})
    cookie, token = client.cookies[COOKIE], token_of(client.get("/").text)
    client.cookies.clear()
    return {"Cookie": f"{COOKIE}={cookie}", "Origin": ADDRESS, "X-CSRF-Token": token}


@pytest.mark.parametrize("way", ["bearer", "basic", "session"])
@pytest.mark.parametrize("scope", ["read", "admin"])
def test_lets_keys_that_read_change_nothing_and_others_everything(
    guarded: TestClient, keys: dict[str, str], scope: str, way: str
) -> None:
    key = keys[scope]
    if way == "session":
        headers = _logged_in(guarded, key)
    else:
        basic = "Basic " + b64encode(f"anybody:{key}".encode()).decode()
        headers = bearer(key) if way == "bearer" else {"Authorization": basic}
    served = _operations(guarded)
    for method, path in sorted(served):
        answer = guarded.request(method, path, headers=headers, follow_redirects=False)
        by_get = (method, path) in BY_GET
        changes = method != "GET" and (method, path) not in SEARCHES and path not in OPEN
        if ((changes or by_get) and scope == "read") or (by_get and way == "session"):
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
        else:
            assert answer.status_code not in (401, 403), (method, path)
    assert SEARCHES.keys() | BY_GET <= served


def test_answers_nothing_without_a_key_but_what_is_open(
    guarded: TestClient, keys: dict[str, str]
) -> None:
    served = _operations(guarded)
    for method, path in sorted(served):
        answer = guarded.request(method, path, follow_redirects=False)
        assert (answer.status_code == 401) == (path not in OPEN), (method, path)
        wrong = bearer(keys["admin"][:-1])
        assert guarded.request(method, path, headers=wrong).status_code == 401, (method, path)
    assert OPEN.keys() <= {path for _, path in served}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://["},
        {"Origin": ADDRESS},  # the page itself, but without its token
    ],
)
def test_refuses_changes_that_other_sites_ask_a_browser_for(
    client: TestClient, headers: dict[str, str], pictures: list[Path]
) -> None:
    data = {"image": ("x.jpg", pictures[0].read_bytes())}
    answer = client.post("/v1/collections/mine/images", files=data, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert client.get("/v1/collections").json()["collections"][0]["n_images"] == 0


@pytest.mark.parametrize("host", ["evil.example:8400", "127.0.0.1.evil.example", ""])
def test_refuses_other_names_for_the_loopback(client: TestClient, host: str) -> None:
    answer = client.get("/v1/collections", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "not_addressed")
    for name in ("localhost:8400", "127.0.0.1", "[::1]:8400"):
        assert client.get("/healthz", headers={"Host": name}).status_code == 200


def test_reads_no_body_of_those_without_a_key(guarded: TestClient) -> None:
    kind = {"Content-Type": "application/json"}
    answer = guarded.post("/v1/decisions", content=b"{" * 100_000, headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorised")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/v1/decisions", "/login"])
def test_bounds_bodies_that_are_no_pictures(client: TestClient, path: str) -> None:
    kind = "application/json" if path != "/login" else "application/x-www-form-urlencoded"
    answer = client.post(path, content=b"key=" * 20_000, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_waits_no_longer_for_a_slow_body(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_MAX_BODY_S", 0.01)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(5)
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/decisions", "raw_path": b"/v1/decisions",
        "query_string": b"", "headers": headers,
    }  # fmt: skip
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


def test_logs_what_fails_by_its_number_and_answers_it_by_its_policy(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    held = client.app.state.service  # type: ignore[attr-defined]
    monkeypatch.setattr(held.findings, "queue", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/matches")
    number = answer.headers["x-request-id"]
    assert (answer.status_code, answer.json()["request_id"]) == (500, number)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert number in caplog.text
    assert "a mistake of ours" in caplog.text
    assert 'route="/v1/matches",status="500"} 1.0' in client.get("/metrics").text


def test_sends_its_policy_with_every_answer(client: TestClient) -> None:
    for path in ("/", "/docs", "/static/main.js", "/v1/collections", "/nowhere", "/login"):
        headers = client.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS, path
        assert "access-control-allow-origin" not in headers
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy


def test_has_no_script_inside_a_page_and_loads_nothing_from_elsewhere() -> None:
    for path in [*SERVICE.glob("templates/*"), *SERVICE.glob("static/*")]:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path
        assert "innerHTML" not in text, path
        if path.suffix == ".html":
            assert "<style" not in text, path
            assert ' style="' not in text, path
            assert " on" + "click" not in text, path
            assert text.count("<script") == text.count('src="/static/main.js"></script>'), path


def test_neither_unpickles_nor_evaluates_nor_fetches_as_libraries_do() -> None:
    refused = {"pickle", "marshal", "shelve", "yaml", "requests", "httpx", "urllib.request"}
    for room in SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(room.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not refused & {name.name for name in node.names}, room
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in refused, room
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), room


def test_takes_pickles_and_arrays_for_no_pictures(client: TestClient) -> None:
    for data in (b"\x80\x04\x95\x10\x00\x00\x00", b"\x93NUMPY\x01\x00v\x00", b"PK\x03\x04"):
        assert add(client, data, "x").json()["code"] == "unsupported_format"


def test_escapes_names_in_everything_it_says(filled: TestClient, pictures: list[Path]) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    data = pictures[0].read_bytes()
    found = search(filled, data, name, review=True)
    assert found.headers["content-type"].startswith("application/json")
    assert found.json()["query"]["name"] == name
    problem = filled.get(f"/v1/collections/{name}/images")
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.headers["x-content-type-options"] == "nosniff"
