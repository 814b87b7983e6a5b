"""Who may do what: hosts, origins, keys and sessions, checked before any route; it routes none."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from vit4icd.service.keys import Keys, Scope
from vit4icd.service.problems import Problem, is_utf8, respond
from vit4icd.service.sessions import COOKIE, TOKEN_HEADER, Sessions

__all__ = ["Access", "Guard", "admin", "admin_by_header", "reader"]

_MAX_BODY = 65_536  # bytes of a body that no route counts itself
_MAX_BODY_S = 10.0  # in which it must have come
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
_ALLOWS: Mapping[Scope, frozenset[Scope]] = {
    "read": frozenset(("read",)),
    "admin": frozenset(("read", "admin")),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """The rules of one service.

    Without keys, whoever reaches the loopback address may do everything; then requests must name
    that address, lest another site's name is pointed at it.
    """

    keys: Keys | None
    sessions: Sessions
    host: str
    """The address that is listened on."""

    def scope_of(self, request: HTTPConnection) -> Scope | None:
        """Return what a request may do, by its key or session.

        Raises:
            Problem: a key that is none of ours.
        """
        if self.keys is None:
            return "admin"
        presented = _presented(request.headers.get("authorization", ""))
        if presented is not None:
            key = self.keys.find(presented)
            if key is None:
                raise Problem("unauthorised", "this key is not known", headers=_CHALLENGE)
            return key.scope
        cookie = request.cookies.get(COOKIE)
        key = self.sessions.key_of(cookie, self.keys) if cookie else None
        return key.scope if key else None

    def require_addressed(self, request: HTTPConnection) -> None:
        """Refuse, without keys, requests that name another host than the loopback.

        Raises:
            Problem: such a request.
        """
        name = _without_port(request.headers.get("host", ""))
        if self.keys is None and name not in {*_LOOPBACK_NAMES, self.host}:
            raise Problem("not_addressed", f"without keys, only loopback is served, not {name!r}")

    def require_same_site(self, request: HTTPConnection, method: str) -> None:
        """Refuse changes that a browser sends for another site, or without the page's token.

        Programs send neither an origin nor a cookie, and need no token. What the request may do
        was found out before.

        Raises:
            Problem: such a request, or one of a session that has ended.
        """
        if method in _SAFE:
            return
        headers, host = request.headers, request.headers.get("host", "")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and _place_of(origin) != host:
            raise Problem("foreign_origin", f"requests of {origin!r} are refused")
        if site not in (None, "same-origin", "none"):
            raise Problem("foreign_origin", f"requests from another site ({site}) are refused")
        cookie = request.cookies.get(COOKIE, "")
        from_browser = origin is not None or site is not None or cookie
        is_key = _presented(headers.get("authorization", "")) is not None
        if not from_browser or is_key or request.url.path == "/login":
            return
        if request.scope["state"].get("allowed") is None:
            raise Problem("unauthorised", "the session has ended; log in again")
        if not self.sessions.is_token(headers.get(TOKEN_HEADER, ""), cookie):
            raise Problem("foreign_origin", "the page's token is missing; load the page again")


class Guard:
    """Applies the rules to every request, before anything of it is read."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Pass a request on, with what it may do, or answer with the problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        try:
            _require_utf8(scope)
            self._access.require_addressed(request)
            scope["state"]["allowed"] = self._access.scope_of(request)
            self._access.require_same_site(request, scope["method"])
        except Problem as problem:
            await respond(problem, scope["state"]["request_id"])(scope, receive, send)
            return
        await self._app(scope, _Bounded(scope, receive), send)


async def reader(request: Request) -> None:
    """Require that the request may read."""
    _require(request, "read")


async def admin(request: Request) -> None:
    """Require that the request may change things."""
    _require(request, "admin")


async def admin_by_header(request: Request) -> None:
    """Require the same of a GET that changes things, and that a program sends it, with a key.

    Any page can have a browser ask for an address, and the browser adds the session, and what it
    says to a proxy: neither may change anything. Without keys, any text stands for one.
    """
    _require(request, "admin")
    if request.method not in _SAFE:
        return
    if _presented(request.headers.get("authorization", "")) is None:
        raise Problem(
            "forbidden", "a GET changes nothing without a key in its Authorization header; or POST"
        )
    if request.headers.get("sec-fetch-site") not in (None, "same-origin"):
        raise Problem("foreign_origin", "no other site's page changes anything by a GET")


class _Bounded:
    """Reads a body that FastAPI would read whole before it asks who sends it.

    A route that counts and times what comes says so: ``request.state.is_streamed``.
    """

    def __init__(self, scope: Connection, receive: Receive) -> None:
        self._scope, self._receive = scope, receive
        self._n_bytes, self._is_read = 0, False
        self._ends: float | None = None

    async def __call__(self) -> Message:
        """Return the next message.

        Raises:
            HTTPException: nobody may send this, or it is too much or too slow.
        """
        state = self._scope["state"]
        if self._is_read or state.get("is_streamed"):
            return await self._receive()
        if state["allowed"] is None and self._scope["path"] not in _OPEN:
            raise HTTPException(401, _NO_KEY, _CHALLENGE)
        if self._ends is None:
            self._ends = asyncio.get_running_loop().time() + _MAX_BODY_S
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, f"a body may take {_MAX_BODY_S:g} seconds") from error
        self._n_bytes += len(message.get("body", b""))
        self._is_read = not message.get("more_body", False)
        if self._n_bytes > _MAX_BODY:
            raise HTTPException(413, f"more than {_MAX_BODY} bytes were sent")
        return message


_OPEN = frozenset(("/login", "/logout"))
_NO_KEY = "send a key: Authorization: Bearer KEY"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="vit4icd"'}


def _require(request: Request, scope: Scope) -> None:
    allowed: Scope | None = request.state.allowed
    if allowed is None:
        raise Problem("unauthorised", _NO_KEY, headers=_CHALLENGE)
    if scope not in _ALLOWS[allowed]:
        raise Problem("forbidden", "this key only reads; adding, removing, deciding need admin")


def _require_utf8(scope: Connection) -> None:
    """Refuse addresses whose bytes would be taken for others, and so one id for another.

    Raises:
        Problem: such an address.
    """
    for part in (scope.get("raw_path") or b"", scope["query_string"]):
        if not is_utf8(part):
            raise Problem(
                "invalid_request",
                "the address is not UTF-8; pictures of such ids go by their opaque names",
            )


def _presented(authorization: str) -> str | None:
    """Return the key of a Bearer header, or the password of a Basic one."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return None


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as http://[
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
