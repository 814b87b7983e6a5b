"""The service under load from its own machine: python -m benchmarks.service [--cycles 200]

64 clients search over the loopback, a bounded number of times; one search in eleven finds copies,
ten of them, the others none. The rate is put beside that of the collection asked directly in one
call, of describing alone, and of the engine alone, which is given pixels. Then pictures are added,
found and removed in cycles, and the memory of the service is watched. Everything stops by itself.
"""

import argparse
import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import HEIGHT, WIDTH, photographs, report
from vit4icd.collection import Collection
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.images import read_image
from vit4icd.preprocessing import prepare
from vit4icd.stream import Prepared, described

N_REFERENCES, N_CLIENTS = 256, 64
KIND = {"Content-Type": "image/jpeg"}


def main() -> None:
    """Measure and report."""
    options = _options()
    describer = load_describer(n_threads=options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        references = photographs(folder / "held", N_REFERENCES, n_originals=options.held)
        pictures = photographs(folder / "asked", N_REFERENCES)
        collection = Collection.create(folder / "mine", describer=describer)
        collection.add(references, id_from="name", features=False)
        queries = [path.read_bytes() for path in pictures]
        works = [
            _engine_work(describer, queries),
            _describing_work(describer, queries),
            lambda: list(collection.ask(queries, k=10)),
        ]
        before = [_measured(work) for work in works]
        with _served(folder / "mine", options.threads, options.workers) as (port, process):
            _load(port, queries, options.searches // 4)  # warm
            before_s = _cpu_seconds(process)
            load = _load(port, queries, options.searches)
            cpu_s = _cpu_seconds(process) - before_s
            idle = _memory_mb(process)
            memory = _cycles(port, queries, options.cycles, lambda: _memory_mb(process))
        after = [_measured(work) for work in works]  # other programs may have come or gone
    engine, describing, direct = map(_mean, before, after)
    n, n_done = len(queries), len(load.times)
    rate, service_s = n_done / load.wall_s, cpu_s / n_done
    early, late = _halves(memory)
    report(
        "service",
        {
            "pictures": f"JPEG of {WIDTH} x {HEIGHT}, {N_REFERENCES} references",
            "photographs that these are cut from": options.held,
            "threads of the engine": options.threads,
            "processes of the service": options.workers,
            "engine alone: pictures/s": n / engine.wall_s,
            "describing, decoding included: pictures/s": n / describing.wall_s,
            "collection asked directly: pictures/s": n / direct.wall_s,
            f"service, {N_CLIENTS} clients: searches/s": rate,
            "service / collection": rate * direct.wall_s / n,
            "service / describing": rate * describing.wall_s / n,
            "service / engine": rate * engine.wall_s / n,
            "engine alone: CPU ms a picture": 1000 * engine.cpu_s / n,
            "describing: CPU ms a picture": 1000 * describing.cpu_s / n,
            "collection asked directly: CPU ms a picture": 1000 * direct.cpu_s / n,
            "service: CPU ms a search": 1000 * service_s,
            "the clients themselves: CPU ms a search": 1000 * load.clients_cpu_s / n_done,
            "service / engine, by CPU time": engine.cpu_s / n / service_s,
            "service / describing, by CPU time": describing.cpu_s / n / service_s,
            "service / collection, by CPU time": direct.cpu_s / n / service_s,
            "median: ms": 1000 * float(np.median(load.times)),
            "p95: ms": 1000 * float(np.quantile(load.times, 0.95)),
            "searches answered": n_done,
            "told to come again (429)": load.n_busy,
            "memory after the searches: MB": idle,
            "cycles of add, search, remove": options.cycles,
            "memory, second quarter of them: MB": early,
            "memory, last quarter: MB": late,
        },
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=1_000)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--held", type=int, default=2, help="photographs that are held")
    options = parser.parse_args()
    options.searches, options.cycles = min(options.searches, 20_000), min(options.cycles, 20_000)
    return options


@dataclass(frozen=True, slots=True)
class _Cost:
    """What some work took; CPU time is what a busy machine does not change."""

    wall_s: float
    cpu_s: float


def _engine_work(describer: OnnxDescriber, queries: Sequence[bytes]) -> Callable[[], None]:
    pixels = np.stack([_pixels(describer, data) for data in queries])
    describer.describe(pixels[:16])

    def run() -> None:
        for start in range(0, len(pixels), 16):
            describer.describe(pixels[start : start + 16])

    return run


def _describing_work(describer: OnnxDescriber, queries: Sequence[bytes]) -> Callable[[], object]:
    def prepared(data: bytes) -> Prepared[None]:
        return Prepared(_pixels(describer, data)[None], None)

    return lambda: list(described(queries, prepared, describer, name=lambda _: "query"))


def _pixels(describer: OnnxDescriber, data: bytes) -> np.ndarray:
    preprocessing = describer.preprocessing
    return prepare(read_image(data, at_least=preprocessing.at_least), preprocessing)


def _measured(work: Callable[[], object]) -> _Cost:
    work()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return _Cost(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def _mean(one: _Cost, other: _Cost) -> _Cost:
    return _Cost((one.wall_s + other.wall_s) / 2, (one.cpu_s + other.cpu_s) / 2)


@contextmanager
def _served(
    place: Path, n_threads: int, n_workers: int
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "vit4icd", "serve", f"mine={place}", "--port", "0"]
    options = ["--threads", str(n_threads), "--workers", str(n_workers)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        port = int(process.stderr.readline().rsplit(":", 1)[1].strip("/\n"))
        while _ask(_connection(port), "GET", "/readyz")[0] != 200:
            time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True, slots=True)
class _Load:
    """What came of many searches at once."""

    times: list[float]
    """Seconds, of those that were answered."""
    n_busy: int
    wall_s: float
    clients_cpu_s: float
    """What the clients themselves took from the same processors."""


def _load(port: int, queries: Sequence[bytes], n_searches: int) -> _Load:
    """Search so many times from all clients."""
    path = "/v1/collections/mine/search"
    requests = [_request(path, query) for query in queries]
    left, times, n_busy = iter(range(n_searches)), list[float](), 0

    async def client() -> None:
        nonlocal n_busy
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            started = time.perf_counter()
            writer.write(requests[number % len(requests)])
            status = await _status(reader)
            if status == 200:
                times.append(time.perf_counter() - started)
            else:
                assert status == 429, status
                n_busy += 1
        writer.close()

    async def clients() -> None:
        await asyncio.gather(*(client() for _ in range(N_CLIENTS)))

    wall_s, cpu_s = time.perf_counter(), time.process_time()
    asyncio.run(clients())
    return _Load(times, n_busy, time.perf_counter() - wall_s, time.process_time() - cpu_s)


def _request(path: str, body: bytes) -> bytes:
    kind = KIND["Content-Type"]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode("ascii").splitlines()
    fields = dict(line.lower().split(": ", 1) for line in lines if line)
    await reader.readexactly(int(fields["content-length"]))
    return int(status.split()[1])


def _cycles(
    port: int, queries: Sequence[bytes], n_cycles: int, memory: Callable[[], float]
) -> list[float]:
    """Add, find and remove a picture again and again; return the memory along the way."""
    connection, measured = _connection(port), []
    base = "/v1/collections/mine"
    for cycle in range(n_cycles):
        data = queries[cycle % len(queries)] + cycle.to_bytes(4, "little")  # other bytes each time
        status, _ = _ask(connection, "POST", f"{base}/images?id=cycle", data)
        assert status in (200, 201), status
        status, answer = _ask(connection, "POST", f"{base}/search?threshold=0.5&k=3", data)
        assert status == 200, status
        assert "cycle" in {match["reference"] for match in json.loads(answer)["matches"]}
        status, _ = _ask(connection, "DELETE", f"{base}/images/cycle")
        assert status == 200, status
        if cycle % max(1, n_cycles // 40) == 0:
            measured.append(memory())
            print(f"{cycle} cycles: {measured[-1]:.0f} MB", file=sys.stderr)
    return measured


def _halves(memory: Sequence[float]) -> tuple[float, float]:
    quarter = len(memory) // 4
    return float(np.mean(memory[quarter : 2 * quarter])), float(np.mean(memory[-quarter:]))


def _numbers(process: subprocess.Popen[str]) -> list[int]:
    """Return the process and those that it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [process.pid, *map(int, children.split())]


def _memory_mb(process: subprocess.Popen[str]) -> float:
    lines = [
        line
        for number in _numbers(process)
        for line in Path(f"/proc/{number}/status").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def _cpu_seconds(process: subprocess.Popen[str]) -> float:
    n_ticks = 0
    for number in _numbers(process):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        n_ticks += int(fields[11]) + int(fields[12])
    return n_ticks / os.sysconf("SC_CLK_TCK")


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, body, KIND if body is not None else {})
    response = connection.getresponse()
    return response.status, response.read()


if __name__ == "__main__":
    main()
