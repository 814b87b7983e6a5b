"""Pictures behind the URLs of clients, fetched from public hosts alone; it judges no picture."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, urljoin, urlsplit
from weakref import WeakValueDictionary

import h11

from vit4icd import __version__
from vit4icd.service.addresses import Address, is_elsewhere
from vit4icd.service.problems import Problem

__all__ = ["PORTS", "Fetcher", "Place", "read_url", "resolve_name"]

PORTS = (80, 443)
"""That are connected to."""

_MAX_REDIRECTS = 3
_MAX_URL = 4_096  # signs
_MAX_HEAD = 32_768  # bytes
_PIECE = 16_384  # bytes that are read at a time
_FREE_PIECES, _PIECE_MEAN = 500, 512  # beyond so many, pieces have so many bytes on average
_CONNECT_S, _MAX_ADDRESSES = 5.0, 3  # for each of a name's first addresses
_WAIT_S, _RETRY_S = 5.0, 5  # for another fetch to end
_N_AT_ONCE, _N_OF_HOST = 16, 4
_N_RESOLVING = 8

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::(\d{1,5})?)?", re.ASCII | re.I)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)  # where it ends a host, the host is an address

Take = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What a URL says, once: host, port and path are taken from here and nowhere else."""

    is_secure: bool
    host: str
    port: int
    target: str
    """Path and query, as they are sent."""
    address: Address | None
    """Where the host is written as an address."""

    @property
    def authority(self) -> str:
        """What is sent as the Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"


class Fetcher:
    """Fetches pictures, so many at a time, and fewer of one host.

    A host's name is resolved once for each hop; unless all its addresses are permitted, none is
    used, and the connection goes to one that was checked. Nothing else is taken from the
    environment, kept from one answer for the next, or sent along: no proxy, cookie or password.
    ``resolve``, ``permits``, ``ports`` and ``tls`` are for tests, which have only a loopback.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        max_seconds: float = 20.0,
        resolve: Callable[[str], Sequence[str]] | None = None,
        permits: Callable[[Address], bool] = is_elsewhere,
        ports: Collection[int] = PORTS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._max_bytes, self._max_seconds = max_bytes, max_seconds
        self._resolve, self._permits, self._ports = resolve or resolve_name, permits, ports
        self._tls = tls or ssl.create_default_context()
        self._resolving = ThreadPoolExecutor(_N_RESOLVING, thread_name_prefix="resolve")
        self._slots = asyncio.Semaphore(_N_AT_ONCE)
        self._slots_of_host = WeakValueDictionary[str, asyncio.Semaphore]()

    async def fetch(self, url: str, take: Take) -> bytes:
        """Return the bytes behind a URL; ``take`` is told of each piece before it is kept.

        Raises:
            Problem: the URL is not allowed, nothing is there, it is too large, or too many wait.
        """
        place = read_url(url, self._ports)
        async with self._slot(place.host):
            try:
                async with asyncio.timeout(self._max_seconds):
                    return await self._follow(place, url, take)
            except TimeoutError as error:
                raise _unreachable(f"took more than {self._max_seconds:g} seconds") from error

    def close(self) -> None:
        """Resolve no more names."""
        self._resolving.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def _slot(self, host: str) -> AsyncIterator[None]:
        """Wait a little until others have ended: those of the same host, then all."""
        of_host = self._slots_of_host.setdefault(host, asyncio.Semaphore(_N_OF_HOST))
        taken = list[asyncio.Semaphore]()
        try:
            try:
                async with asyncio.timeout(_WAIT_S):
                    for slots in (of_host, self._slots):
                        await slots.acquire()
                        taken.append(slots)
            except TimeoutError as error:
                headers = {"Retry-After": str(_RETRY_S)}
                raise Problem("busy", "too many URLs are being fetched", headers=headers) from error
            yield
        finally:
            for slots in taken:
                slots.release()

    async def _follow(self, place: Place, url: str, take: Take) -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            found = await self._ask(place, take)
            if isinstance(found, bytes):
                return found
            try:
                url = urljoin(url, found.to)
            except ValueError as error:
                raise _not_allowed("it is redirected to what is no URL") from error
            place = read_url(url, self._ports)
        raise _unreachable(f"was redirected more than {_MAX_REDIRECTS} times")

    async def _ask(self, place: Place, take: Take) -> "bytes | _Moved":
        addresses = await self._addresses(place)
        try:
            reader, writer = await self._connected(place, addresses)
            try:
                http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
                writer.write(_request(http, place))
                return await self._received(http, reader, take)
            finally:
                writer.transport.abort()
        except ssl.SSLCertVerificationError as error:
            raise _unreachable("shows no certificate that is valid for it") from error
        except (OSError, h11.ProtocolError) as error:
            raise _unreachable("does not answer, or not as a web server does") from error

    async def _addresses(self, place: Place) -> Sequence[Address]:
        """Return the addresses of a host, if all are permitted.

        A name that is not known and one that is known only within get the same answer.
        """
        if place.address is not None:
            found: Sequence[Address] = [place.address]
        else:
            loop = asyncio.get_running_loop()
            try:
                names = await loop.run_in_executor(self._resolving, self._resolve, place.host)
                found = [ip_address(name) for name in names]
            except (OSError, ValueError):
                found = []
        if not found or not all(map(self._permits, found)):
            raise _not_allowed("its host has no address, or one that is not public")
        return found

    async def _connected(
        self, place: Place, addresses: Sequence[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to one of these addresses; no name is resolved again."""
        tls, name = (self._tls, place.host) if place.is_secure else (None, None)
        failed = OSError("no address")
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    return await asyncio.open_connection(
                        str(address), place.port, ssl=tls, server_hostname=name
                    )
            except OSError as error:
                failed = error
        raise failed

    async def _received(
        self, http: h11.Connection, reader: asyncio.StreamReader, take: Take
    ) -> "bytes | _Moved":
        """Read an answer, as long as it stays within its bounds."""
        body, n_pieces = bytearray(), 0
        while not isinstance(event := await _next(http, reader), h11.EndOfMessage):
            n_pieces += 1
            if n_pieces > _FREE_PIECES + len(body) // _PIECE_MEAN:
                raise _unreachable("sends too many small pieces")
            if isinstance(event, h11.Response):
                moved, n_announced = _read_head(event)
                if moved is not None:
                    return moved
                self._require_bytes(n_announced)
            elif isinstance(event, h11.Data):
                self._require_bytes(len(body) + len(event.data))
                take(len(event.data))
                body += event.data
            elif not isinstance(event, h11.InformationalResponse):
                raise _unreachable("ends its answer too early")
        return bytes(body)

    def _require_bytes(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise Problem("too_large", f"the URL has more than {self._max_bytes} bytes")


def read_url(url: str, ports: Collection[int] = PORTS) -> Place:
    """Return what a URL says.

    Raises:
        Problem: it is not a plain URL of a web server, whatever a more lenient reader made of it.

    Example:
        >>> read_url("HTTPS://Example.org/cat.jpg?size=1#c")
        Place(is_secure=True, host='example.org', port=443, target='/cat.jpg?size=1', address=None)
    """
    if len(url) > _MAX_URL or not url.isprintable() or any(map(str.isspace, url)):
        raise _not_allowed("it is too long, or has blanks")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _not_allowed("it is malformed") from error
    if parts.scheme not in ("http", "https"):
        raise _not_allowed("it begins with neither http:// nor https://")
    match = _HOST.fullmatch(parts.netloc)
    if match is None:
        raise _not_allowed("between // and / it has only a host, in ASCII, and a port")
    host, address = _read_host(*match.group(1, 2))
    is_secure = parts.scheme == "https"
    port = int(match[3] or (443 if is_secure else 80))
    if port not in ports:
        raise _not_allowed(f"its port is none of {', '.join(map(str, ports))}")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return Place(is_secure=is_secure, host=host, port=port, target=target, address=address)


def resolve_name(host: str) -> list[str]:
    """Return the addresses of a name, which is taken as complete: no domain is appended.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(f"{host}.", None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@dataclass(frozen=True, slots=True)
class _Moved:
    to: str


def _read_host(within: str | None, name: str | None) -> tuple[str, Address | None]:
    """Return a host, and its address where it is one; only the usual spellings are known."""
    try:
        if within is not None:
            six = IPv6Address(within)
            return str(six), six
        assert name is not None
        plain = name.lower().removesuffix(".")
        labels = plain.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            four = IPv4Address(plain)
            return str(four), four
    except AddressValueError as error:
        raise _not_allowed("its host is a number, but no address as usually written") from error
    if len(labels) < 2 or len(plain) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _not_allowed("its host is no full name, such as www.example.org")
    return plain, None


def _request(http: h11.Connection, place: Place) -> bytes:
    headers = {
        "Host": place.authority,
        "User-Agent": f"vit4icd/{__version__}",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    request = h11.Request(method="GET", target=place.target, headers=list(headers.items()))
    return (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")


async def _next(http: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_PIECE))
    return event


def _read_head(response: h11.Response) -> tuple[_Moved | None, int]:
    """Return where else to look, or how many bytes are announced, which may be none."""
    headers = {bytes(name): bytes(value) for name, value in response.headers}
    if response.status_code in (301, 302, 303, 307, 308) and b"location" in headers:
        return _Moved(headers[b"location"].decode("utf-8", "replace")), 0
    if response.status_code != 200:
        raise _unreachable(f"answers with {response.status_code}")
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise _unreachable("sends it compressed, though asked not to")
    return None, int(headers.get(b"content-length", b"0"))


def _not_allowed(why: str) -> Problem:
    return Problem("url_not_allowed", f"this URL is not fetched: {why}")


def _unreachable(why: str) -> Problem:
    return Problem("url_unreachable", f"the URL's host {why}")
