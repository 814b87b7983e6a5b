"""Several processes that serve one collection: what one did, the others know; none is missed."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import make_known_model, until
from vit4icd.service import make_key

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads processes in /proc"),
]

IMAGES, SEARCH = "/v1/collections/mine/images", "/v1/collections/mine/search"
JPEG = {"Content-Type": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Served:
    """A service of one process or several."""

    parent: subprocess.Popen[str]
    address: str
    key: str

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Ask whoever takes the connection."""
        known = {"Authorization": f"Bearer {self.key}"} | (headers or {})
        request = urllib.request.Request(self.address + path, body, known, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def json(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """Ask, and read the answer."""
        kind = {name.replace("_", "-"): value for name, value in headers.items()} or JPEG
        status, answer = self.ask(method, path, body, kind)
        assert status < 400, answer
        return json.loads(answer)

    def workers(self) -> list[int]:
        """Return the processes that serve, or are about to."""
        return [number for number in _children(self.parent.pid) if _is_worker(number)]

    @contextmanager
    def only(self, which: int) -> Iterator[None]:
        """Have but one of them answer."""
        others = [other for number, other in enumerate(self.workers()) if number != which]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    def connected(self) -> http.client.HTTPConnection:
        """Return a connection of its own, to whoever takes it."""
        place = urllib.parse.urlsplit(self.address)
        assert place.hostname is not None
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.connect()
        return connection


def _children(number: int) -> list[int]:
    """Return the processes that one began; its own list of them may miss some while others end."""
    found = list[int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(entry.name)] if int(parent) == number else []
    return sorted(found)


def _is_worker(number: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _begun(folder: Path, n_processes: int = 2) -> tuple[subprocess.Popen[str], str]:
    key, line = make_key("admin")
    (folder / "keys.txt").write_text(line)
    model = folder / "model"
    if not model.exists():
        make_known_model(model)
    words = ["serve", f"mine={folder / 'collection'}", "--create", "--port", "0"]
    options = ["--model", model, "--threads", "1", "--keys", folder / "keys.txt"]
    if n_processes > 1:
        options += ["--workers", n_processes]
    command = [sys.executable, "-m", "vit4icd", *words, *map(str, options)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0), key


@contextmanager
def _serving(folder: Path, n_processes: int) -> Iterator[Served]:
    parent, key = _begun(folder, n_processes)
    assert parent.stderr is not None
    line = parent.stderr.readline()
    assert "serving on" in line, line + parent.stderr.read()
    try:
        yield Served(parent, line.split()[-1].rstrip("/"), key)
    finally:
        parent.terminate()
        parent.wait(60)
        parent.stderr.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A service of two processes on an empty collection."""
    with _serving(tmp_path, 2) as opened:
        yield opened


def test_answers_as_one(served: Served, pictures: list[Path]) -> None:
    data = [path.read_bytes() for path in pictures]
    with served.only(0):
        assert served.json("POST", f"{IMAGES}?id=a", data[0])["outcome"] == "stored"
    with served.only(1):
        found = served.json("POST", f"{SEARCH}?review=true", data[0])
        assert found["matches"][0]["reference"] == "a"
        assert served.json("POST", f"{IMAGES}?id=b", data[1])["basis"]["n_images"] == 2
    with served.only(0):
        assert served.json("GET", "/v1/matches")["n_all"] == 1
        made = json.dumps({"decision": "reject", "match": found["matches"][0]["id"]}).encode()
        served.json("POST", "/v1/decisions", made, Content_Type="application/json")
        assert served.ask("DELETE", f"{IMAGES}/b")[0] == 200
    with served.only(1):
        again = served.json("POST", SEARCH, data[0])
        assert (again["n_rejected"], again["basis"]["n_images"]) == (1, 1)
    _counts_all(served)


def _counts_all(served: Served) -> None:
    """Ask either for the figures: they are those of both."""
    until(lambda: _n_searches(_figures(served)) == [2.0])  # they are counted once they are answered
    for which in (0, 1):
        with served.only(which):
            text = _figures(served)
        assert _n_searches(text) == [2.0]
        assert "vit4icd_ready 1.0" in text
        assert text.count("\nvit4icd_waiting_jobs ") == 1


def _figures(served: Served) -> str:
    return served.ask("GET", "/metrics")[1].decode()


def _n_searches(text: str) -> list[float]:
    return [float(line.split()[-1]) for line in text.splitlines() if '/search",status' in line]


def test_shows_jobs_and_sessions_of_another_process(served: Served, pictures: list[Path]) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for path in pictures:
            archive.add(path, path.name)
    with served.only(0):
        kind = {"Content_Type": "application/x-tar"}
        job = served.json("POST", "/v1/collections/mine/jobs", sink.getvalue(), **kind)["id"]
        until(lambda: served.json("GET", f"/v1/jobs/{job}")["state"] == "done")
        cookie = _logged_in(served)
    with served.only(1):
        assert served.json("GET", f"/v1/jobs/{job}")["n_stored"] == len(pictures)
        request = urllib.request.Request(f"{served.address}/", headers={"Cookie": cookie})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert b"csrf-token" in answer.read()


def _logged_in(served: Served) -> str:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    body = urllib.parse.urlencode({"key": served.key}).encode()
    with pytest.raises(urllib.error.HTTPError) as moved:
        urllib.request.build_opener(Stay).open(f"{served.address}/login", body, timeout=60)
    assert moved.value.code == 303
    cookie: str = moved.value.headers["set-cookie"]
    moved.value.close()
    return cookie.partition(";")[0]


def test_loses_no_addition_that_several_make_at_once(served: Served, pictures: list[Path]) -> None:
    def add(number: int) -> int:
        return served.ask("POST", f"{IMAGES}?id={number}", pictures[number % 6].read_bytes(), JPEG)[
            0
        ]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(add, range(24))) == {201}
    for which in (0, 1):
        with served.only(which):
            assert served.json("GET", "/v1/collections")["collections"][0]["n_images"] == 24


def test_replaces_a_process_that_was_killed(served: Served, pictures: list[Path]) -> None:
    served.json("POST", f"{IMAGES}?id=a", pictures[0].read_bytes())
    gone, stays = served.workers()
    os.kill(gone, signal.SIGKILL)
    until(lambda: len(served.workers()) == 2 and gone not in served.workers())
    assert served.ask("GET", "/readyz")[0] == 200
    new = next(one for one in served.workers() if one != stays)
    os.kill(stays, signal.SIGSTOP)  # so the new one answers, once it can
    try:
        found = served.json("POST", SEARCH, pictures[0].read_bytes())
    finally:
        os.kill(stays, signal.SIGCONT)
    assert found["matches"][0]["reference"] == "a"
    assert new in served.workers()


@dataclass(frozen=True, slots=True)
class InHand:
    """An addition whose body the service reads, and whose last byte has not been sent."""

    connection: http.client.HTTPConnection
    last: bytes

    def finished(self) -> int:
        """Send what is missing, and return the status of the answer."""
        self.connection.send(self.last)
        with http.client.HTTPResponse(self.connection.sock) as answer:
            answer.begin()
            assert json.loads(answer.read())["outcome"] == "stored"
            return answer.status


def _in_hand(served: Served, id_: str, data: bytes) -> InHand:
    connection = served.connected()
    connection.putrequest("POST", f"{IMAGES}?id={id_}")
    heads = {"Authorization": f"Bearer {served.key}", "Content-Length": len(data)} | JPEG
    for name, value in {**heads, "Expect": "100-continue"}.items():
        connection.putheader(name, str(value))
    connection.endheaders()
    said = b""
    while not said.endswith(b"\r\n\r\n"):  # which comes once the route asks for the body
        piece = connection.sock.recv(1)
        assert piece, said
        said += piece
    assert said.startswith(b"HTTP/1.1 100 ")
    connection.send(data[:-1])
    return InHand(connection, data[-1:])


def _idle(served: Served) -> http.client.HTTPConnection:
    connection = served.connected()
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"alive\n"
    return connection


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("n_processes", [1, 2])
def test_stops_all_and_answers_what_is_in_hand(
    tmp_path: Path, pictures: list[Path], n_processes: int, how: signal.Signals
) -> None:
    """The signal finds each process within two uploads; the rest comes when it is to stop."""
    data = [path.read_bytes() for path in pictures]
    with _serving(tmp_path, n_processes) as served, ExitStack() as opened:
        workers, asked, idle = served.workers(), list[InHand](), list[http.client.HTTPConnection]()
        assert len(workers) == (0 if n_processes == 1 else n_processes)
        for which in range(n_processes):
            with served.only(which):
                numbers = (2 * which, 2 * which + 1)
                asked += [_in_hand(served, str(number), data[number]) for number in numbers]
                idle.append(_idle(served))
        for connection in (*idle, *(one.connection for one in asked)):
            opened.callback(connection.close)
        if how == signal.SIGINT:
            os.killpg(served.parent.pid, how)  # a terminal tells all of them
        else:
            served.parent.send_signal(how)
        for connection in idle:  # a process that is to stop closes those at once
            assert connection.sock.recv(1) == b""
        assert [one.finished() for one in asked] == [201] * len(asked)
        assert served.parent.wait(60) == 0
        assert not [number for number in workers if _is_worker(number)]


def test_takes_no_signal_to_all_for_a_crash(tmp_path: Path) -> None:
    """As a supervisor sends it, while they begin: it may reach them before the one that watches."""
    parent, _ = _begun(tmp_path)
    until(lambda: sum(map(_is_worker, _children(parent.pid))) == 2)
    os.killpg(parent.pid, signal.SIGTERM)
    _, said = parent.communicate()
    assert parent.returncode == 0, said


def test_ends_with_the_process_that_watches(served: Served) -> None:
    workers = served.workers()
    served.parent.kill()
    served.parent.wait(10)
    until(lambda: not [number for number in workers if _is_worker(number)])


def test_ends_loudly_when_a_process_cannot_begin(tmp_path: Path) -> None:
    parent, _ = _begun(tmp_path)
    assert parent.stderr is not None

    def kill_one() -> bool:
        found = [number for number in _children(parent.pid) if _is_worker(number)]
        for number in found[:1]:
            os.kill(number, signal.SIGKILL)
        return bool(found)

    until(kill_one)
    assert parent.wait(60) == 1
    assert "before it served" in parent.stderr.read()
    parent.stderr.close()


def _said(*words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "vit4icd", "serve", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_says_at_once_what_is_wrong(tmp_path: Path, workers: int) -> None:
    code, said = _said(tmp_path / "missing", "--workers", workers, "--port", 0)
    assert code == 1
    assert "there is no collection" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        model = make_known_model(tmp_path / "model")
        words = ["--model", model, "--create", "--workers", workers, "--port", port]
        code, said = _said(tmp_path / "new", *words)
    assert code == 1
    assert f"127.0.0.1:{port} cannot be listened on" in said
    assert "Traceback" not in said


def test_refuses_fewer_than_one_process(tmp_path: Path) -> None:
    assert _said(tmp_path / "new", "--create", "--workers", 0) == (
        2,
        "vit4icd: --workers must be at least 1, not 0\n",
    )
