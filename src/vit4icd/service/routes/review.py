"""Matches that wait for judgement, the judgements, and pictures of the proof."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from vit4icd.service.access import admin, reader
from vit4icd.service.answers import (
    DecideRequest,
    DecisionBody,
    DecisionsAnswer,
    FindingBody,
    QueueAnswer,
    decision_body,
)
from vit4icd.service.decisions import Decision, Subject, to_csv
from vit4icd.service.findings import Finding, Kind
from vit4icd.service.findings import State as FindingState
from vit4icd.service.handles import read_handle
from vit4icd.service.overlays import Proving, draw_overlay
from vit4icd.service.problems import Problem
from vit4icd.service.routes.images import preview_of
from vit4icd.service.routes.shared import PROBLEMS, Held, Limit, known_options
from vit4icd.service.state import State

__all__ = ["router"]

router = APIRouter(
    prefix="/v1", tags=["review"], responses=PROBLEMS, dependencies=[Depends(known_options)]
)

_EXPORT_PAGE = 10_000

reads, administers = [Depends(reader)], [Depends(admin)]


@router.get("/matches", dependencies=reads)
def list_matches(
    held: Held,
    state: FindingState = "undecided",
    kind: Annotated[
        Kind | None, Query(description="Only matches of searches, or only pairs of groups.")
    ] = None,
    after: Annotated[str, Query(max_length=100)] = "",
    limit: Limit = 100,
) -> QueueAnswer:
    """List pairs that wait for judgement, or had it, the most probable first."""
    queue = held.findings.queue(state, kind=kind, after=after, limit=limit)
    last = queue.findings[-1] if len(queue.findings) == limit else None
    return QueueAnswer(
        findings=[FindingBody(**finding.to_json()) for finding in queue.findings],
        n_all=queue.n_all,
        counts=list(queue.counts),
        sums=list(queue.sums),
        next=last.place if last else None,
    )


@router.get("/matches/{match}", dependencies=reads)
def get_match(held: Held, match: str) -> FindingBody:
    """Say what is known of a match that is kept for review."""
    return FindingBody(**_finding(held, match).to_json())


@router.get("/matches/{match}/proof", dependencies=reads)
async def get_proof(held: Held, match: str) -> dict[str, Any]:
    """Prove a match from its previews: what the two pictures have in common, or null."""
    return {"overlap": await _overlap(held, await asyncio.to_thread(_finding, held, match))}


@router.get(
    "/matches/{match}/overlay", dependencies=reads, response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}, "description": "The drawing."}},
)  # fmt: skip
async def show_overlay(held: Held, match: str) -> Response:
    """Draw the reference over the query, in its place, outlined."""
    finding = await asyncio.to_thread(_finding, held, match)
    overlap = await _overlap(held, finding)
    if overlap is None:
        raise Problem("no_preview", "nothing was proven of this match; there is no overlay")
    both = await asyncio.to_thread(_previews, held, finding)
    drawn = await asyncio.to_thread(draw_overlay, *both, overlap)
    return Response(drawn, media_type="image/jpeg")


@router.post("/decisions", status_code=201, dependencies=administers)
def decide(held: Held, decision: DecideRequest) -> DecisionBody:
    """Write a decision to the log; it is on the disk when the answer comes.

    Name the match, or both pictures by their SHA-256; "never" and its undo need only a reference.
    Of a match whose pictures were replaced meanwhile, nothing is decided (409), nor with a state
    that it has no more.
    """
    query, reference, fields = _subject(held, decision)
    made = held.decisions.add(
        decision.decision, query=query, reference=reference, fields=fields,
        believed=_believed(held, decision),
    )  # fmt: skip
    held.metrics.decisions.labels(decision.decision).inc()
    return decision_body(made)


@router.get(
    "/decisions", dependencies=reads, response_model=DecisionsAnswer,
    responses={200: {"content": {"text/csv": {}}}},
)  # fmt: skip
def list_decisions(
    held: Held,
    after: Annotated[
        int, Query(ge=0, le=2**62, description="The number of the last decision that is known.")
    ] = 0,
    limit: Limit = 1_000,
    order: Literal["log", "newest"] = "log",
    on: Annotated[
        Subject | None, Query(description="With newest: on pairs only, or on references alone.")
    ] = None,
    form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> DecisionsAnswer | Response:
    """List decisions as they were made; newest lists those in force, the last first.

    The CSV holds all of the log at once.
    """
    if form == "csv":
        return _attached(to_csv(_all(held)), "text/csv; charset=utf-8", "decisions.csv")
    if order == "newest":
        found = held.decisions.newest(limit, on=on, before=after or None)
    else:
        found = held.decisions.page(after=after, limit=limit)
    return DecisionsAnswer(
        decisions=[decision_body(one) for one in found],
        next=found[-1].number if len(found) == limit else None,
    )


@router.get("/decisions/export", dependencies=reads, response_model=list[dict[str, Any]])
def export_decisions(held: Held) -> Response:
    """Return the whole log as one JSON file."""
    text = json.dumps([one.to_json() for one in _all(held)], ensure_ascii=False, indent=1)
    return _attached(text, "application/json", "decisions.json")


def _all(held: State) -> Sequence[Decision]:
    found: list[Decision] = []
    while page := held.decisions.page(after=found[-1].number if found else 0, limit=_EXPORT_PAGE):
        found += page
    return found


def _attached(text: str, media_type: str, name: str) -> Response:
    disposition = f'attachment; filename="{name}"'
    return Response(text, media_type=media_type, headers={"Content-Disposition": disposition})


def _finding(held: State, match: str) -> Finding:
    finding = held.findings.get(match)
    if finding is None:
        raise Problem("not_found", "there is no such match, or it is kept no more")
    return finding


def _subject(held: State, decision: DecideRequest) -> tuple[str, str, dict[str, Any]]:
    """Return query, reference and what is known of them; the query is empty for one alone."""
    if decision.on == "reference" and decision.decision in ("accept", "reject"):
        raise Problem("invalid_request", f"{decision.decision} is on a pair, not a reference alone")
    is_alone = decision.decision == "never" or decision.on == "reference"
    if decision.match is not None:
        finding = _finding(held, decision.match)
        if decision.decision != "undo":
            _require_unreplaced(held, finding)
        return "" if is_alone else finding.query, finding.reference, _known(finding)
    if decision.reference is None or (decision.query is None and not is_alone):
        raise Problem("invalid_request", "name a match, or query and reference by SHA-256")
    return "" if is_alone else decision.query or "", decision.reference, {}


def _believed(
    held: State, decision: DecideRequest
) -> tuple[tuple[str, str, str], FindingState] | None:
    if decision.state is None:
        return None
    if decision.match is None:
        return ("search", decision.query or "", decision.reference or ""), decision.state
    finding = _finding(held, decision.match)
    return (finding.kind, finding.query, finding.reference), decision.state


def _require_unreplaced(held: State, finding: Finding) -> None:
    """Refuse to judge content that its id has no more, and keep such a match no longer."""
    for picture in (finding.fields["query"]["picture"], finding.fields["match"]["picture"]):
        named = read_handle(picture)
        if isinstance(named, str) or named.collection not in held.library.shelves:
            continue
        found = held.library.get(named.collection).collection.find([named.id]).get(named.id)
        if found is not None and named.sha256 not in (None, found.sha256):
            held.findings.drop([finding])
            raise Problem("conflict", "one of the pictures was replaced since; search again")


def _known(finding: Finding) -> dict[str, Any]:
    match, query = finding.fields["match"], finding.fields["query"]
    basis = finding.fields.get("basis", {})  # of one that an earlier version kept: nothing
    return {
        "match": finding.id,
        "collection": finding.collection,
        "query_name": query["name"],
        "reference_id": match["reference"],
        "verdict": match["verdict"],
        "probability": match["probability"],
        "score": match["score"],
        "query_picture": query["picture"],
        "reference_picture": match["picture"],
        "fingerprint": basis.get("fingerprint"),
        "threshold": basis.get("threshold"),
        "version": basis.get("version"),
    }


async def _overlap(held: State, finding: Finding) -> dict[str, Any] | None:
    known: dict[str, Any] | None = finding.fields["match"]["overlap"]
    if known is not None or finding.fields["match"]["verified"]:
        return known
    return await held.do(Proving(), await asyncio.to_thread(_previews, held, finding))


def _previews(held: State, finding: Finding) -> tuple[bytes, bytes]:
    query, match = finding.fields["query"], finding.fields["match"]
    return preview_of(held, query["picture"]), preview_of(held, match["picture"])
