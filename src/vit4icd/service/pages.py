"""The pages that people see: review, login, a description of the routes; it looks nothing up."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from vit4icd import __version__
from vit4icd.service.problems import CODES, Problem
from vit4icd.service.sessions import COOKIE, LASTS_S
from vit4icd.service.state import state_of

__all__ = ["STATIC", "router"]

STATIC = Path(__file__).parent / "static"
"""Styles, scripts and the icon."""

router = APIRouter(include_in_schema=False)

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@router.get("/")
def review(request: Request) -> Response:
    """Show the review page; without a session, where keys are needed, the login."""
    held = state_of(request)
    if request.state.allowed is None:
        return RedirectResponse("/login", status_code=303)
    cookie = request.cookies.get(COOKIE, "")
    return _page(
        "review.html",
        token=held.access.sessions.token(cookie),
        collections=list(held.library.shelves),
        may_decide=request.state.allowed == "admin",
        has_keys=held.config.keys is not None,
        max_bytes=held.config.limits.max_bytes,
    )


@router.get("/login")
def login_form(request: Request) -> Response:
    """Ask for a key."""
    return _page("login.html", failed=False)


@router.post("/login")
def login(request: Request, key: Annotated[str, Form(max_length=200)]) -> Response:
    """Begin a session with a key."""
    held = state_of(request)
    keys = held.config.keys
    found = keys.find(key.strip()) if keys else None
    if found is None:
        return _page("login.html", failed=True, status_code=401)
    response = RedirectResponse("/", status_code=303)
    response.set_cookie(
        COOKIE, held.access.sessions.begin(found), max_age=LASTS_S, httponly=True,
        samesite="strict", secure=request.url.scheme == "https",
    )  # fmt: skip
    return response


@router.post("/logout")
def logout(request: Request) -> Response:
    """End the session."""
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE)
    return response


@router.get("/docs")
def docs(request: Request) -> Response:
    """Describe the routes, from the same document that programs read."""
    document: dict[str, Any] = request.app.openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            entry = {"path": path, "method": method.upper(), **operation}
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(entry)
    return _page("docs.html", groups=groups, codes=CODES, version=__version__)


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Give a style or a script."""
    known = {path.name: path for path in STATIC.iterdir()}
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    if name not in known:
        raise Problem("not_found", "there is no such file")
    path = known[name]
    headers = {"Cache-Control": "no-cache"}
    return Response(path.read_bytes(), media_type=kinds[path.suffix], headers=headers)


def _page(template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(**values), status_code)
