"""The OpenAPI document: whatever is sent by it, nothing breaks, and answers are as it says."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service.conftest import add, search
from vit4icd.images import read_image, write_image


@schemathesis.serializer("application/x-tar", "image/jpeg")
def _as_it_is(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
METHODS = ("get", "post", "delete")  # in this order, so that what is named is there for the others
PHOTOGRAPH = Path(__file__).parents[2] / "src/vit4icd/demo/photographs/cat.jpg"


class Known:
    """What the service has, by the names that requests give it."""

    def __init__(self, client: Any, pictures: list[Path], part: bytes) -> None:
        self.part = part
        ids = [path.name for path in pictures]
        added = [add(client, path.read_bytes(), path.name).json() for path in pictures]
        assert add(client, PHOTOGRAPH.read_bytes(), "cat.jpg").status_code == 201
        found = search(client, part, verify=True, review=True).json()
        (match,) = (one["id"] for one in found["matches"] if one["reference"] == "cat.jpg")
        pair = {"query": found["query"]["sha256"], "reference": added[0]["sha256"]}
        decided = client.post("/v1/decisions", json={"decision": "reject", **pair})
        assert decided.status_code == 201
        self.archive = _archive(pictures)
        job = client.post(
            "/v1/collections/mine/jobs",
            content=self.archive,
            headers={"Content-Type": "application/x-tar"},
        ).json()["id"]
        self.texts = {  # each names another picture, for some of them will be removed
            "collection": "mine", "id": ids[0], "picture": added[1]["picture"],
            "filepath": ids[2], "match": match, "job": job,
        }  # fmt: skip

    def plain(self, operation: Any) -> Iterator[Any]:
        """Yield requests as they are meant, with each kind of body; all of them go well."""
        needed = {parameter.name for parameter in operation.query if parameter.is_required}
        if operation.label == "DELETE /rest/delete/":  # or filepaths[0] ..., which none can list
            needed.add("filepath")
        query = {name: self.texts[name] for name in needed}
        bodies = self._bodies(operation)
        for sent in [{"media_type": kind, "body": bodies[kind]} for kind in bodies] or [{}]:
            yield operation.Case(path_parameters=self.placed(operation), query=query, **sent)

    def placed(self, operation: Any) -> dict[str, str]:
        """Return what stands in the path."""
        return {part.name: self.texts[part.name] for part in operation.path_parameters}

    def settled(self, case: Any) -> Any:
        """Have a request that was drawn name what there is, and send what can be read."""
        case.query = self._named(case.query)
        whole: Any = self._bodies(case.operation).get(case.media_type, {})
        if isinstance(whole, bytes):
            case.body = whole
        elif isinstance(case.body, dict):
            drawn = {name: value for name, value in case.body.items() if "url" not in name}
            files = {name: value for name, value in whole.items() if isinstance(value, bytes)}
            case.body = whole | self._named(drawn) | files
        return case

    def _named(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: self.texts.get(name, value) for name, value in fields.items()}

    def _bodies(self, operation: Any) -> dict[str, Any]:
        """Return a body of each kind that is described, but for URLs: this service reads none."""
        content = operation.definition.raw.get("requestBody", {}).get("content", {})
        form = content.get("multipart/form-data", {"schema": {"properties": {}}})["schema"]
        files = {name for name, it in form["properties"].items() if it.get("format") == "binary"}
        known = {
            "application/json": {"decision": "accept", "match": self.texts["match"]},
            "application/x-tar": self.archive,
            "multipart/form-data": dict.fromkeys(files, self.part),
            "image/jpeg": self.part,
            "application/octet-stream": self.part,
        }
        kinds = content.keys() - {"application/x-www-form-urlencoded"}
        return {kind: known[kind] for kind in sorted(kinds)}


def _archive(pictures: list[Path]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for path in pictures:
            archive.add(path, f"many/{path.name}")
    return sink.getvalue()


@pytest.fixture
def address(live: Callable[..., int]) -> str:
    return f"http://127.0.0.1:{live()}"


@pytest.fixture
def known(address: str, pictures: list[Path], tmp_path: Path) -> Known:
    """Pictures, one of them found, proven and kept for review; a decision; a bulk addition."""
    whole = read_image(PHOTOGRAPH)
    write_image(tmp_path / "part.jpg", whole[40:-40, 60:-60], suffix=".jpg")
    with httpx2.Client(base_url=address, timeout=60) as client:
        return Known(client, pictures, (tmp_path / "part.jpg").read_bytes())


def _operations(address: str) -> list[Any]:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    found: list[Any] = [*schema.get_all_operations()]
    operations = [one.ok() for one in found]
    return sorted(operations, key=lambda operation: METHODS.index(operation.method.lower()))


def _drawn(operation: Any, known: Known) -> st.SearchStrategy[tuple[Any, list[Any]]]:
    """Return requests and what to check: most name what there is, some are against the document."""
    negative = GenerationMode.NEGATIVE
    placed = known.placed(operation)
    allowed = operation.as_strategy(path_parameters=placed).map(known.settled)
    kinds = [(allowed, CHECKS), (allowed, CHECKS), (operation.as_strategy(), CHECKS)]
    if operation.query or operation.body:  # nothing in a path alone is against the document
        refused = operation.as_strategy(generation_mode=negative, path_parameters=placed)
        kinds.append((refused, [*CHECKS, negative_data_rejection]))
    return st.one_of(*(st.tuples(cases, st.just(checks)) for cases, checks in kinds))


def _asked(case: Any, checks: list[Any], address: str) -> bool:
    """Ask, require an answer such as is described, and return whether it went well."""
    answer = case.call_and_validate(base_url=address, checks=checks)
    return bool(200 <= answer.status_code < 300)


def _asked_at_random(operation: Any, known: Known, address: str) -> list[bool]:
    went: list[bool] = []

    @hypothesis.given(drawn=_drawn(operation, known))
    @hypothesis.settings(
        max_examples=10,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def call(drawn: tuple[Any, list[Any]]) -> None:
        went.append(_asked(*drawn, address))

    call()
    return went


# The types of the service, in a thread of this process, are checked by samples drawn with `random`.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_breaks_on_nothing_that_its_own_document_allows(address: str, known: Known) -> None:
    went: list[bool] = []
    for operation in _operations(address):
        for case in known.plain(operation):
            assert _asked(case, CHECKS, address), operation.label
        went += _asked_at_random(operation, known, address)
    assert len(went) > 150
    assert sum(went) > len(went) / 4  # not all of them were turned away at the door


def test_describes_the_fields_of_every_answer_in_json(client: TestClient) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    assert "json" not in kind or "schema" in content, (path, status, kind)
