"""What the routes have in common: how pictures and options come, what errors look like."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from vit4icd.service.answers import ProblemBody
from vit4icd.service.problems import MEDIA_TYPE, Problem, require_known
from vit4icd.service.state import State, state_of
from vit4icd.service.uploads import Upload

__all__ = [
    "PROBLEMS",
    "Held",
    "Limit",
    "Regions",
    "body_of",
    "has_form",
    "known_options",
    "options_of",
]

Options = TypeVar("Options", bound=BaseModel)


async def _held(request: Request) -> State:  # no plain function: that would take a thread
    return state_of(request)


Held = Annotated[State, Depends(_held)]
Limit = Annotated[int, Query(ge=1, le=1_000)]
Regions = Annotated[
    bool,
    Query(description="Describe nine parts of each picture too, to find what shows a part of it."),
]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemBody, "description": text, "content": {MEDIA_TYPE: {}}}
    for status, text in (("4XX", "What is wrong with the request."), ("5XX", "What failed."))
}

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_ABOUT_URLS = "In place of the part, where the service fetches pictures (--allow-urls)."


def body_of(
    urls: Mapping[str, str],
    *,
    options: type[BaseModel] | None = None,
    instead: str | None = None,
    is_raw: bool = False,
    is_lenient: bool = False,
) -> Mapping[str, Any]:
    """Return the OpenAPI description of a body with pictures in parts, or URLs in fields.

    ``urls`` has the name of each part, and that of the field for its URL; ``options`` may come as
    fields, and ``instead`` names the one that makes a picture needless. Others are refused unless
    ``is_lenient``.
    """
    spare = [] if instead is None else [{"required": [instead]}]
    file = {"type": "string", "format": "binary"}
    url = {"type": "string", "format": "uri", "description": _ABOUT_URLS}
    links = dict.fromkeys(urls.values(), url)
    fields = links | (options.model_json_schema()["properties"] if options else {})
    form = {
        "type": "object",
        "properties": {**dict.fromkeys(urls, file), **fields},
        "additionalProperties": is_lenient,
        "allOf": [
            {"anyOf": [{"required": [part]}, {"required": [urls[part]]}, *spare]} for part in urls
        ],
    }
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": form},
        "application/x-www-form-urlencoded": {
            "schema": {
                "type": "object",
                "properties": fields,
                "additionalProperties": is_lenient,
                "anyOf": [{"required": [*links]}, *spare],
            }
        },
    }
    if is_raw:
        content |= {kind: {"schema": file} for kind in ("image/jpeg", "application/octet-stream")}
    return {"requestBody": {"required": True, "content": content}}


async def known_options(request: Request) -> None:
    """Refuse a request with options that the route's description does not name.

    Raises:
        Problem: there are such in its address, or a form where none is read.
    """
    methods = request.app.openapi()["paths"][request.scope["route"].path_format]
    described = methods[request.method.lower()]
    options = described.get("parameters", ())
    known = {option["name"] for option in options if option["in"] == "query"}
    require_known("options", request.query_params.keys(), known)
    if "requestBody" not in described and has_form(request):
        listed = ", ".join(sorted(known)) or "none"
        raise Problem(
            "invalid_request", f"no form is read here; options stand in the address: {listed}"
        )


def options_of(asked: Options, upload: Upload) -> Options:
    """Return the options of a request's address with those of its form.

    Raises:
        Problem: one stands in both.
        RequestValidationError: one is out of range.
    """
    fields = {name: upload.fields[name] for name in type(asked).model_fields.keys() & upload.fields}
    if twice := sorted(asked.model_fields_set & fields.keys()):
        raise Problem("invalid_option", f"both in the address and in the form: {', '.join(twice)}")
    try:
        return asked.model_validate(asked.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        found = [{**one, "loc": ("form", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error


def has_form(request: Request) -> bool:
    """Return whether a request's body is a form."""
    kind = request.headers.get("content-type", "").lower()
    return kind.startswith(_FORMS) and request.headers.get("content-length") != "0"
