"""Uploads: held to their limits while they stream, whatever they announce; nothing stays behind."""

import asyncio
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from tests.service.conftest import Serving, add, search
from vit4icd.service import Limits
from vit4icd.service.problems import Problem
from vit4icd.service.uploads import Uploads

Messages = list[dict[str, Any]]


def _request(
    messages: Messages, content_type: str, delay_s: float = 0.0
) -> tuple[Request, list[int]]:
    """Return a request whose body comes in these messages, and how many were taken."""
    taken: list[int] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(delay_s)
        taken.append(1)
        return messages[len(taken) - 1]

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive), taken


def _pieces(*pieces: bytes) -> Messages:
    return [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]


def _problem(uploads: Uploads, request: Request, *, n_pictures: int = 1) -> str:
    async def read() -> None:
        async with uploads.receive(request, n_pictures=n_pictures):
            pass

    with pytest.raises(Problem) as refused:
        asyncio.run(read())
    return refused.value.code


def test_stops_reading_where_the_limit_is_passed() -> None:
    uploads = Uploads(Limits(max_bytes=100_000))
    request, taken = _request(_pieces(*[b"x" * 50_000] * 1_000), "image/jpeg")
    assert _problem(uploads, request) == "too_large"
    assert len(taken) <= 5
    assert uploads.held_bytes == 0


@pytest.mark.parametrize("n_parts", [20, 5_000])
def test_stops_at_too_many_parts(n_parts: int) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    request, _ = _request(_pieces(*[part] * n_parts, b"--b--"), "multipart/form-data; boundary=b")
    assert _problem(Uploads(Limits(max_parts=16)), request) == "invalid_request"
    files = b'--b\r\nContent-Disposition: form-data; name="x"; filename="y"\r\n\r\n1\r\n'
    request, _ = _request(_pieces(*[files] * 3, b"--b--"), "multipart/form-data; boundary=b")
    assert _problem(Uploads(Limits()), request, n_pictures=2) == "invalid_request"


def test_stops_at_long_fields_that_are_no_pictures() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
    request, _ = _request(
        _pieces(head, *[b"y" * 50_000] * 4, b"\r\n--b--"), "multipart/form-data; boundary=b"
    )
    assert _problem(Uploads(Limits()), request) == "invalid_request"


def test_stops_at_too_many_or_long_fields_without_parts() -> None:
    for body in (b"&".join([b"x=1"] * 20), b"x=" + b"y" * 100_000):
        request, _ = _request(_pieces(body), "application/x-www-form-urlencoded")
        assert _problem(Uploads(Limits()), request) in ("invalid_request", "too_large")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n--b--"),
    ],
)
def test_refuses_malformed_forms(content_type: str, body: bytes) -> None:
    request, _ = _request(_pieces(body), content_type)
    assert _problem(Uploads(Limits()), request) == "invalid_request"


def test_takes_a_picture_that_is_cut_off_for_none(client: TestClient) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n\xff\xd8\xff'
    answer = client.post(
        "/v1/collections/mine/search",
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("name", "value"), [("id", "\\udc80"), ("id", "\\ud800"), ("\\ud800", "any")]
)
def test_refuses_texts_that_no_utf_8_can_write(
    client: TestClient, pictures: list[Path], name: str, value: str
) -> None:
    picture = pictures[0].read_bytes()
    body = (
        (
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            '--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
        ).encode()
        + picture
        + b"\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x; charset=raw_unicode_escape"
    for call in ("images", "search"):
        answer = client.post(
            f"/v1/collections/mine/{call}", content=body, headers={"Content-Type": kind}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert client.get("/v1/collections/mine/images").json()["images"] == []


def test_refuses_other_kinds_of_bodies(client: TestClient) -> None:
    for kind in ("application/json", "text/html", "application/xml"):
        answer = client.post(
            "/v1/collections/mine/search", content=b"{}", headers={"Content-Type": kind}
        )
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")


def test_says_how_a_picture_is_sent_that_came_as_a_form(
    client: TestClient, pictures: list[Path]
) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl --data-binary says
    for data in (pictures[0].read_bytes(), b"\xff\xd8\xff" + b"x=1&" * 100_000):
        answer = client.post("/v1/collections/mine/search", content=data, headers=form)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")
        assert "-F image=@FILE" in answer.json()["detail"]


def test_gives_slow_uploads_up() -> None:
    uploads = Uploads(Limits(max_seconds=0.2))
    request, _ = _request(_pieces(*[b"x"] * 1_000), "image/jpeg", delay_s=0.05)
    assert _problem(uploads, request) == "too_slow"
    assert uploads.held_bytes == 0


def test_gives_memory_back_when_a_client_hangs_up() -> None:
    uploads = Uploads(Limits())
    messages = [*_pieces(b"x" * 1_000, b"y")[:1], {"type": "http.disconnect"}]
    request, _ = _request(messages, "image/jpeg")
    assert _problem(uploads, request) == "invalid_request"
    assert uploads.held_bytes == 0


def test_holds_no_more_than_it_may_of_all_uploads_together() -> None:
    uploads = Uploads(Limits(max_held_bytes=3_000))

    async def both() -> str:
        first, _ = _request(_pieces(b"x" * 2_000), "image/jpeg")
        second, _ = _request(_pieces(b"x" * 2_000), "image/jpeg")
        async with uploads.receive(first):
            try:
                async with uploads.receive(second):
                    return "taken"
            except Problem as problem:
                return problem.code

    assert asyncio.run(both()) == "busy"
    assert uploads.held_bytes == 0


def _bomb(side: int) -> bytes:
    """Return a PNG of a few bytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def test_refuses_pictures_of_too_many_pixels_before_decoding(filled: TestClient) -> None:
    for answer in (add(filled, _bomb(60_000), "bomb"), search(filled, _bomb(60_000))):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_writes_no_upload_to_a_temporary_file(
    watched: Path, client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    padded = pictures[0].read_bytes() + b"\0" * 3_000_000
    assert add(client, padded, "x").status_code == 201
    assert list(watched.iterdir()) == []


def test_answers_busy_when_the_queue_is_full_and_recovers(
    serving: Serving, pictures: list[Path]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    data = pictures[0].read_bytes()
    with serving(max_waiting=2, n_threads=1) as client:
        add(client, data, "x")
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: search(client, data), range(48)))
        codes = {answer.status_code for answer in answers}
        assert codes == {200, 429}
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert int(busy.headers["retry-after"]) >= 1
        assert busy.json()["code"] == "busy"
        assert search(client, data).status_code == 200


def test_cuts_off_heads_that_do_not_come(
    live: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = live(head_seconds=0.4)
    slow = b"GET /healthz HTTP/1.1\r\nX: "
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(slow)
        assert connection.recv(100) == b""  # closed, with nothing said
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"y" * 200_000 + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 4")


def test_answers_those_who_ask_for_a_head_alone(live: Callable[..., Any]) -> None:
    port = live()
    for path in ("/healthz", "/login"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            request = f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            answer = b"".join(iter(lambda: connection.recv(4_096), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\n")  # and no body
