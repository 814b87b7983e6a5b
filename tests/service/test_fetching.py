"""URLs of clients: fetched from public hosts only, within bounds, and not at all by default."""

import asyncio
import gzip
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serving
from vit4icd.service import addresses, fetching
from vit4icd.service.addresses import Address, is_elsewhere, is_own, is_public
from vit4icd.service.fetching import Fetcher, read_url
from vit4icd.service.problems import Problem

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"  # in these tests the first passes for a public address

TLS = ssl.create_default_context()

Page = Callable[[BufferedIOBase], object]


@dataclass(slots=True)
class Web:
    """A web server on the loopback: pages by their paths, and what was asked of it."""

    port: int = 0
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def url(self, path: str = "/x", host: str = "pictures.example") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self, path: str, head: str, body: bytes = b"") -> None:
        """Answer with these lines of a head, and this body."""
        answer = f"HTTP/1.1 {head}\r\n\r\n".encode() + body
        self.pages[path] = lambda out: out.write(answer)

    def redirect(self, path: str, to: str) -> None:
        self.serve(path, f"302 Found\r\nLocation: {to}\r\nSet-Cookie: a=b\r\nContent-Length: 0")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients of these tests hang up."""


@pytest.fixture
def web() -> Iterator[Web]:
    with _started(Web(), HERE) as made:
        yield made


class _started:  # noqa: N801 - used as a verb
    """Runs a server while a block lasts."""

    def __init__(self, web: Web, host: str, tls: ssl.SSLContext | None = None) -> None:
        class Handler(socketserver.StreamRequestHandler):
            timeout = 20

            def handle(self) -> None:
                lines = []
                while (line := self.rfile.readline().decode()).strip():
                    lines.append(line)
                if lines:
                    web.requests.append("".join(lines))
                    web.pages[lines[0].split()[1]](self.wfile)

        self.web, self.server = web, _Server((host, web.port), Handler)
        self.server.tls = tls
        web.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> Web:
        self.thread.start()
        return self.web

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _is_here(address: Address) -> bool:
    return str(address) == HERE


def _fetcher(web: Web, **options: Any) -> Fetcher:
    known = {
        "max_seconds": 10.0, "ports": {web.port}, "resolve": lambda host: [HERE],
        "permits": _is_here, "tls": TLS,
    }  # fmt: skip
    return Fetcher(100_000, **{**known, **options})


def _fetched(web: Web, url: str | None = None, **options: Any) -> bytes:
    async def fetch() -> bytes:
        fetcher = _fetcher(web, **options)
        try:
            return await fetcher.fetch(web.url() if url is None else url, lambda n_bytes: None)
        finally:
            fetcher.close()

    return asyncio.run(fetch())


def _problem(web: Web, url: str | None = None, **options: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        _fetched(web, url, **options)
    return refused.value


def _refuse(*_: object, **__: object) -> Any:
    raise AssertionError("a name was resolved, or an address connected to")


# What is asked for


def test_fetches_what_is_there_and_sends_nothing_of_its_own(web: Web) -> None:
    web.serve("/a%20b?c=d", "200 OK\r\nContent-Length: 4", b"data")
    assert _fetched(web, web.url("/a%20b?c=d#e")) == b"data"
    (asked,) = web.requests
    names = {line.partition(":")[0].lower() for line in asked.splitlines()[1:]}
    assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert f"Host: pictures.example:{web.port}\r\n" in asked


@pytest.mark.parametrize("head", [
    "200 OK\r\nContent-Type: text/html\r\nContent-Length: 4",
    "200 OK\r\nConnection: close",
    "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4",
])  # fmt: skip
def test_takes_every_kind_of_content_and_length(web: Web, head: str) -> None:
    web.serve("/x", head, b"data")
    assert _fetched(web) == b"data"


def test_takes_pieces(web: Web) -> None:
    web.serve("/x", "200 OK\r\nTransfer-Encoding: chunked", b"2\r\nda\r\n2\r\nta\r\n0\r\n\r\n")
    assert _fetched(web) == b"data"


def test_passes_proxies_by(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.serve("/x", "200 OK\r\nContent-Length: 4", b"data")
    with _started(Web(), HERE) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url("", HERE))
        assert _fetched(web) == b"data"
        assert proxy.requests == []


# Where it may lie

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.9",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8",
    "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:4136:e378::1",
    "2001:2::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1",
    "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%2", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_connects_to_no_address_that_is_not_public(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "open_connection", _refuse)
    assert not is_public(ip_address(address))
    fetcher = Fetcher(1, tls=TLS, resolve=lambda host: [address])
    with pytest.raises(Problem) as refused:
        asyncio.run(fetcher.fetch("http://pictures.example/", lambda n_bytes: None))
    assert refused.value.code == "url_not_allowed"


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "100.63.0.1", "2606:4700::1111"])
def test_takes_other_addresses_for_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_does_not_ask_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    public = ip_address("8.8.8.8")
    assert [is_own(ip_address(own)) for own in (HERE, "8.8.8.8", "2606:4700::1111")] == [
        True, False, False,
    ]  # fmt: skip
    assert is_elsewhere(public)
    monkeypatch.setattr(addresses, "is_own", lambda address: address == public)
    assert not is_elsewhere(public)


@pytest.mark.parametrize("host", [
    "2130706433", "017700000001", "0x7f000001", "0x7f.1", "0X7F.0.0.1", "0177.0.0.1", "127.1",
    "127.0.1", "127.0.0.01", "127.0.0.1.", "0", "0x", "1.2.3.0x4", "127.0.0.0x1", "256.256.256.256",
    "127.0.0.1", "169.254.169.254", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]", "[fe80::1%25eth0]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]",
    "[::1]evil.example", "[127.0.0.1]", "127。0。0。1", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127%2e0.0.1",
    "%31%32%37.0.0.1", "localhost", "LOCALHOST.", "metadata", "", ".", "..", "a..example",
    "-a.example", "a" * 64 + ".example", "a.example." * 30, "user@pictures.example",
    "user:secret@pictures.example", "pictures.example@127.0.0.1", "127.0.0.1\\@pictures.example",
    "127.0.0.1 pictures.example", "pictures.example\t", "127.0.0.1\r\nX: y", "pictures.example\0",
    "bücher.example",
])  # fmt: skip
def test_knows_no_odd_spelling_of_a_host(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _refuse)
    monkeypatch.setattr(asyncio, "open_connection", _refuse)
    for url in (f"http://{host}/x", f"https://{host}:443"):
        with pytest.raises(Problem) as refused:
            asyncio.run(Fetcher(1, tls=TLS).fetch(url, lambda n_bytes: None))
        assert refused.value.code == "url_not_allowed"


@pytest.mark.parametrize("url", [
    "", "x", "//pictures.example/x", "file:///etc/passwd", "ftp://pictures.example/x",
    "gopher://pictures.example/x", "data:image/png;base64,AAAA", "jar:http://pictures.example!/x",
    "javascript:alert(1)", "http:/pictures.example/x", "http:pictures.example", "https://",
    "http://pictures.example:22/x", "http://pictures.example:8080/", "http://pictures.example:0/",
    "http://pictures.example:99999/", "http://pictures.example:80:80/", "http://pictures.example:-1/",
    "http://pictures.example:x/", "http://[::1/", "http://[x]/", "http://pictures.example/a b",
    "http://pictures.example/\n", "http://pictures.example/" + "x" * 5_000,
])  # fmt: skip
def test_takes_only_plain_urls_of_web_servers(url: str) -> None:
    with pytest.raises(Problem) as refused:
        read_url(url)
    assert refused.value.code == "url_not_allowed"


def test_reads_a_url_once_and_sends_what_it_read() -> None:
    place = read_url("https://Pictures.Example.:443/ä;b?q=<é>&r=%2F")
    assert (place.host, place.authority, place.port) == ("pictures.example",) * 2 + (443,)
    assert place.target == "/%C3%A4;b?q=%3C%C3%A9%3E&r=%2F"
    assert read_url("http://[2606:4700::1111]/").authority == "[2606:4700::1111]"
    assert read_url("http://1.1.1.1").address == ip_address("1.1.1.1")


def test_resolves_once_and_connects_to_what_was_checked(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.serve("/x", "200 OK\r\nContent-Length: 4", b"data")
    answers = [[HERE], [ELSEWHERE]]  # a name that is bound to another address at once
    monkeypatch.setattr(socket, "getaddrinfo", _refuse)
    assert _fetched(web, resolve=lambda host: answers.pop(0)) == b"data"
    assert answers == [[ELSEWHERE]]


def test_checks_a_name_again_at_each_redirect(web: Web) -> None:
    web.redirect("/x", "/inner")
    answers = [[HERE], [ELSEWHERE]]
    with _started(Web(web.port, {"/inner": lambda out: None}), ELSEWHERE) as inner:
        assert _problem(web, resolve=lambda host: answers.pop(0)).code == "url_not_allowed"
        assert (answers, inner.requests, len(web.requests)) == ([], [], 1)


def test_uses_no_name_of_which_one_address_is_private(web: Web) -> None:
    for found in ([HERE, ELSEWHERE], [ELSEWHERE, HERE], ["fe80::1%1", HERE], []):
        assert _problem(web, resolve=lambda host, found=found: found).code == "url_not_allowed"
    assert web.requests == []


def test_says_the_same_of_hosts_within_whatever_they_are(web: Web) -> None:
    def unknown(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    with socket.socket() as closed:
        closed.bind((ELSEWHERE, 0))
        ports = {web.port, closed.getsockname()[1]}
        said = {
            str(_problem(web, f"http://inner.example:{port}/", resolve=names, ports=ports))
            for port in ports
            for names in (unknown, lambda host: [ELSEWHERE], lambda host: ["nonsense"])
        }
    assert len(said) == 1


def test_completes_no_name_by_a_domain_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, 1, 6, "", ("8.8.8.8", 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert fetching.resolve_name("pictures.example") == ["8.8.8.8"]
    assert asked == ["pictures.example."]


# Redirects


def test_follows_three_redirects_and_no_more(web: Web) -> None:
    for number in range(5):
        web.redirect(f"/{number}", f"/{number + 1}")
    web.serve("/3", "200 OK\r\nContent-Length: 4", b"data")
    assert _fetched(web, web.url("/0")) == b"data"
    assert not any("cookie" in request.lower() for request in web.requests)
    web.redirect("/3", "/4")
    refused = _problem(web, web.url("/0"))
    assert (refused.code, "3 times" in refused.detail) == ("url_unreachable", True)
    assert not any("/4" in request for request in web.requests)


@pytest.mark.parametrize("to", [
    "http://{ELSEWHERE}:{port}/x", "//{ELSEWHERE}:{port}/x", "http://2130706434:{port}/",
    "http://[::ffff:{ELSEWHERE}]:{port}/", "http://inner.example:{port}/", "http://localhost:{port}/",
    "http://user@pictures.example:{port}/", "http://pictures.example:22/", "file:///etc/passwd",
    "http://[", "http://pictures.example\\@{ELSEWHERE}:{port}/", "http://b\xfccher.example:{port}/",
])  # fmt: skip
def test_checks_where_a_redirect_leads(web: Web, to: str) -> None:
    names = {"pictures.example": [HERE], "inner.example": [ELSEWHERE]}
    web.redirect("/0", "/1")
    web.redirect("/1", to.format(ELSEWHERE=ELSEWHERE, port=web.port))
    with _started(Web(web.port), ELSEWHERE) as inner:
        assert _problem(web, web.url("/0"), resolve=names.get).code == "url_not_allowed"
        assert inner.requests == []
    assert len(web.requests) == 2


# How much it may cost


def _forever(head: bytes, piece: bytes, delay_s: float = 0.0) -> tuple[Page, list[int]]:
    """Return a page without an end, and how much of it was sent."""
    sent = []

    def page(out: BufferedIOBase) -> None:
        out.write(head)
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            out.write(piece)
            sent.append(len(piece))
            time.sleep(delay_s)

    return page, sent


@pytest.mark.parametrize(("head", "piece"), [
    (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 5_000),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n", b"x"),
])  # fmt: skip
def test_stops_at_the_limit_of_bytes(web: Web, head: bytes, piece: bytes) -> None:
    web.pages["/x"], sent = _forever(head, piece)
    assert _problem(web).code == "too_large"
    assert sum(sent) < 20_000_000  # what the buffers of the system hold


@pytest.mark.parametrize("page", [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 9_000 + b"0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 30_000 + b"HTTP/1.1 200 OK\r\n\r\ndata",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300_000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndata",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ndata",
    b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\ndata",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"\0" * 10_000_000),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 302 Found\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 9,
    b"",
], ids=range(16))  # fmt: skip
def test_gives_answers_up_that_are_not_as_they_should_be(web: Web, page: bytes) -> None:
    web.pages["/x"] = lambda out: out.write(page)
    assert _problem(web).code == "url_unreachable"


def test_keeps_what_is_compressed_as_it_is(web: Web) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    web.serve("/x", f"200 OK\r\nContent-Length: {len(bomb)}", bomb)
    assert _fetched(web) == bomb


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_gives_up_what_drips(web: Web, head: bytes) -> None:
    web.pages["/x"], _ = _forever(head, b"x", delay_s=0.02)
    began = time.monotonic()
    assert _problem(web, max_seconds=0.5).code == "url_unreachable"
    assert time.monotonic() - began < 5


def test_waits_for_no_name_longer_than_for_the_rest(web: Web) -> None:
    known = threading.Event()
    try:
        assert _problem(web, max_seconds=0.3, resolve=lambda host: known.wait(20)).code == (
            "url_unreachable"
        )
    finally:
        known.set()


def test_gives_up_ports_that_are_closed(web: Web) -> None:
    with socket.socket() as closed:
        closed.bind((HERE, 0))
        port = closed.getsockname()[1]
        url = f"http://pictures.example:{port}/"
        assert _problem(web, url, ports={port}).code == "url_unreachable"


def test_tells_of_each_piece_and_stops_where_there_is_no_room(web: Web) -> None:
    web.pages["/x"], _ = _forever(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 5_000)
    held = []

    def take(n_bytes: int) -> None:
        held.append(n_bytes)
        if sum(held) > 50_000:
            raise Problem("busy", "no room")

    with pytest.raises(Problem) as refused:
        asyncio.run(_fetcher(web).fetch(web.url(), take))
    assert refused.value.code == "busy"
    assert sum(held) < 70_000


def test_lets_a_slow_host_keep_no_other_waiting(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_WAIT_S", 0.5)
    web.pages["/slow"], _ = _forever(b"HTTP/1.1 200 OK\r\n\r\n", b"x", delay_s=0.02)
    web.serve("/x", "200 OK\r\nContent-Length: 4", b"data")

    async def fetch() -> list[object]:
        fetcher = _fetcher(web, max_seconds=3.0)

        async def code(url: str) -> object:
            try:
                return await fetcher.fetch(url, lambda n_bytes: None)
            except Problem as problem:
                return problem.code

        slow = [asyncio.create_task(code(web.url("/slow", "slow.example"))) for _ in range(7)]
        await asyncio.sleep(0.1)
        other = await code(web.url("/x", "other.example"))
        return [other, *await asyncio.gather(*slow)]

    other, *slow = asyncio.run(fetch())
    assert other == b"data"
    assert (slow.count("url_unreachable"), slow.count("busy")) == (4, 3)
    assert sum("/slow" in request for request in web.requests) == 4


# Certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of pictures.example, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    path, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=pictures.example", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=DNS:pictures.example", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + key.read_text())
    return path


def test_asks_for_the_certificate_of_the_host_not_of_its_address(certificate: Path) -> None:
    named: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    tls.sni_callback = lambda connection, name, context: named.append(name)
    known = ssl.create_default_context(cafile=certificate)
    with _started(Web(), HERE, tls) as web:
        web.serve("/x", "200 OK\r\nContent-Length: 4", b"data")
        url = web.url().replace("http:", "https:")
        assert _fetched(web, url, tls=known) == b"data"
        assert named == ["pictures.example"]
        for refused in (
            _problem(web, url),
            _problem(web, url.replace("pictures", "others"), tls=known),
        ):
            assert (refused.code, "certificate" in refused.detail) == ("url_unreachable", True)
    assert len(web.requests) == 1


# As a part of the service


@pytest.fixture
def asking(serving: Serving, web: Web, pictures: list[Path]) -> Iterator[TestClient]:
    """A service that takes the server of these tests for a public one."""
    for path in pictures[:2]:
        data = path.read_bytes()
        web.serve(f"/{path.name}", f"200 OK\r\nContent-Length: {len(data)}", data)
    web.serve("/text", "200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 4", b"text")
    with serving(allow_urls=True) as client:
        client.app.state.service.uploads.fetcher = _fetcher(web)  # type: ignore[attr-defined]
        yield client


def test_adds_searches_and_compares_what_it_fetched(
    asking: TestClient, web: Web, pictures: list[Path]
) -> None:
    one, two = (web.url(f"/{path.name}") for path in pictures[:2])
    mine = "/v1/collections/mine"
    added = asking.post(f"{mine}/images", params={"id": "one"}, data={"image_url": one})
    assert added.status_code == 201, added.text
    again = asking.post(f"{mine}/images?id=one", files={"image": pictures[0].read_bytes()})
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    found = asking.post(f"{mine}/search", files={"image_url": (None, one)}).json()
    assert found["query"]["name"] == pictures[0].name
    assert found["matches"][0]["verdict"] == "exact"
    same = asking.post("/v1/compare", data={"query_url": one, "reference_url": one})
    assert same.json()["match"]["verdict"] == "exact"
    mixed = asking.post(
        "/v1/compare", data={"query_url": two}, files={"reference": pictures[0].read_bytes()}
    )
    assert mixed.status_code == 200, mixed.text
    assert asking.app.state.service.uploads.held_bytes == 0  # type: ignore[attr-defined]


def test_takes_the_urls_of_matchengine(asking: TestClient, web: Web, pictures: list[Path]) -> None:
    one, two = (web.url(f"/{path.name}") for path in pictures[:2])
    many = {"urls[0]": one, "filepaths[0]": "a.jpg", "urls[1]": two, "filepaths[1]": "b.jpg"}
    assert asking.post("/rest/add/", data=many).json()["status"] == "ok"
    assert asking.post("/rest/add/", data={"url": two, "filepath": "c.jpg"}).status_code == 200
    assert asking.get("/rest/list/").json()["result"] == ["a.jpg", "b.jpg", "c.jpg"]
    rows = asking.post("/rest/search/", data={"url": one}).json()["result"]
    assert rows[0]["filepath"] == "a.jpg"
    compared = asking.post("/rest/compare/", data={"url1": one, "url2": one}).json()
    assert (compared["status"], len(compared["result"])) == ("ok", 1)


def test_takes_the_urls_of_matchengines_own_client(asking: TestClient, web: Web) -> None:
    one, two = web.url("/000.jpg"), web.url("/001.jpg")
    many = {"urls[0]": one, "filepaths[0]": "a.jpg", "urls[1]": two, "filepaths[1]": "b.jpg"}
    key = ("anybody", "any")
    assert asking.get("/rest/add/", params=many, auth=key).json()["status"] == "ok"
    assert asking.get("/rest/list/").json()["result"] == ["a.jpg", "b.jpg"]
    flip: dict[str, Any] = {"min_score": 0, "check_horizontal_flip": "False"}
    asked: dict[str, Any] = {"url": one, "offset": 0, "limit": 10} | flip
    rows = asking.get("/rest/search/", params=asked).json()["result"]
    assert rows[0]["filepath"] == "a.jpg"
    same = {"url1": one, "url2": one} | flip
    assert len(asking.get("/rest/compare/", params=same).json()["result"]) == 1


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_adds_what_is_behind_those_urls_that_have_a_picture(
    asking: TestClient, web: Web, bad: int
) -> None:
    urls = [web.url("/000.jpg"), web.url("/001.jpg")]
    urls.insert(bad, web.url("/nowhere"))
    sent = {f"urls[{row}]": url for row, url in enumerate(urls)}
    named = {f"filepaths[{row}]": f"{row}.jpg" for row in range(3) if row != bad}
    answer = asking.post("/rest/add/", data=sent | named)
    assert (answer.status_code, answer.json()["status"]) == (200, "warn")
    (error,) = answer.json()["error"]
    assert error.startswith(f"{urls[bad]}: ")
    assert asking.get("/rest/list/").json()["result"] == [*named.values()]


def test_fetches_no_more_than_may_be_uploaded(asking: TestClient, web: Web) -> None:
    many = {f"urls[{row}]": web.url("/000.jpg") for row in range(17)}
    answer = asking.get("/rest/add/", params=many, auth=("anybody", "any"))
    assert (answer.status_code, answer.json()["status"]) == (400, "fail")
    assert web.requests == []


def test_judges_what_it_fetched_by_its_content(asking: TestClient, web: Web) -> None:
    answer = asking.post("/v1/collections/mine/search", data={"image_url": web.url("/text")})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")


def test_takes_a_picture_or_its_url(asking: TestClient, web: Web, pictures: list[Path]) -> None:
    answer = asking.post(
        "/v1/collections/mine/search",
        data={"image_url": web.url(f"/{pictures[0].name}")},
        files={"image": pictures[0].read_bytes()},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert web.requests == []


@pytest.mark.parametrize("url", [
    "http://127.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://2130706433/",
    "http://localhost/", "file:///etc/passwd", "http://127.0.0.1:8400/readyz",
])  # fmt: skip
def test_fetches_nothing_from_within(serving: Serving, url: str) -> None:
    with serving(allow_urls=True) as client:
        for path, name in (("/v1/collections/mine/search", "image_url"), ("/rest/search/", "url")):
            answer = client.post(path, data={name: url})
            assert answer.status_code == 400
            assert "this URL is not fetched" in answer.text


@pytest.mark.parametrize(("path", "names"), [
    ("/v1/collections/mine/images", ["image_url"]), ("/v1/collections/mine/search", ["image_url"]),
    ("/v1/compare", ["query_url", "reference_url"]), ("/rest/add/", ["url"]),
    ("/rest/add/", ["urls[0]"]), ("/rest/search/", ["url"]), ("/rest/compare/", ["url1", "url2"]),
])  # fmt: skip
def test_resolves_nothing_where_it_is_off(
    client: TestClient, path: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _refuse)
    monkeypatch.setattr(asyncio, "open_connection", _refuse)
    urls = dict.fromkeys(names, "http://pictures.example/x")
    for sent in ({"data": urls}, {"files": {name: (None, url) for name, url in urls.items()}}):
        answer = client.post(path, **sent)
        assert answer.status_code == 400, answer.text
        assert "this service fetches nothing" in answer.text
        assert "rest" in path or answer.json()["code"] == "url_input_off"


def test_documents_the_fields_for_urls(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, names in {
        "/v1/collections/{collection}/images": ["image_url"],
        "/v1/compare": ["query_url", "reference_url"],
        "/rest/compare/": ["url1", "url2"],
    }.items():
        for kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            form = paths[path]["post"]["requestBody"]["content"][kind]["schema"]["properties"]
            assert set(names) <= form.keys()
