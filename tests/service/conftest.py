"""A service over a real collection and a tiny model, asked without a network."""

import dataclasses
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import make_model, make_pictures
from vit4icd.describer import load_describer
from vit4icd.service import ServiceConfig, create_app, make_key, read_keys, server
from vit4icd.service.library import Added, Adding, New
from vit4icd.storage import read_model_card, write_model_card

ADDRESS = "http://127.0.0.1:8400"

Serving = Callable[..., AbstractContextManager[TestClient]]


def make_known_model(folder: Path) -> Path:
    """Write a tiny model that knows a threshold."""
    make_model(folder)
    card = read_model_card(folder)
    write_model_card(folder, dataclasses.replace(card, thresholds={"P90": 0.9}))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six pictures."""
    return make_pictures(tmp_path / "pictures", 6)


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """Opens a service on an empty collection called "mine"; options are those of its config."""
    return serving_in(tmp_path)


def serving_in(folder: Path) -> Serving:
    """Return what opens a service on an empty collection, "mine", in a folder."""
    model = make_known_model(folder / "model")

    @contextmanager
    def opened(**options: Any) -> Iterator[TestClient]:
        config = ServiceConfig(
            **{"collections": [f"mine={folder / 'collection'}"], "create": True, **options}
        )
        app = create_app(config, load_describer(model, n_threads=1))
        with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            yield client

    return opened


@pytest.fixture
def client(serving: Serving) -> Iterator[TestClient]:
    """A client of an empty collection."""
    with serving() as opened:
        yield opened


@pytest.fixture
def filled(client: TestClient, pictures: list[Path]) -> TestClient:
    """A client of six pictures, 000.jpg to 005.jpg."""
    return fill(client, pictures)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A read and an admin key, their lines in keys.txt."""
    made = {"read": make_key("read"), "admin": make_key("admin")}
    text = "# ours\n\n" + "".join(f"{line}\n" for _, line in made.values())
    (tmp_path / "keys.txt").write_text(text)
    return {scope: key for scope, (key, _) in made.items()}


@pytest.fixture
def guarded(serving: Serving, keys: dict[str, str], tmp_path: Path) -> Iterator[TestClient]:
    """A client of a service that asks for those keys."""
    with serving(keys=read_keys(tmp_path / "keys.txt"), host="0.0.0.0") as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    """Return the headers of a program with a key."""
    return {"Authorization": f"Bearer {key}"}


def token_of(page: str) -> str:
    """Return the token that the page's requests carry."""
    return page.split('name="csrf-token" content="')[1].split('"')[0]


def fill(client: TestClient, pictures: list[Path]) -> TestClient:
    """Add pictures by their names."""
    held = client.app.state.service  # type: ignore[attr-defined]
    adding = Adding(shelf=held.library.first, previews=held.previews, max_pixels=1_000_000)
    added = adding.run([New(path.name, path.read_bytes()) for path in pictures])
    assert [one.outcome for one in added if isinstance(one, Added)] == ["stored"] * len(pictures)
    return client


def add(client: TestClient, data: bytes, id_: str | None = None, **params: str) -> Any:
    """Add a picture."""
    asked = params | ({} if id_ is None else {"id": id_})
    return client.post(
        "/v1/collections/mine/images", params=asked, files={"image": ("any.jpg", data)}
    )


def search(client: TestClient, data: bytes, name: str = "query.jpg", **params: object) -> Any:
    """Search for a picture."""
    return client.post(
        "/v1/collections/mine/search",
        params={key: str(value) for key, value in params.items()},
        files={"image": (name, data)},
    )


def until(is_so: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait for something that is to happen."""
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.02)


def _is_ready(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/readyz")
        return int(connection.getresponse().status) == 200


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Starts a service on a free port of the loopback and returns the port."""
    model = make_known_model(tmp_path / "model")
    servers: list[tuple[Any, threading.Thread]] = []

    def start(*, head_seconds: float = 10.0) -> int:
        monkeypatch.setattr(server, "HEAD_SECONDS", head_seconds)
        places = [f"mine={tmp_path / 'collection'}"]
        config = ServiceConfig(collections=places, create=True)
        app = create_app(config, load_describer(model, n_threads=1))
        ports: list[int] = []
        made = server.server_of(app, host="127.0.0.1", port=0, on_start=ports.append)
        thread = threading.Thread(target=made.run, daemon=True)
        thread.start()
        servers.append((made, thread))
        until(lambda: bool(ports))
        until(lambda: _is_ready(ports[0]))
        return ports[0]

    yield start
    for made, thread in servers:
        made.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
