"""Whether the service lives and is ready, and its figures."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from vit4icd.service.access import reader
from vit4icd.service.routes.shared import PROBLEMS, Held

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/healthz", response_class=PlainTextResponse)
async def health() -> str:  # a plain function would wait for a thread
    """Say that the process lives."""
    return "alive\n"


@router.get("/readyz", response_class=PlainTextResponse, responses=PROBLEMS)
async def ready(held: Held) -> str:
    """Say that everything is loaded; 503 with the reason until then."""
    held.require_ready()
    return "ready\n"


@router.get(
    "/metrics", response_class=PlainTextResponse, dependencies=[Depends(reader)],
    responses=PROBLEMS,
)  # fmt: skip
def metrics(held: Held) -> Response:
    """Give the figures, for Prometheus."""
    return Response(held.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
