"""Bulk additions: a .tar of pictures is taken now and added in the background."""

import asyncio

from fastapi import APIRouter, Depends, Request, Response

from vit4icd.service.access import admin, reader
from vit4icd.service.answers import Basis, JobAnswer
from vit4icd.service.jobs import Job
from vit4icd.service.problems import Problem
from vit4icd.service.routes.shared import PROBLEMS, Held, Regions, known_options
from vit4icd.service.state import State

__all__ = ["router"]

router = APIRouter(
    prefix="/v1", tags=["bulk additions"], responses=PROBLEMS, dependencies=[Depends(known_options)]
)

_KINDS = ("application/x-tar", "application/octet-stream")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/collections/{collection}/jobs", status_code=202, dependencies=[Depends(admin)],
    openapi_extra=_BODY,
)  # fmt: skip
async def add_many(
    request: Request, response: Response, held: Held, collection: str, regions: Regions = False
) -> JobAnswer:
    """Take an uncompressed .tar; each picture's id is its name within.

    A job survives a stop of the service, and goes on when it starts again.
    """
    shelf = held.library.get(collection)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise Problem("unsupported_format", f"a .tar comes as {_KINDS[0]}, not {kind!r}")
    id_, path = held.jobs.place()
    await held.uploads.spool(request, path)
    job = await asyncio.to_thread(held.jobs.add, id_, shelf.name, regions=regions)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return _job_answer(held, job)


@router.get("/jobs/{job}", dependencies=[Depends(reader)])
def get_job(held: Held, job: str) -> JobAnswer:
    """Say how far a bulk addition is, and what it left out."""
    return _job_answer(held, held.jobs.get(job))


def _job_answer(held: State, job: Job) -> JobAnswer:
    basis = Basis(collection=job.collection, fingerprint=held.describer.fingerprint)
    return JobAnswer(basis=basis, **job.to_json())
