"""Errors as problem documents (RFC 9457) with stable codes; it decides nothing."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi.responses import JSONResponse

from vit4icd.errors import (
    ConfigError,
    DataError,
    FormatError,
    ImageError,
    MismatchError,
    StoreError,
    Vit4icdError,
)

__all__ = [
    "CODES",
    "MEDIA_TYPE",
    "Problem",
    "document",
    "is_utf8",
    "problem_of",
    "require_known",
    "respond",
]

CODES: Mapping[str, tuple[int, str]] = {
    "invalid_request": (400, "The request is malformed"),
    "invalid_option": (400, "An option is out of range"),
    "not_addressed": (400, "The request names another host"),
    "url_input_off": (400, "Pictures are uploaded, not fetched"),
    "url_not_allowed": (400, "This URL is not fetched"),
    "unauthorised": (401, "A key is needed"),
    "forbidden": (403, "The key does not allow this"),
    "foreign_origin": (403, "The request comes from another site"),
    "not_found": (404, "There is no such thing"),
    "no_preview": (404, "There is no preview of this picture"),
    "not_allowed": (405, "The method is not allowed"),
    "too_slow": (408, "The upload took too long"),
    "conflict": (409, "The request contradicts what is there"),
    "too_large": (413, "The picture or the request is too large"),
    "unsupported_format": (415, "This is no picture of a known format"),
    "empty": (422, "The picture has no bytes"),
    "truncated": (422, "The picture is cut off"),
    "corrupt": (422, "The picture is damaged"),
    "image_too_plain": (422, "The picture is too plain to judge"),
    "url_unreachable": (424, "No picture could be fetched from the URL"),
    "busy": (429, "There is more work than can wait"),
    "internal": (500, "A mistake of ours"),
    "damaged": (500, "What is stored is damaged"),
    "loading": (503, "The service is still loading"),
    "store_unavailable": (503, "The collection cannot be reached"),
}
"""Every code there is: its HTTP status and title. Codes are never renamed."""

MEDIA_TYPE = "application/problem+json"
"""Of a problem document."""

_BY_REASON = {"too_many_bytes": "too_large", "missing": "corrupt", "unreadable_file": "corrupt"}


class Problem(Vit4icdError):  # noqa: N818 - as RFC 9457 calls it
    """What goes wrong with one request; ``code`` is one of :data:`CODES`."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers = code, detail, dict(headers or {})

    @property
    def status(self) -> int:
        """HTTP status."""
        return CODES[self.code][0]


def problem_of(error: Exception) -> Problem:
    """Return what an error of the package is to a client.

    Example:
        >>> problem_of(ImageError("too_many_bytes", "9 bytes exceed the limit of 8")).status
        413
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, ImageError):
        return Problem(_BY_REASON.get(error.reason, error.reason), str(error))
    if isinstance(error, DataError):
        return Problem("not_found", str(error))
    if isinstance(error, ConfigError | MismatchError):
        return Problem("invalid_option", str(error))
    if isinstance(error, StoreError):
        return Problem("store_unavailable", str(error), headers={"Retry-After": "5"})
    if isinstance(error, FormatError):
        return Problem("damaged", str(error))
    return Problem("internal", "something failed that should not; the log has the request's number")


def require_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that a call does not know, and tell those that it does.

    Raises:
        Problem: there are such (invalid_option).
    """
    if unknown := sorted({*names} - {*known}):
        listed = ", ".join(sorted(known)) or "none"
        raise Problem(
            "invalid_option", f"unknown {what}: {', '.join(unknown)}; there are: {listed}"
        )


def is_utf8(text: bytes) -> bool:
    """Return whether the bytes behind a percent-encoded text are UTF-8.

    Example:
        >>> is_utf8(b"id=caf%C3%A9"), is_utf8(b"id=caf%E9")
        (True, False)
    """
    try:
        unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def document(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return the problem document."""
    status, title = CODES[problem.code]
    return {
        "type": f"urn:vit4icd:problem:{problem.code}",
        "title": title,
        "status": status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }


def respond(problem: Problem, request_id: str) -> JSONResponse:
    """Return the response that carries a problem."""
    return JSONResponse(
        document(problem, request_id),
        status_code=problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )
