"""Opaque names of pictures for addresses: no path, no separator; it opens none."""

import base64
import binascii
import re
from dataclasses import dataclass

from vit4icd.service.problems import Problem

__all__ = ["Reference", "handle_of_query", "handle_of_reference", "read_handle"]

_QUERY = re.compile(r"q([0-9a-f]{64})")
_REFERENCE = re.compile(r"r([A-Za-z0-9_-]+)(?:\.([0-9a-f]{64}))?")


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture of a collection."""

    collection: str
    id: str
    sha256: str | None = None
    """Of the content that is meant; whatever the id has now, if that is None."""


def handle_of_query(sha256: str) -> str:
    """Return the name of a query's picture."""
    return f"q{sha256}"


def handle_of_reference(collection: str, id_: str, sha256: str | None = None) -> str:
    """Return the name of a picture of a collection; with its SHA-256, of no later one of the id.

    Example:
        >>> read_handle(handle_of_reference("mine", "../a.jpg"))
        Reference(collection='mine', id='../a.jpg', sha256=None)
    """
    data = collection.encode("utf-8") + b"\0" + id_.encode("utf-8", "surrogateescape")
    name = "r" + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
    return name if sha256 is None else f"{name}.{sha256}"


def read_handle(handle: str) -> str | Reference:
    """Return what a handle stands for: the SHA-256 of a query, or a reference.

    Raises:
        Problem: it is none.
    """
    if match := _QUERY.fullmatch(handle):
        return match[1]
    if match := _REFERENCE.fullmatch(handle):
        text = match[1] + "=" * (-len(match[1]) % 4)
        try:
            data = base64.b64decode(text, altchars=b"-_", validate=True)
            collection, separator, id_ = data.partition(b"\0")
            if separator:
                name = id_.decode("utf-8", "surrogateescape")
                return Reference(collection.decode("utf-8"), name, match[2])
        except (binascii.Error, UnicodeDecodeError):
            pass
    raise Problem("not_found", "there is no picture of this name")
