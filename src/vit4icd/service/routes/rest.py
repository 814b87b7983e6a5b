"""The calls of TinEye's MatchEngine, for clients of it, on the first collection that is served.

Pictures are uploaded, or fetched where the service does that. Scores are percentages, as there.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from vit4icd.errors import Vit4icdError
from vit4icd.service.access import admin_by_header, reader
from vit4icd.service.answers import Basis, MatchBody, RestAnswer
from vit4icd.service.comparison import Comparing, Pair
from vit4icd.service.handles import handle_of_reference
from vit4icd.service.library import (
    MAX_ID,
    Added,
    Adding,
    New,
    Searching,
    require_id,
    sha256_of_bytes,
)
from vit4icd.service.library import Query as Asked
from vit4icd.service.problems import Problem, problem_of
from vit4icd.service.routes.images import preview_of, remove
from vit4icd.service.routes.shared import Held, body_of, has_form, options_of
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
_FILEPATHS = re.compile(r"filepaths\[\d{1,3}\]").fullmatch
_ONE = {"image": "url"}
_MANY = _ONE | {f"images[{number}]": f"urls[{number}]" for number in range(1_000)}
_TWO = {"image1": "url1", "image2": "url2"}

reads = [Depends(reader)]
writes = [Depends(admin_by_header)]
Work = Callable[[], Awaitable["_Done"]]


@dataclass(frozen=True, slots=True)
class _Done:
    """What a call answers; ``failed`` tells of those of several pictures that did not go well."""

    basis: Mapping[str, Any] | None
    result: Sequence[Any] = ()
    failed: Sequence[str] = ()
    problem: Problem | None = None
    """Why nothing went well."""


@router.post("/add/", dependencies=writes, openapi_extra={**body_of(_ONE, is_lenient=True)})
@router.api_route("/add/", methods=["GET"], dependencies=writes, include_in_schema=False)
@router.api_route("/add", methods=["GET", "POST"], dependencies=writes, include_in_schema=False)
async def rest_add(request: Request, held: Held) -> JSONResponse:
    """Add image under filepath, or images[0] under filepaths[0] and so on.

    Of several, those that can be added are; then the status is warn, with the others' problems.
    """

    async def work() -> _Done:
        shelf = held.library.first
        adding = Adding(
            shelf=shelf, previews=held.previews, max_pixels=held.config.limits.max_pixels
        )
        most = held.config.limits.max_parts
        async with held.uploads.receive(
            request, n_pictures=most, urls=_MANY, address=request.query_params, each_alone=True
        ) as upload:
            new = _named(upload)
            results = await asyncio.gather(
                *(_one_added(held, adding, name, given) for name, given in new),
                return_exceptions=True,
            )
        names = [name for name, _ in new]
        return await _of_each(held, list(zip(names, results, strict=True)))

    return await _answer("add", work)


class RestSearchOptions(BaseModel):
    """How a picture is searched; clients of MatchEngine send fields, or all in the address."""

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
@router.api_route("/search/", methods=["GET"], dependencies=reads, include_in_schema=False)
@router.api_route("/search", methods=["GET", "POST"], dependencies=reads, include_in_schema=False)
async def rest_search(
    request: Request, held: Held, asked: Annotated[RestSearchOptions, Query()]
) -> JSONResponse:
    """Search image, url, or the picture of a filepath by its preview.

    Matches are proven where they can be, and have overlaps then. They wait for review.
    """

    async def work() -> _Done:
        async with held.uploads.receive(
            request, urls=_ONE, address=_besides(request, RestSearchOptions),
            is_needed=asked.filepath is None,
        ) as upload:  # fmt: skip
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
        rows = [row for row in rows if float(row["score"]) >= options.min_score]
        return _Done(sifted.basis, rows)

    return await _answer("search", work)


class RestCompareOptions(BaseModel):
    """How two pictures are compared."""

    min_score: float = Field(default=0.0, ge=0, le=100)
    check_horizontal_flip: bool = Field(
        default=False, description="Compare the mirrored picture too; what is more alike counts."
    )


@router.post(
    "/compare/", dependencies=reads,
    openapi_extra={**body_of(_TWO, options=RestCompareOptions, is_lenient=True)},
)  # fmt: skip
@router.api_route("/compare/", methods=["GET"], dependencies=reads, include_in_schema=False)
@router.api_route("/compare", methods=["GET", "POST"], dependencies=reads, include_in_schema=False)
async def rest_compare(
    request: Request, held: Held, asked: Annotated[RestCompareOptions, Query()]
) -> JSONResponse:
    """Compare image1 with image2."""

    async def work() -> _Done:
        async with held.uploads.receive(
            request, n_pictures=2, urls=_TWO, address=_besides(request, RestCompareOptions)
        ) as upload:
            options = options_of(asked, upload)
            one, other = upload.named("image1"), upload.named("image2")
            comparing = Comparing(
                held.describer, held.config.limits.max_pixels, options.check_horizontal_flip
            )
            match = await held.do(comparing, Pair("image1", one.data, "image2", other.data))
        basis = {"fingerprint": held.describer.fingerprint, "threshold": comparing.threshold}
        fields, score = match.to_json(), _percent(match.probability, match.score)
        if not match.is_copy or float(score) < options.min_score:
            return _Done(basis)
        return _Done(basis, [_shares(fields["overlap"]) | {"score": score}])

    return await _answer("compare", work)


@router.delete("/delete/", dependencies=writes)
@router.api_route("/delete/", methods=["GET", "POST"], dependencies=writes, include_in_schema=False)
@router.api_route(
    "/delete", methods=["GET", "POST", "DELETE"], dependencies=writes, include_in_schema=False
)
async def rest_delete(
    request: Request,
    held: Held,
    filepath: Annotated[str | None, Query(min_length=1, max_length=MAX_ID)] = None,
) -> JSONResponse:
    """Remove the picture of a filepath, or those of filepaths[0], filepaths[1] and so on."""

    async def work() -> _Done:
        fields = {**request.query_params, **(await _form(request, held)).fields}
        asked = [filepath or fields.get("filepath"), *map(fields.get, filter(_FILEPATHS, fields))]
        names = [name for name in dict.fromkeys(asked) if name]
        if not names:
            raise Problem("invalid_request", "name a filepath, or filepaths[0], filepaths[1] ...")
        return await _of_each(
            held, [(name, await asyncio.to_thread(_one_removed, held, name)) for name in names]
        )

    return await _answer("delete", work)


@router.get("/count/", dependencies=reads)
@router.get("/count", dependencies=reads, include_in_schema=False)
async def rest_count(held: Held) -> JSONResponse:
    """Count the pictures."""

    async def work() -> _Done:
        basis = await asyncio.to_thread(held.library.first.basis)
        return _Done(basis, [basis["n_images"]])

    return await _answer("count", work)


class RestListOptions(BaseModel):
    """Which filepaths are listed."""

    offset: int = Field(default=0, ge=0, le=10**9)
    limit: int = Field(default=20, ge=0, le=10_000)


@router.get("/list/", dependencies=reads)
@router.post("/list/", dependencies=reads, include_in_schema=False)
@router.api_route("/list", methods=["GET", "POST"], dependencies=reads, include_in_schema=False)
async def rest_list(
    request: Request, held: Held, asked: Annotated[RestListOptions, Query()]
) -> JSONResponse:
    """List the filepaths."""

    async def work() -> _Done:
        options = options_of(asked, await _form(request, held))
        basis = await asyncio.to_thread(held.library.first.basis)
        rows = await asyncio.to_thread(_filepaths, held, options.offset, options.limit)
        return _Done(basis, rows)

    return await _answer("list", work)


@router.get("/ping/", dependencies=reads)
@router.get("/ping", dependencies=reads, include_in_schema=False)
async def rest_ping(held: Held) -> JSONResponse:
    """Say that the service is there."""

    async def work() -> _Done:
        return _Done({"fingerprint": held.describer.fingerprint})

    return await _answer("ping", work)


async def _answer(method: str, work: Work) -> JSONResponse:
    try:
        done = await work()
    except Vit4icdError as error:
        problem = problem_of(error)
        done = _Done(None, failed=[problem.detail], problem=problem)
    fields: dict[str, Any] = {
        "status": "fail" if done.problem else "warn" if done.failed else "ok",
        "error": list(done.failed),
        "method": method,
        "result": list(done.result),
    }
    if done.basis is not None:
        fields["basis"] = Basis(**done.basis).model_dump()
    if done.problem is None:
        return JSONResponse(fields)
    return JSONResponse(fields, status_code=done.problem.status, headers=done.problem.headers)


def _besides(request: Request, options: type[BaseModel]) -> Mapping[str, str]:
    """Return what stands in the address and is no option: URLs."""
    params = request.query_params
    return {name: params[name] for name in params if name not in options.model_fields}


async def _form(request: Request, held: State) -> Upload:
    """Return the fields of a body that is a form; no picture comes with them."""
    if not has_form(request):
        return Upload({}, {})
    async with held.uploads.receive(request, n_pictures=0) as upload:
        return upload


async def _one_added(held: State, adding: Adding, name: str, given: bytes | Problem) -> Added:
    if isinstance(given, Problem):
        raise given
    return await held.do(adding, New(require_id(name), given))


def _one_removed(held: State, name: str) -> Vit4icdError | None:
    try:
        n_removed = remove(held, held.library.first, name)
    except Vit4icdError as error:
        return error
    return None if n_removed else Problem("not_found", f"there is no picture {name!r}")


async def _of_each(held: State, results: Sequence[tuple[str, object]]) -> _Done:
    """Return what became of several pictures, given with their filepaths.

    Raises:
        Exception: a mistake of ours.
    """
    failed = [(name, one) for name, one in results if isinstance(one, Exception)]
    for _, error in failed:
        if not isinstance(error, Vit4icdError):
            raise error
    told = [f"{name}: {problem_of(error).detail}" for name, error in failed]
    if len(failed) == len(results):
        return _Done(None, failed=told, problem=problem_of(failed[0][1]))
    return _Done(await asyncio.to_thread(held.library.first.basis), failed=told)


def _added(held: State, filepath: str) -> Asked:
    shelf = held.library.first
    record = shelf.collection.get(filepath)  # or say that there is none
    preview = preview_of(held, handle_of_reference(shelf.name, filepath, record.sha256))
    return Asked(filepath, preview, record.sha256)


def _named(upload: Upload) -> list[tuple[str, bytes | Problem]]:
    """Return the pictures with their filepaths; without one, with their SHA-256.

    What there is no picture of is told by its URL, or its part.
    """
    found: list[tuple[str, bytes | Problem]] = []
    for part in (*upload.pictures, *upload.failed):
        match = _NUMBERED.fullmatch(part)
        name = upload.fields.get(f"filepaths[{match[1]}]" if match else "filepath")
        if part in upload.failed:
            url = upload.fields.get(_MANY.get(part, ""))
            found.append((name or url or part, upload.failed[part]))
        else:
            data = upload.pictures[part].data
            found.append((name or sha256_of_bytes(data), data))
    if not found:
        raise Problem("invalid_request", "send image or url, or images[0], urls[1] ...")
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
