"""The calls of TinEye's MatchEngine, for clients of it, on the first collection that is served.

Pictures are uploaded, or fetched where the service does that. Scores are percentages, as there.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from vit4icd.errors import Vit4icdError
from vit4icd.service.access import admin, reader
from vit4icd.service.answers import MatchBody, RestAnswer
from vit4icd.service.comparison import Comparing, Pair
from vit4icd.service.handles import handle_of_reference
from vit4icd.service.library import MAX_ID, Adding, New, Searching, require_id, sha256_of_bytes
from vit4icd.service.library import Query as Asked
from vit4icd.service.problems import Problem, problem_of
from vit4icd.service.routes.images import preview_of, remove
from vit4icd.service.routes.shared import Held, body_of, options_of
from vit4icd.service.sifting import SiftedSearching
from vit4icd.service.state import State
from vit4icd.service.uploads import Upload
from vit4icd.storage import name_fields

__all__ = ["router"]

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": RestAnswer},
    "4XX": {"description": "What is wrong, in the form of MatchEngine or as a problem."},
    "5XX": {"description": "What failed."},
}
router = APIRouter(prefix="/rest", tags=["MatchEngine"], responses=_ANSWERS)

_PAGE = 1_000
_NUMBERED = re.compile(r"images\[(\d{1,3})\]")
_ONE = {"image": "url"}
_MANY = _ONE | {f"images[{number}]": f"urls[{number}]" for number in range(1_000)}
_TWO = {"image1": "url1", "image2": "url2"}

reads, administers = [Depends(reader)], [Depends(admin)]
Work = Callable[[], Awaitable[list[Any]]]


@router.post("/add/", dependencies=administers, openapi_extra={**body_of(_ONE, is_lenient=True)})
@router.post("/add", dependencies=administers, include_in_schema=False)
async def rest_add(request: Request, held: Held) -> JSONResponse:
    """Add image under filepath, or images[0] under filepaths[0] and so on."""

    async def work() -> list[Any]:
        shelf = held.library.first
        adding = Adding(
            shelf=shelf, previews=held.previews, max_pixels=held.config.limits.max_pixels
        )
        most = held.config.limits.max_parts
        async with held.uploads.receive(request, n_pictures=most, urls=_MANY) as upload:
            new = [New(require_id(name), data) for name, data in _named(upload).items()]
            for job in [held.do(adding, one) for one in new]:
                await job
        return []

    return await _answer("add", work)


class RestSearchOptions(BaseModel):
    """How a picture is searched; clients of MatchEngine send fields."""

    filepath: str | None = Field(
        default=None, max_length=MAX_ID, description="Of a picture that was added, to search it."
    )
    min_score: float = Field(default=0.0, ge=0, le=100)
    offset: int = Field(default=0, ge=0, le=1_000)
    limit: int = Field(default=10, ge=1, le=100)
    check_horizontal_flip: bool = False


@router.post(
    "/search/", dependencies=reads,
    openapi_extra={
        **body_of(_ONE, options=RestSearchOptions, instead="filepath", is_lenient=True)
    },
)  # fmt: skip
@router.post("/search", dependencies=reads, include_in_schema=False)
async def rest_search(
    request: Request, held: Held, asked: Annotated[RestSearchOptions, Query()]
) -> JSONResponse:
    """Search image, url, or the picture of a filepath by its preview.

    Matches are proven where they can be, and have overlaps then.
    """

    async def work() -> list[Any]:
        is_needed = asked.filepath is None
        async with held.uploads.receive(request, urls=_ONE, is_needed=is_needed) as upload:
            options = options_of(asked, upload)
            searching = Searching(
                shelf=held.library.first, k=options.offset + options.limit, verify=True,
                flip=options.check_horizontal_flip, max_pixels=held.config.limits.max_pixels,
            )  # fmt: skip
            if options.filepath is not None and not upload.pictures:
                query = await asyncio.to_thread(_added, held, options.filepath)
            else:
                picture = upload.only()
                query = Asked(picture.name or "query", picture.data)
            sifted = await held.do(SiftedSearching(held.decisions, searching), query)
            answer = await asyncio.to_thread(held.sifting.remember, sifted)
        rows = [_row(match) for match in answer.matches[options.offset :]]
        return [row for row in rows if float(row["score"]) >= options.min_score]

    return await _answer("search", work)


@router.post("/compare/", dependencies=reads, openapi_extra={**body_of(_TWO, is_lenient=True)})
@router.post("/compare", dependencies=reads, include_in_schema=False)
async def rest_compare(request: Request, held: Held) -> JSONResponse:
    """Compare image1 with image2."""

    async def work() -> list[Any]:
        comparing = Comparing(held.describer, held.config.limits.max_pixels)
        async with held.uploads.receive(request, n_pictures=2, urls=_TWO) as upload:
            one, other = upload.named("image1"), upload.named("image2")
            match = await held.do(comparing, Pair("image1", one.data, "image2", other.data))
        if not match.is_copy:
            return []
        fields = match.to_json()
        return [_shares(fields["overlap"]) | {"score": _percent(match.probability, match.score)}]

    return await _answer("compare", work)


@router.delete("/delete/", dependencies=administers)
@router.delete("/delete", dependencies=administers, include_in_schema=False)
@router.post("/delete/", dependencies=administers, include_in_schema=False)
@router.post("/delete", dependencies=administers, include_in_schema=False)
async def rest_delete(
    held: Held, filepath: Annotated[str, Query(min_length=1, max_length=MAX_ID)]
) -> JSONResponse:
    """Remove the picture of a filepath."""

    async def work() -> list[Any]:
        if not await asyncio.to_thread(remove, held, held.library.first, filepath):
            raise Problem("not_found", f"there is no picture {filepath!r}")
        return []

    return await _answer("delete", work)


@router.get("/count/", dependencies=reads)
@router.get("/count", dependencies=reads, include_in_schema=False)
async def rest_count(held: Held) -> JSONResponse:
    """Count the pictures."""

    async def work() -> list[Any]:
        return [await asyncio.to_thread(len, held.library.first.collection)]

    return await _answer("count", work)


@router.get("/list/", dependencies=reads)
@router.get("/list", dependencies=reads, include_in_schema=False)
async def rest_list(
    held: Held,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=0, le=10_000)] = 20,
) -> JSONResponse:
    """List the filepaths."""
    return await _answer("list", lambda: asyncio.to_thread(_filepaths, held, offset, limit))


@router.get("/ping/", dependencies=reads)
@router.get("/ping", dependencies=reads, include_in_schema=False)
async def rest_ping() -> JSONResponse:
    """Say that the service is there."""

    async def work() -> list[Any]:
        return []

    return await _answer("ping", work)


async def _answer(method: str, work: Work) -> JSONResponse:
    try:
        result = await work()
    except Vit4icdError as error:
        problem = problem_of(error)
        fields = {"status": "fail", "error": [problem.detail], "method": method, "result": []}
        return JSONResponse(fields, status_code=problem.status, headers=problem.headers)
    return JSONResponse({"status": "ok", "error": [], "method": method, "result": result})


def _added(held: State, filepath: str) -> Asked:
    shelf = held.library.first
    shelf.collection.get(filepath)  # or say that there is none
    return Asked(filepath, preview_of(held, handle_of_reference(shelf.name, filepath)))


def _named(upload: Upload) -> dict[str, bytes]:
    """Return the pictures by their filepaths; without one, by their SHA-256."""
    if not upload.pictures:
        raise Problem("invalid_request", "send image or url, or images[0], urls[1] ...")
    found = {}
    for part, picture in upload.pictures.items():
        match = _NUMBERED.fullmatch(part)
        field = f"filepaths[{match[1]}]" if match else "filepath"
        found[upload.fields.get(field) or sha256_of_bytes(picture.data)] = picture.data
    return found


def _row(match: MatchBody) -> dict[str, Any]:
    return {
        **_shares(match.overlap),
        "score": _percent(match.probability, match.score),
        "filepath": match.reference,
        "overlay": f"/v1/matches/{match.id}/overlay" if match.overlap else None,
    }


def _shares(overlap: object) -> dict[str, str | None]:
    shares: Mapping[str, float] = overlap if isinstance(overlap, Mapping) else {}
    return {
        f"{name}_overlap_percent": f"{100 * shares[key]:.2f}" if key in shares else None
        for name, key in (("query", "query_share"), ("target", "reference_share"))
    }


def _percent(probability: float | None, score: float) -> str:
    return f"{100 * min(1.0, max(0.0, score if probability is None else probability)):.2f}"


def _filepaths(held: State, offset: int, limit: int) -> list[str]:
    collection, after, found = held.library.first.collection, None, list[str]()
    while len(found) < offset + limit:
        page = collection.list(after=after, limit=min(_PAGE, offset + limit - len(found)))
        if not page:
            break
        found += [name_fields("id", record.id)["id"] for record in page]
        after = page[-1].id
    return found[offset:]
