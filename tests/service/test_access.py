"""Who may do what: secure as it comes, keys with scopes, the page's own requests only."""

import ast
import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import ADDRESS, Serving, add, search
from vit4icd.errors import ConfigError
from vit4icd.service import access, make_key, read_keys, require_safe
from vit4icd.service.keys import Key, Keys
from vit4icd.service.policy import HEADERS
from vit4icd.service.sessions import COOKIE, Sessions, read_secret

SERVICE = Path(__file__).parents[2] / "src" / "vit4icd" / "service"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A read and an admin key, their lines in keys.txt."""
    made = {"read": make_key("read"), "admin": make_key("admin")}
    text = "# ours\n\n" + "".join(f"{line}\n" for _, line in made.values())
    (tmp_path / "keys.txt").write_text(text)
    return {scope: key for scope, (key, _) in made.items()}


@pytest.fixture
def guarded(serving: Serving, keys: dict[str, str], tmp_path: Path) -> Iterator[TestClient]:
    with serving(keys=read_keys(tmp_path / "keys.txt"), host="0.0.0.0") as client:
        yield client


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keeps_hashes_of_keys_and_not_the_keys(keys: dict[str, str], tmp_path: Path) -> None:
    text = (tmp_path / "keys.txt").read_text()
    known = read_keys(tmp_path / "keys.txt")
    for scope, key in keys.items():
        assert key not in text
        found = known.find(key)
        assert found is not None
        assert found.scope == scope
        assert known.find(key[:-1]) is None
    assert known.find("") is None


@pytest.mark.parametrize("text", ["", "# none\n", "admin sha256:12\n", "root sha256:" + "0" * 64])
def test_refuses_files_that_hold_no_keys(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(text)
    with pytest.raises(ConfigError, match="--make-key"):
        read_keys(tmp_path / "keys.txt")


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
    assert put(_bearer("v4i_wrong")) == 401
    assert put(_bearer(keys["read"])) == 403
    assert put(_bearer(keys["admin"])) == 201
    basic = guarded.get(path, auth=("anybody", keys["read"]))
    assert basic.status_code == 200
    assert guarded.get(path).headers["www-authenticate"].startswith("Bearer")
    for method, address in (("DELETE", f"{path}/x"), ("POST", "/v1/decisions")):
        answer = guarded.request(method, address, headers=_bearer(keys["read"]))
        assert answer.status_code == 403


def test_opens_no_route_without_a_key_but_those_of_health(guarded: TestClient) -> None:
    document = guarded.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            status = guarded.request(method, path).status_code
            expected = 200 if path in ("/healthz", "/readyz") else 401
            assert status == expected, (method, path)


def test_logs_people_in_and_asks_for_the_token_of_the_page(
    guarded: TestClient, keys: dict[str, str]
) -> None:
    assert guarded.get("/", follow_redirects=False).headers["location"] == "/login"
    assert guarded.post("/login", data={"key": "v4i_wrong"}).status_code == 401
    answer = guarded.post("/login", data={"key": keys["admin"]}, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = guarded.get("/").text
    token = page.split('name="csrf-token" content="')[1].split('"')[0]
    body = {"decision": "never", "reference": "0" * 64}
    origin = {"Origin": ADDRESS}
    assert guarded.post("/v1/decisions", json=body, headers=origin).status_code == 403
    assert guarded.post("/v1/decisions", json=body).status_code == 403  # the cookie alone
    right = origin | {"X-CSRF-Token": token}
    assert guarded.post("/v1/decisions", json=body, headers=right).status_code == 201
    foreign = {"Origin": "https://example.org", "X-CSRF-Token": token}
    assert guarded.post("/v1/decisions", json=body, headers=foreign).status_code == 403
    guarded.cookies.clear()
    guarded.cookies.set(COOKIE, "ended")
    assert guarded.post("/v1/decisions", json=body, headers=right).status_code == 401


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


def test_ends_sessions_with_their_key_their_time_and_their_signature(tmp_path: Path) -> None:
    sessions = Sessions(read_secret(tmp_path / "secret"))
    assert sessions.secret == read_secret(tmp_path / "secret")
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    key = Key("read", "1" * 64)
    cookie = sessions.begin(key, now=1_000)
    assert sessions.key_of(cookie, Keys((key,)), now=1_000) == key
    assert sessions.key_of(cookie, Keys((Key("read", "2" * 64),)), now=1_000) is None
    assert sessions.key_of(cookie, Keys((key,)), now=100_000) is None
    later = cookie.replace(".44200.", ".99999.")
    assert later != cookie
    assert sessions.key_of(later, Keys((key,)), now=1_000) is None
    (tmp_path / "secret").write_bytes(b"")  # as a kill may leave it
    assert len(read_secret(tmp_path / "secret")) == len(sessions.secret)
    for nonsense in ("", ".", "..", "a.b.c", f"{COOKIE}=x"):
        assert sessions.key_of(nonsense, Keys((key,)), now=1_000) is None


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
