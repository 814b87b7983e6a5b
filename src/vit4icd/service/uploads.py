"""Pictures as they come with requests, held to limits while they stream; none becomes a file."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from starlette.datastructures import FormData
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from vit4icd.errors import StoreError
from vit4icd.service.fetching import Fetcher
from vit4icd.service.problems import Problem, is_utf8, require_known

__all__ = ["Limits", "Picture", "Upload", "Uploads"]

_MAX_NAME = 200  # signs of a file name that are shown
_PART_BYTES = 65_536  # of a field that is no picture
_OVERHEAD = 65_536  # bytes that the parts' heads may add to a picture
_RETRY_S = 2
_NO_URLS: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What uploads may cost."""

    max_bytes: int = 32 * 2**20
    """Of one picture."""
    max_pixels: int = 64_000_000
    max_parts: int = 16
    """Fields and files of one request."""
    max_seconds: float = 60.0
    """That an upload may take."""
    max_held_bytes: int = 512 * 2**20
    """Of all pictures that are being uploaded or wait for the engine."""
    max_tar_bytes: int = 8 * 2**30
    """Of a .tar of pictures, which is kept in a file until it is added."""
    max_tar_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Picture:
    """An uploaded picture; the name is only ever shown."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """A request's pictures and fields, by the names of their parts."""

    pictures: Mapping[str, Picture]
    fields: Mapping[str, str]
    failed: Mapping[str, Problem] = field(default_factory=dict)
    """Why there is no picture of a part, where others may do without it."""

    def only(self) -> Picture:
        """Return the one picture.

        Raises:
            Problem: none, or several.
        """
        if len(self.pictures) != 1:
            raise Problem(
                "invalid_request",
                f"one picture is expected, not {len(self.pictures)}; send it as the body, or as "
                "the part 'image' of multipart/form-data",
            )
        return next(iter(self.pictures.values()))

    def named(self, name: str) -> Picture:
        """Return the picture of a part.

        Raises:
            Problem: there is none.
        """
        if name not in self.pictures:
            raise Problem("invalid_request", f"the part {name!r} with a picture is missing")
        return self.pictures[name]


@dataclass(slots=True)
class Uploads:
    """What is being uploaded or waits, so that all of it together stays within the limits."""

    limits: Limits
    fetcher: Fetcher | None = None
    """What fetches pictures behind URLs, where that is allowed."""
    held_bytes: int = field(default=0, init=False)

    @asynccontextmanager
    async def receive(
        self,
        request: Request,
        *,
        n_pictures: int = 1,
        urls: Mapping[str, str] = _NO_URLS,
        options: Collection[str] | None = None,
        address: Mapping[str, str] = _NO_URLS,
        is_needed: bool = True,
        each_alone: bool = False,
    ) -> AsyncIterator[Upload]:
        """Read a request's pictures; their memory is taken as given back when the block ends.

        ``urls`` says in which field a URL may come in place of a picture's part. Only fields named
        there or in ``options`` may come; any, if that is None. What stands in the ``address``
        counts as fields, too. Unless it ``is_needed``, the body may be empty; a GET has none. With
        ``each_alone``, a picture that is too large, or not behind its URL, costs only itself.

        Raises:
            Problem: too large, too slow, too many parts, malformed, an unknown field, no memory
                left for it, or a URL behind which no picture is fetched.
        """
        lease, is_needed = _Lease(self), is_needed and request.method != "GET"
        request.state.is_streamed = True
        try:
            with _explained(f"an upload may take {self.limits.max_seconds:g} seconds"):
                async with asyncio.timeout(self.limits.max_seconds):
                    upload = await self._read(request, lease, n_pictures, is_needed=is_needed)
                    upload = replace(upload, fields={**address, **upload.fields})
                    if options is not None:
                        _require_fields(upload.fields, {*urls.values(), *options}, files=urls)
                    _require_number(upload, urls, n_pictures)
                    upload = await self._completed(upload, lease, urls, each_alone=each_alone)
            yield upload
        finally:
            lease.end()

    async def spool(self, request: Request, path: Path) -> int:
        """Write a request's body to a file, piece by piece; return its bytes.

        Raises:
            Problem: too large, or too slow.
            StoreError: the file cannot be written, as on a full disk.
        """
        n_bytes = 0
        request.state.is_streamed = True
        try:
            with _explained("the upload took too long; split it"), path.open("wb") as file:
                async with asyncio.timeout(self.limits.max_tar_seconds):
                    async for piece in request.stream():
                        n_bytes += len(piece)
                        _require_bytes(n_bytes, self.limits.max_tar_bytes)
                        await asyncio.to_thread(file.write, piece)
        except BaseException as error:
            with suppress(OSError):
                path.unlink()
            if isinstance(error, OSError):
                raise StoreError(f"{path.parent} cannot be written: {error.strerror}") from error
            raise
        return n_bytes

    async def _read(
        self, request: Request, lease: "_Lease", n_pictures: int, *, is_needed: bool
    ) -> Upload:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        most = n_pictures * self.limits.max_bytes + _OVERHEAD
        stream = _bounded(request.stream(), lease, most)
        if kind == "multipart/form-data":
            return await self._parsed(request, stream, n_pictures)
        if kind == "application/x-www-form-urlencoded":
            return await self._parsed_fields(request, lease)
        if kind.startswith("image/") or kind in ("application/octet-stream", ""):
            data = b"".join([piece async for piece in stream])
            _require_bytes(len(data), self.limits.max_bytes)
            if not data and is_needed:
                raise Problem("empty", "the request has no picture")
            return Upload({"image": Picture("", data)} if data else {}, {})
        raise Problem(
            "unsupported_format",
            f"pictures come as multipart/form-data, image/* or octet-stream, not {kind!r}",
        )

    async def _parsed(
        self, request: Request, stream: AsyncGenerator[bytes, None], n_pictures: int
    ) -> Upload:
        parser = MultiPartParser(
            request.headers, stream, max_files=n_pictures, max_fields=self.limits.max_parts,
            max_part_size=_PART_BYTES,
        )  # fmt: skip
        parser.spool_max_size = n_pictures * self.limits.max_bytes + _OVERHEAD  # never on disk
        try:
            form = await parser.parse()
            return self._filled(form)
        except (MultiPartException, KeyError, UnicodeError, ValueError) as error:
            message = getattr(error, "message", "the form cannot be read")
            raise Problem("invalid_request", f"{message}") from error
        finally:  # the parser itself forgets the part that a cut-off body leaves open
            for file in parser._files_to_close_on_error:
                file.close()

    async def _parsed_fields(self, request: Request, lease: "_Lease") -> Upload:
        stream = _bounded(_textual(request.stream()), lease, _PART_BYTES)
        text = b"".join([piece async for piece in stream])
        if not is_utf8(text):
            raise Problem("invalid_request", "the fields of the form are not UTF-8")
        try:
            form = await FormParser(request.headers, _at_once(text)).parse()
        except ValueError as error:
            raise Problem("invalid_request", "the form cannot be read") from error
        if len(form.multi_items()) > self.limits.max_parts:
            raise Problem("invalid_request", f"a form has {self.limits.max_parts} fields at most")
        return self._filled(form)

    async def _completed(
        self, upload: Upload, lease: "_Lease", urls: Mapping[str, str], *, each_alone: bool
    ) -> Upload:
        """Fetch the pictures whose URLs were sent, one after the other."""
        pictures, failed = dict(upload.pictures), dict(upload.failed)
        if failed and not each_alone:
            raise next(iter(failed.values()))
        for part, field_ in urls.items():
            url = upload.fields.get(field_)
            if not url:
                continue
            if self.fetcher is None:
                raise Problem("url_input_off", "this service fetches nothing; upload the picture")
            if part in pictures.keys() | failed.keys():
                raise Problem("invalid_request", f"send {part} or {field_}, not both")
            try:
                data = await self.fetcher.fetch(url, lease.take)
            except Problem as problem:
                if not each_alone:
                    raise
                failed[part] = problem
                continue
            pictures[part] = Picture(_shown(unquote(urlsplit(url).path)), data)
        return Upload(pictures, upload.fields, failed)

    def _filled(self, form: FormData) -> Upload:
        pictures, fields, failed = {}, {}, {}
        for name, value in form.multi_items():
            _require_text(name, *([value] if isinstance(value, str) else []))
            if isinstance(value, str):
                fields[name] = value
                continue
            data = value.file.read()
            try:
                _require_bytes(len(data), self.limits.max_bytes)
            except Problem as problem:
                failed[name] = problem
            else:
                pictures[name] = Picture(_shown(value.filename or ""), data)
        return Upload(pictures, fields, failed)


@contextmanager
def _explained(too_slow: str) -> Iterator[None]:
    """Say of a client that sends too slowly, or hangs up, what it did."""
    try:
        yield
    except TimeoutError as error:
        raise Problem("too_slow", too_slow) from error
    except ClientDisconnect as error:
        raise Problem("invalid_request", "the client hung up") from error


def _require_text(*texts: str) -> None:
    """Refuse what a charset of the client's makes that no UTF-8 can write."""
    for text in texts:
        if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
            raise Problem("invalid_request", "names and fields of a form are UTF-8")


@dataclass(slots=True)
class _Lease:
    """The memory that one upload takes."""

    uploads: Uploads
    n_bytes: int = 0

    def take(self, n_bytes: int) -> None:
        if self.uploads.held_bytes + n_bytes > self.uploads.limits.max_held_bytes:
            raise Problem(
                "busy", "too many pictures are waiting", headers={"Retry-After": str(_RETRY_S)}
            )
        self.uploads.held_bytes += n_bytes
        self.n_bytes += n_bytes

    def end(self) -> None:
        self.uploads.held_bytes -= self.n_bytes
        self.n_bytes = 0


async def _at_once(text: bytes) -> AsyncGenerator[bytes, None]:
    yield text
    yield b""


async def _textual(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of a form without parts; a picture is none, whatever its type is called."""
    async for piece in stream:
        if not piece.isascii():
            raise Problem(
                "unsupported_format",
                "the body is no form; with curl: -F image=@FILE, or --data-binary @FILE with "
                "-H 'Content-Type: image/jpeg'",
            )
        yield piece


async def _bounded(
    stream: AsyncIterator[bytes], lease: _Lease, most: int
) -> AsyncGenerator[bytes, None]:
    """Yield the body's pieces; what is announced is not trusted, what comes is counted."""
    n_bytes = 0
    async for piece in stream:
        n_bytes += len(piece)
        _require_bytes(n_bytes, most)
        lease.take(len(piece))
        yield piece


def _require_fields(
    sent: Collection[str], known: Collection[str], *, files: Collection[str]
) -> None:
    if textual := sorted({*files} & {*sent}):
        name = textual[0]
        raise Problem("invalid_request", f"{name} is no file; with curl: -F {name}=@FILE")
    require_known("fields", sent, known)


def _require_number(upload: Upload, urls: Mapping[str, str], most: int) -> None:
    """Refuse more URLs than there may be pictures; the address has room for many."""
    n_urls = sum(bool(upload.fields.get(name)) for name in urls.values())
    if n_urls > most:
        raise Problem("invalid_request", f"{n_urls} URLs were sent; a request has {most} at most")


def _require_bytes(n_bytes: int, most: int) -> None:
    if n_bytes > most:
        raise Problem("too_large", f"more than {most} bytes were sent")


def _shown(name: str) -> str:
    """Return the last part of a client's file name, as something to show and nothing else."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(sign for sign in last if sign.isprintable())[-_MAX_NAME:]
