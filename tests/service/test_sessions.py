"""Sessions of the page: a signed cookie, a token, and over TLS nothing in the clear."""

import hmac
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import ADDRESS, token_of
from vit4icd.service.keys import Key, Keys
from vit4icd.service.server import server_of
from vit4icd.service.sessions import COOKIE, Sessions, read_secret


def test_logs_people_in_and_asks_for_the_token_of_the_page(
    guarded: TestClient, keys: dict[str, str]
) -> None:
    assert guarded.get("/", follow_redirects=False).headers["location"] == "/login"
    assert guarded.post("/login", data={"key": "v4i_wrong"}).status_code == 401
    answer = guarded.post("/login", data={"key": keys["admin"]}, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    token = token_of(guarded.get("/").text)
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


def test_compares_signatures_and_tokens_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    genuine = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append(one)
        return genuine(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    sessions, key = Sessions(b"0" * 32), Key("read", "1" * 64)
    cookie = sessions.begin(key)
    assert sessions.key_of(cookie, Keys(())) is None
    assert compared.pop() == cookie.rpartition(".")[2].encode()
    assert sessions.is_token(sessions.token(cookie), cookie)
    assert compared.pop() == sessions.token(cookie).encode()


def _cookie_by(client: TestClient, peer: str, key: str, *, proto: str | None) -> str:
    """Log in over the server's own layers, as someone at an address, and return the cookie."""
    config = server_of(client.app, host="0.0.0.0", port=0, on_start=print).config  # type: ignore[arg-type]
    config.load()
    asked = TestClient(config.loaded_app, base_url=ADDRESS, client=(peer, 1_024))
    headers = {} if proto is None else {"X-Forwarded-Proto": proto}
    answer = asked.post("/login", data={"key": key}, headers=headers, follow_redirects=False)
    assert answer.status_code == 303
    return answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("believed", "peer", "proto", "is_secure"),
    [
        (None, "127.0.0.1", "https", True),
        (None, "127.0.0.1", "http", False),
        (None, "127.0.0.1", None, False),
        (None, "10.0.0.5", "https", False),
        ("10.0.0.5", "10.0.0.5", "https", True),
        ("10.0.0.5", "10.0.0.6", "https", False),
    ],
)
def test_sends_the_cookie_over_tls_only_where_a_proxy_that_is_believed_says_so(
    guarded: TestClient,
    keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    believed: str | None,
    peer: str,
    proto: str | None,
    is_secure: bool,
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if believed is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", believed)
    assert ("; secure" in _cookie_by(guarded, peer, keys["read"], proto=proto)) == is_secure
