"""Searches and comparisons of pictures that come with a request, or by their URLs."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from vit4icd.service import library
from vit4icd.service.access import reader
from vit4icd.service.answers import Basis, CompareAnswer, SearchAnswer, match_body
from vit4icd.service.comparison import Comparing, Pair
from vit4icd.service.library import Searching
from vit4icd.service.routes.shared import PROBLEMS, Held, body_of, known_options, options_of
from vit4icd.service.sifting import SiftedSearching

__all__ = ["router"]

router = APIRouter(
    prefix="/v1", tags=["search"], responses=PROBLEMS,
    dependencies=[Depends(reader), Depends(known_options)],
)  # fmt: skip

_SHOWN = 200  # signs of a name that a client gives
_ONE = {"image": "image_url"}
_TWO = {"query": "query_url", "reference": "reference_url"}


class SearchOptions(BaseModel):
    """How a picture is searched."""

    k: int = Field(default=10, ge=1, le=100, description="Matches, at most.")
    threshold: str = Field(
        default="auto", max_length=20, description="auto, a precision such as P99, or a score."
    )
    verify: bool = Field(default=False, description="Try to prove the nearest.")
    flip: bool = Field(default=False, description="Search the mirrored picture too.")
    rotate: bool = Field(default=False, description="Search all eight orientations.")
    regions: bool = Field(
        default=False, description="Search nine parts of the picture too, for small copies in it."
    )
    review: bool = Field(
        default=False, description="Keep picture and matches until somebody judged them."
    )


@router.post(
    "/collections/{collection}/search",
    openapi_extra={**body_of(_ONE, options=SearchOptions, is_raw=True)},
)
async def search(
    request: Request, held: Held, collection: str, asked: Annotated[SearchOptions, Query()]
) -> SearchAnswer:
    """Find what the picture is a copy of.

    Pairs that were rejected, and references that must never match, are held back and counted.
    """
    shelf = held.library.get(collection)
    known = SearchOptions.model_fields
    async with held.uploads.receive(request, urls=_ONE, options=known) as upload:
        picture, options = upload.only(), options_of(asked, upload)
        searching = Searching(
            shelf=shelf, max_pixels=held.config.limits.max_pixels,
            **options.model_dump(exclude={"review"}),
        )  # fmt: skip
        query = library.Query(picture.name[:_SHOWN] or "query", picture.data)
        sifted = await held.do(SiftedSearching(held.decisions, searching), query)
        if options.review:
            return await asyncio.to_thread(held.sifting.remember, sifted)
        return held.sifting.answer(sifted)


@router.post("/compare", openapi_extra={**body_of(_TWO)})
async def compare(request: Request, held: Held) -> CompareAnswer:
    """Say whether one picture is a copy of another, and prove it if that can be done."""
    comparing = Comparing(held.describer, held.config.limits.max_pixels)
    async with held.uploads.receive(request, n_pictures=2, urls=_TWO, options=()) as upload:
        query, reference = upload.named("query"), upload.named("reference")
        pair = Pair(
            query.name or "query", query.data, reference.name or "reference", reference.data
        )
        match = await held.do(comparing, pair)
    basis = Basis(fingerprint=held.describer.fingerprint, threshold=comparing.threshold)
    return CompareAnswer(basis=basis, match=match_body(match, collection=None))
