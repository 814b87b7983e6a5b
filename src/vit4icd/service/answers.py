"""What the routes answer, as documented types; it looks nothing up."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vit4icd.collection import Record
from vit4icd.matches import Match, Verdict
from vit4icd.service.decisions import Decision, Subject, Verb
from vit4icd.service.findings import Kind, State
from vit4icd.service.handles import handle_of_reference

__all__ = [
    "AddAnswer",
    "Basis",
    "CollectionsAnswer",
    "CompareAnswer",
    "DecideRequest",
    "DecisionBody",
    "DecisionsAnswer",
    "FindingBody",
    "GroupBody",
    "GroupsAnswer",
    "ImageAnswer",
    "ImageBody",
    "ImagesAnswer",
    "JobAnswer",
    "MatchBody",
    "ProblemBody",
    "QueryBody",
    "QueueAnswer",
    "QueuedAnswer",
    "RemoveAnswer",
    "RestAnswer",
    "SearchAnswer",
    "decision_body",
    "image_body",
    "match_body",
]


class Basis(BaseModel):
    """What an answer rests on."""

    collection: str | None = None
    version: int | None = Field(default=None, description="Of the collection, when it was asked.")
    n_images: int | None = None
    fingerprint: str = Field(description="Of the model's weights and preprocessing.")
    threshold: float | None = Field(
        default=None, description="Score from which on a pair is a match."
    )


class ProblemBody(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; what programs decide by.")
    request_id: str


class ImageBody(BaseModel):
    """A picture of a collection."""

    id: str
    id_base64: str | None = Field(
        default=None, description="The id's bytes, where it is not UTF-8."
    )
    source: str
    sha256: str
    width: int
    height: int
    metadata: dict[str, str]
    added: str
    picture: str = Field(description="Opaque; /v1/images/{picture}/thumbnail shows it.")


class MatchBody(BaseModel):
    """A query, a reference, and what is to be thought of the two."""

    id: str | None = Field(
        default=None, description="Opaque; given where the match is kept for review."
    )
    state: State | None = Field(
        default=None, description="What was decided of it, where it is kept."
    )
    query: str
    reference: str
    reference_base64: str | None = None
    verdict: Verdict
    same_bytes: bool = Field(
        default=False, description="Whether both are the same file, byte for byte."
    )
    probability: float | None
    score: float
    similarity: float
    verified: bool
    orientation: str = Field(
        description="How the query was turned or mirrored to be found; after a comma, its part."
    )
    query_part: str = Field(
        default="whole",
        description="The part of the query, turned and mirrored so, that is nearest; or whole.",
    )
    reference_part: str = Field(
        default="whole", description="The part of the reference that is nearest to it; or whole."
    )
    overlap: dict[str, Any] | None
    metadata: dict[str, str]
    image: ImageBody | None = Field(
        default=None, description="The reference; not of the nearest, nor of a comparison."
    )
    picture: str = Field(description="Opaque; of the reference.")


class QueryBody(BaseModel):
    """A picture that was searched."""

    name: str
    sha256: str
    width: int | None = None
    height: int | None = None
    picture: str | None = Field(default=None, description="Opaque; given where the query is kept.")


class SearchAnswer(BaseModel):
    """The matches of a query, the best first."""

    basis: Basis
    query: QueryBody
    matches: list[MatchBody]
    nearest: MatchBody | None = Field(
        description="The best reference, a match or not; the best match where that is held back."
    )
    n_rejected: int = Field(description="Matches held back, for somebody said they are none.")
    n_never: int = Field(description="Matches held back, for their reference must match nothing.")


class CompareAnswer(BaseModel):
    """Two pictures against each other."""

    basis: Basis
    match: MatchBody


class AddAnswer(BaseModel):
    """What became of an added picture; it can be found from now on."""

    basis: Basis
    id: str
    sha256: str
    outcome: Literal["stored", "unchanged"]
    picture: str


class ImageAnswer(BaseModel):
    """One picture."""

    basis: Basis
    image: ImageBody


class ImagesAnswer(BaseModel):
    """A page of pictures, by id."""

    basis: Basis
    images: list[ImageBody]
    next: str | None = Field(description="Give it as 'after' for the next page.")


class RemoveAnswer(BaseModel):
    """How many pictures were removed."""

    basis: Basis
    n_removed: int


class CollectionsAnswer(BaseModel):
    """The collections that are served."""

    collections: list[Basis]


class GroupsAnswer(BaseModel):
    """Groups of copies within a collection."""

    basis: Basis
    groups: list[list[str]]
    n_groups: int
    is_complete: bool = Field(description="Whether no pair was left out for being one of too many.")
    next: int | None = Field(description="Give it as 'after' for the next page.")


class QueuedAnswer(BaseModel):
    """What of the groups of a collection was put into the queue."""

    basis: Basis
    n_groups: int
    is_complete: bool = Field(description="Whether no pair was left out for being one of too many.")
    n_queued: int = Field(description="Pairs: the largest picture of a group with each other one.")
    n_left: int = Field(description="Pairs beyond the limit; judge some, and ask again.")


class JobAnswer(BaseModel):
    """A bulk addition, and how far it is."""

    basis: Basis = Field(description="Without a version: each batch of pictures makes one.")
    id: str
    collection: str
    state: Literal["waiting", "running", "done", "failed"]
    at: str
    regions: bool
    n_done: int
    n_stored: int
    n_unchanged: int
    n_skipped: int
    skipped: list[dict[str, str]]
    error: str | None


class RestAnswer(BaseModel):
    """An answer in the form of MatchEngine."""

    status: Literal["ok", "warn", "fail"] = Field(description="warn: some of it failed.")
    error: list[str]
    method: str
    result: list[Any]
    basis: Basis | None = Field(default=None, description="Of this service; not where it failed.")


class GroupBody(BaseModel):
    """The group of copies that a pair belongs to."""

    id: str
    n_images: int


class FindingBody(BaseModel):
    """A pair that waits for judgement, or had it."""

    id: str
    at: str
    state: State
    collection: str
    level: float
    kind: Kind = Field(
        description="search: a query and a match; group: two pictures of the collection itself."
    )
    query: QueryBody
    match: MatchBody
    group: GroupBody | None = None
    basis: Basis | None = Field(default=None, description="What it was found by, at that time.")


class QueueAnswer(BaseModel):
    """A page of findings, and how all of their state are spread by level."""

    findings: list[FindingBody]
    n_all: int
    counts: list[int] = Field(description="Findings by level, in hundredths from 0 to 1.")
    sums: list[float] = Field(description="Sums of their levels.")
    next: str | None


class DecideRequest(BaseModel):
    """A decision: on a match that is kept, or on pictures by their content."""

    model_config = ConfigDict(extra="forbid")
    decision: Verb
    match: str | None = Field(default=None, max_length=64)
    query: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    reference: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    state: State | None = Field(
        default=None,
        description="What was decided of it, as far as is known; if it is another, a conflict.",
    )
    on: Subject = Field(
        default="pair",
        description="What undo is about: the pair, or that the reference never matches.",
    )


class DecisionBody(BaseModel):
    """A line of the log of decisions."""

    number: int
    at: str
    decision: Verb
    query: str | None
    reference: str
    fields: dict[str, Any]


class DecisionsAnswer(BaseModel):
    """A page of the log."""

    decisions: list[DecisionBody]
    next: int | None


def image_body(collection: str, record: Record) -> ImageBody:
    """Return a record as the routes give it."""
    fields = record.to_json()
    fields.pop("source_base64", None)
    return ImageBody(**fields, picture=handle_of_reference(collection, record.id))


def match_body(
    match: Match,
    *,
    collection: str | None,
    image: ImageBody | None = None,
) -> MatchBody:
    """Return a match as the routes give it; with its record, its picture is that of the content."""
    fields: Mapping[str, Any] = match.to_json()
    picture, sha256 = "", None if image is None else image.sha256
    if collection is not None:
        picture = handle_of_reference(collection, match.reference, sha256)
    known = {name: fields[name] for name in MatchBody.model_fields if name in fields}
    return MatchBody(**known, image=image, picture=picture)


def decision_body(decision: Decision) -> DecisionBody:
    """Return a decision as the routes give it."""
    return DecisionBody(
        number=decision.number,
        at=decision.at,
        decision=decision.decision,
        query=decision.query or None,
        reference=decision.reference,
        fields=dict(decision.fields),
    )
