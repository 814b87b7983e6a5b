"""Groups of copies within a collection: listed for programs, queued for people."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from vit4icd.groups import Strictness
from vit4icd.service.access import admin, reader
from vit4icd.service.answers import Basis, GroupsAnswer, QueuedAnswer
from vit4icd.service.duplicates import Grouping
from vit4icd.service.routes.shared import PROBLEMS, Held, Limit, known_options
from vit4icd.storage import name_fields

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["groups"], responses=PROBLEMS,
    dependencies=[Depends(known_options)],
)  # fmt: skip

Least = Annotated[
    str, Query(max_length=20, description="auto, a precision such as P99, or a score.")
]


@router.get("/groups", dependencies=[Depends(reader)])
async def list_groups(
    held: Held,
    collection: str,
    threshold: Least = "auto",
    strictness: Strictness = "clique",
    after: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Limit = 100,
) -> GroupsAnswer:
    """List groups of copies within the collection, by their descriptors.

    Pairs that were rejected, and pictures that must never match, link no group.
    """
    shelf = held.library.get(collection)
    found = await held.do(Grouping(shelf, held.decisions, threshold, strictness), None)
    page, end = found.groups[after : after + limit], after + limit
    return GroupsAnswer(
        basis=Basis(**await asyncio.to_thread(shelf.basis, found.threshold)),
        groups=[[name_fields("id", id_)["id"] for id_ in group] for group in page],
        n_groups=len(found.groups),
        is_complete=found.is_complete,
        next=end if end < len(found.groups) else None,
    )


@router.post("/groups", status_code=201, dependencies=[Depends(admin)])
async def queue_groups(
    held: Held, collection: str, threshold: Least = "auto", limit: Limit = 500
) -> QueuedAnswer:
    """Put groups of copies into the queue, as pairs that nobody judged yet.

    They are found again whenever this is asked, but for those that were rejected.
    """
    shelf = held.library.get(collection)
    found = await held.do(Grouping(shelf, held.decisions, threshold), None)
    n_queued, n_left = await asyncio.to_thread(held.queueing.put, shelf, found, limit=limit)
    return QueuedAnswer(
        basis=Basis(**await asyncio.to_thread(shelf.basis, found.threshold)),
        n_groups=len(found.groups),
        is_complete=found.is_complete,
        n_queued=n_queued,
        n_left=n_left,
    )
