"""Pictures of collections: add, look up, list, remove, show."""

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from vit4icd.collection import Record
from vit4icd.images import read_image
from vit4icd.service.access import admin, reader
from vit4icd.service.answers import (
    AddAnswer,
    Basis,
    CollectionsAnswer,
    ImageAnswer,
    ImagesAnswer,
    RemoveAnswer,
    image_body,
)
from vit4icd.service.handles import Reference, handle_of_reference, read_handle
from vit4icd.service.library import Adding, New, Shelf, require_id, sha256_of_bytes
from vit4icd.service.previews import encode_jpeg, holder_of, shrink
from vit4icd.service.problems import Problem
from vit4icd.service.routes.shared import (
    PROBLEMS,
    Held,
    Limit,
    Regions,
    body_of,
    known_options,
    options_of,
)
from vit4icd.service.state import State

__all__ = ["preview_of", "remove", "router"]

router = APIRouter(
    prefix="/v1", tags=["pictures"], responses=PROBLEMS, dependencies=[Depends(known_options)]
)

_CARD_SIDE = 480  # pixels of a small preview
_MAX_FIELDS = 64  # of metadata
_URLS = {"image": "image_url"}

Id = Annotated[str, Path(alias="id")]

reads, administers = [Depends(reader)], [Depends(admin)]


@router.get("/collections", dependencies=reads)
def list_collections(held: Held) -> CollectionsAnswer:
    """List the collections that are served."""
    shelves = held.library.shelves.values()
    return CollectionsAnswer(collections=[Basis(**shelf.basis()) for shelf in shelves])


class AddOptions(BaseModel):
    """How a picture is added."""

    id: str | None = Field(default=None, description="By default the SHA-256 of the picture.")
    metadata: str | None = Field(
        default=None, description='A JSON object of texts, such as {"owner": "me"}.'
    )
    regions: Regions = False


@router.post(
    "/collections/{collection}/images", dependencies=administers, status_code=201,
    responses={200: {"model": AddAnswer, "description": "It was there already; nothing changed."}},
    openapi_extra={**body_of(_URLS, options=AddOptions, is_raw=True)},
)  # fmt: skip
async def add_image(
    request: Request,
    response: Response,
    held: Held,
    collection: str,
    asked: Annotated[AddOptions, Query()],
) -> AddAnswer:
    """Add a picture, or replace the one of this id; the same again changes nothing (200).

    When the answer comes, the picture is stored and can be found.
    """
    shelf, known = held.library.get(collection), AddOptions.model_fields
    async with held.uploads.receive(request, urls=_URLS, options=known) as upload:
        data, options = upload.only().data, options_of(asked, upload)
        adding = Adding(
            shelf=shelf, previews=held.previews, regions=options.regions,
            max_pixels=held.config.limits.max_pixels,
        )  # fmt: skip
        name = require_id(sha256_of_bytes(data) if options.id is None else options.id)
        added = await held.do(adding, New(name, data, _metadata(options.metadata)))
    if added.outcome == "unchanged":
        response.status_code = 200
    return AddAnswer(
        basis=Basis(**await asyncio.to_thread(shelf.basis)),
        id=added.id,
        sha256=added.sha256,
        outcome=added.outcome,
        picture=handle_of_reference(collection, added.id),
    )


@router.get("/collections/{collection}/images", dependencies=reads)
def list_images(
    held: Held, collection: str, after: str | None = None, limit: Limit = 100
) -> ImagesAnswer:
    """List pictures by id, a page at a time."""
    shelf, last = held.library.get(collection), None
    if after is not None:
        last = _reference(after).id
    records = shelf.collection.list(after=last, limit=limit)
    is_full = len(records) == limit
    return ImagesAnswer(
        basis=Basis(**shelf.basis()),
        images=[image_body(collection, record) for record in records],
        next=handle_of_reference(collection, records[-1].id) if is_full else None,
    )


@router.get("/collections/{collection}/images/{id:path}", dependencies=reads)
def get_image(held: Held, collection: str, id_: Id) -> ImageAnswer:
    """Say what is known of a picture."""
    shelf = held.library.get(collection)
    record = shelf.collection.get(require_id(id_))
    return ImageAnswer(basis=Basis(**shelf.basis()), image=image_body(collection, record))


@router.delete("/collections/{collection}/images/{id:path}", dependencies=administers)
def remove_image(held: Held, collection: str, id_: Id) -> RemoveAnswer:
    """Remove a picture; when the answer comes, it is found no more."""
    shelf = held.library.get(collection)
    if not remove(held, shelf, require_id(id_)):
        raise Problem("not_found", f"the collection {collection!r} has no picture {id_!r}")
    return RemoveAnswer(basis=Basis(**shelf.basis()), n_removed=1)


@router.get("/images/{picture}", dependencies=reads)
def get_picture(held: Held, picture: str) -> ImageAnswer:
    """Say what is known of a picture, by its opaque name: whatever its id is."""
    reference = _reference(picture)
    shelf = held.library.get(reference.collection)
    record = _record(shelf, reference)
    if record is None:
        raise Problem("not_found", "there is no picture of this name")
    return ImageAnswer(basis=Basis(**shelf.basis()), image=image_body(shelf.name, record))


@router.delete("/images/{picture}", dependencies=administers)
def remove_picture(held: Held, picture: str) -> RemoveAnswer:
    """Remove a picture, by its opaque name."""
    reference = _reference(picture)
    shelf = held.library.get(reference.collection)
    if _record(shelf, reference) is None or not remove(held, shelf, reference.id):
        raise Problem("not_found", "there is no picture of this name")
    return RemoveAnswer(basis=Basis(**shelf.basis()), n_removed=1)


@router.get(
    "/images/{picture}/thumbnail", dependencies=reads,
    responses={200: {"content": {"image/jpeg": {}}, "description": "The preview."}},
    response_class=Response,
)  # fmt: skip
def show_image(
    held: Held, picture: str, size: Annotated[str, Query(pattern="^(card|full)$")] = "card"
) -> Response:
    """Show a picture: 480 pixels along its long side, or up to 1,024 with size=full."""
    data, named = preview_of(held, picture), read_handle(picture)
    is_fixed = isinstance(named, str) or named.sha256 is not None  # or the id may be replaced
    if size == "card":
        data = encode_jpeg(shrink(read_image(data, at_least=_CARD_SIDE), _CARD_SIDE))
    how_long = "max-age=300" if is_fixed else "no-store"
    return Response(
        data, media_type="image/jpeg", headers={"Cache-Control": f"private, {how_long}"}
    )


def preview_of(held: State, picture: str) -> bytes:
    """Return the preview of a query or a reference.

    Raises:
        Problem: there is no such picture, or no preview of it.
    """
    named = read_handle(picture)
    if isinstance(named, str):
        data = held.previews.read(named)
    else:
        data = _preview_of_reference(held, named)
    if data is None:
        raise Problem("no_preview", "no preview of this picture is kept")
    return data


def remove(held: State, shelf: Shelf, id_: str) -> int:
    """Remove a picture, what of it waits for review, and the preview that only it held.

    Returns how many there were.
    """
    record = shelf.collection.find([id_]).get(id_)
    n_removed = shelf.collection.remove([id_])
    held.previews.release(
        holder_of(shelf.name, id_), is_gone=lambda: not shelf.collection.find([id_])
    )
    if record is not None:  # its preview may have been made of its file, when it was looked at
        held.findings.forget(shelf.name, id_, record.sha256)
        held.previews.sweep(record.sha256)
    return n_removed


def _preview_of_reference(held: State, named: Reference) -> bytes | None:
    shelf = held.library.get(named.collection)
    found = None if named.sha256 is None else held.previews.read(named.sha256)
    record = None if found else _record(shelf, named)
    if record is None:
        return found
    kept = held.previews.read(record.sha256)
    return kept or held.previews.from_source(record.source, record.sha256)


def _record(shelf: Shelf, named: Reference) -> Record | None:
    """Return a picture of a collection, if it is still the one that is named."""
    record = shelf.collection.find([named.id]).get(named.id)
    return None if record is None or named.sha256 not in (None, record.sha256) else record


def _reference(picture: str) -> Reference:
    named = read_handle(picture)
    if not isinstance(named, Reference):
        raise Problem("not_found", "there is no picture of this name in a collection")
    return named


def _metadata(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    try:
        fields: Any = json.loads(text)
        json.dumps(fields, ensure_ascii=False).encode("utf-8")  # not half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise Problem("invalid_request", f"metadata is no JSON: {error}") from error
    if not isinstance(fields, dict) or not all(isinstance(it, str) for it in fields.values()):
        raise Problem("invalid_request", "metadata is a JSON object of texts")
    if len(fields) > _MAX_FIELDS:
        raise Problem("invalid_request", f"metadata has {_MAX_FIELDS} fields at most")
    return fields
