"""The OpenAPI document: whatever is sent by it, nothing breaks, and answers are as it says."""

from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)


@schemathesis.serializer("application/x-tar", "image/jpeg")
def _as_it_is(_: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()


CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


# The types of the service, in a thread of this process, are checked by samples drawn with `random`.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_breaks_on_nothing_that_its_own_document_allows(live: Callable[..., int]) -> None:
    address = f"http://127.0.0.1:{live()}"
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    n_called = 0
    operations: list[Any] = [*schema.get_all_operations()]
    for found in operations:
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=6,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def call(case: Any) -> None:
            nonlocal n_called
            case.call_and_validate(base_url=address, checks=CHECKS)
            n_called += 1

        call()
    assert n_called > 100


def test_describes_the_fields_of_every_answer_in_json(client: TestClient) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    assert "json" not in kind or "schema" in content, (path, status, kind)
