"""What the routes have in common: how a picture is sent, what errors look like; it has no route."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from vit4icd.service.answers import ProblemBody
from vit4icd.service.problems import MEDIA_TYPE, Problem
from vit4icd.service.state import State, state_of

__all__ = ["PROBLEMS", "Held", "Limit", "Regions", "body_of", "known_options", "require_id"]

Held = Annotated[State, Depends(state_of)]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Regions = Annotated[
    bool,
    Query(description="Describe nine parts of each picture too, to find what shows a part of it."),
]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemBody, "description": text, "content": {MEDIA_TYPE: {}}}
    for status, text in (("4XX", "What is wrong with the request."), ("5XX", "What failed."))
}

_MAX_ID = 1_024  # bytes
_ABOUT_URLS = "In place of the part, where the service fetches pictures (--allow-urls)."


def body_of(urls: Mapping[str, str], *, is_raw: bool = False) -> Mapping[str, Any]:
    """Return the OpenAPI description of a body with pictures in parts, or URLs in fields.

    ``urls`` has the name of each part, and that of the field for its URL.
    """
    file = {"type": "string", "format": "binary"}
    url = {"type": "string", "format": "uri", "description": _ABOUT_URLS}
    links = dict.fromkeys(urls.values(), url)
    form = {
        "type": "object",
        "properties": {**dict.fromkeys(urls, file), **links},
        "allOf": [{"anyOf": [{"required": [part]}, {"required": [urls[part]]}]} for part in urls],
    }
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": form},
        "application/x-www-form-urlencoded": {
            "schema": {"type": "object", "properties": links, "required": [*links]}
        },
    }
    if is_raw:
        content |= {kind: {"schema": file} for kind in ("image/jpeg", "application/octet-stream")}
    return {"requestBody": {"required": True, "content": content}}


def known_options(request: Request) -> None:
    """Refuse a request with options in its address that the route's description does not name.

    Raises:
        Problem: there are such.
    """
    methods = request.app.openapi()["paths"][request.scope["route"].path_format]
    described = methods[request.method.lower()].get("parameters", ())
    known = {option["name"] for option in described if option["in"] == "query"}
    if unknown := sorted(request.query_params.keys() - known):
        listed = ", ".join(sorted(known)) or "none"
        raise Problem(
            "invalid_option", f"unknown options: {', '.join(unknown)}; there are: {listed}"
        )


def require_id(id_: str) -> str:
    """Return an id that can be stored.

    Raises:
        Problem: it is too long, or empty.
    """
    if not 0 < len(id_.encode("utf-8", "surrogateescape")) <= _MAX_ID:
        raise Problem("invalid_request", f"an id has 1 to {_MAX_ID} bytes")
    return id_
