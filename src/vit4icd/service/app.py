"""The service as one application: routes, rules, and what happens when it starts and stops."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vit4icd import __version__
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import Vit4icdError
from vit4icd.service import pages
from vit4icd.service.access import Guard
from vit4icd.service.policy import Policy
from vit4icd.service.problems import MEDIA_TYPE, Problem, problem_of, respond
from vit4icd.service.routes import bulk, groups, health, images, rest, review, search
from vit4icd.service.state import ServiceConfig, State

__all__ = ["create_app"]

_ABOUT = """Find edited copies of pictures, and let people judge what was found.

Answers name the model that they rest on, and those about a collection its version; searches and
groups name the threshold, too. Errors are problem documents (RFC 9457) with a stable `code`.
Pictures are uploaded; only with --allow-urls are they fetched, too, from public hosts. No path that
a client names is opened.
"""


def create_app(config: ServiceConfig, describer: OnnxDescriber) -> FastAPI:
    """Return the application; what it serves is opened now, and loaded when it starts.

    Raises:
        ConfigError: contradicting options.
        StoreError: a collection that is not there.
        MismatchError: a collection of another model.
    """
    state = State(config, describer)
    app = FastAPI(
        title="vit4icd", version=__version__, description=_ABOUT, lifespan=_lifespan,
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.service = state
    for routes in (images, search, groups, bulk, review, rest, health, pages):
        app.include_router(routes.router)
    app.add_middleware(Guard, access=state.access)
    app.add_middleware(Policy, metrics=state.metrics)
    app.add_exception_handler(Vit4icdError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.service
    app.openapi()  # made once, before several threads ask which options there are
    await anyio.to_thread.run_sync(state.start)
    yield
    await anyio.to_thread.run_sync(state.close)


def _on_error(request: Request, error: Exception) -> JSONResponse:
    return respond(problem_of(error), request.state.request_id)


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return respond(Problem("invalid_request", found), request.state.request_id)


def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes: Mapping[int, str] = {
        401: "unauthorised", 404: "not_found", 405: "not_allowed", 408: "too_slow",
        413: "too_large",
    }  # fmt: skip
    code = codes.get(error.status_code, "invalid_request")
    problem = Problem(code, str(error.detail), headers=error.headers)
    return respond(problem, request.state.request_id)


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document; malformed requests are 400 here, not FastAPI's 422."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                for answer in operation["responses"].values():
                    _name_kind_of_problem(answer)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        schema["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "A key of the service."}
        }
        schema["security"] = [{"key": []}, {}]
        app.openapi_schema = schema
    return app.openapi_schema


def _name_kind_of_problem(answer: dict[str, Any]) -> None:
    """Give the schema of problems to their own type; FastAPI gives it to that of the route."""
    content: dict[str, Any] = answer.get("content", {})
    if MEDIA_TYPE in content:
        (described,) = (found for kind, found in content.items() if kind != MEDIA_TYPE)
        answer["content"] = {MEDIA_TYPE: described}
