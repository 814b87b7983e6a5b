"""Pictures that are made to hurt: the service says what is wrong, stays small, and goes on."""

import asyncio
import http.client
import io
import json
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import make_known_model, until
from vit4icd.service.problems import Problem
from vit4icd.service.turns import Turns, is_heavy

SIDE = 4_096
MAX_PIXELS = SIDE * SIDE
MOST_BYTES_A_PIXEL = 90  # of the whole process; 65 to 78 were measured, 68 at 64 million pixels
COSTLY = "/v1/collections/mine/search?verify=true&rotate=true&review=true&threshold=-1"

Ask = Callable[[str, str, bytes | None], tuple[int, bytes]]


def _striped(channels: int) -> Image.Image:
    """Return a large picture that compresses well, but is not plain."""
    rng = np.random.default_rng(0)
    row = np.repeat(rng.integers(0, 255, (1, SIDE // 32, channels), np.uint8), 32, axis=1)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(row, (SIDE, SIDE, channels))))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def _png_with(kind: bytes, n_bytes: int) -> bytes:
    """Return a small PNG with a text or a profile that is far larger once it is unpacked."""
    data = kind + b"x\0\0" + zlib.compress(b"a" * n_bytes, 9)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    plain = _saved(Image.new("RGB", (64, 64)), "PNG")
    return plain[:33] + chunk + plain[33:]


@pytest.fixture(scope="module")
def hostile() -> dict[str, bytes]:
    """Pictures by what is wrong with them."""
    rgba, rgb = _striped(4), _striped(3)
    column = np.repeat(np.random.default_rng(0).integers(0, 255, MAX_PIXELS // 100, np.uint8), 100)
    frames = [Image.fromarray(np.full((64, 64), level, np.uint8)) for level in (0, 90, 180)]
    whole = {
        "transparent": _saved(rgba, "PNG", compress_level=1),
        "one column": _saved(Image.fromarray(column[:, None]), "PNG", compress_level=1),
        "progressive": _saved(rgb, "JPEG", progressive=True, quality=20, subsampling=0),
        "four inks": _saved(rgb.convert("CMYK"), "JPEG", quality=20),
        "deflated": _saved(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "webp": _saved(rgb, "WEBP", quality=1, method=0),
        "frames": _saved(frames[0], "GIF", save_all=True, append_images=frames * 200),
    }
    cut = {f"{name}, cut": data[: len(data) // 2] for name, data in whole.items()}
    flipped = {f"{name}, damaged": _damaged(data) for name, data in whole.items()}
    unpacked = {name: _png_with(name.encode(), 100_000_000) for name in ("zTXt", "iCCP")}
    return {**whole, **cut, **flipped, **unpacked, "text": b"<svg onload=alert(1)>", "nothing": b""}


def _damaged(data: bytes) -> bytes:
    spoilt = bytearray(data)
    for place in np.random.default_rng(0).integers(40, len(data), 20):
        spoilt[place] ^= 0xFF
    return bytes(spoilt)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A service of its own process on an empty collection."""
    words = [
        "serve",
        f"mine={tmp_path / 'collection'}",
        "--create",
        "--port",
        "0",
        "--threads",
        "1",
    ]
    options = ["--model", make_known_model(tmp_path / "model"), "--max-pixels", MAX_PIXELS]
    command = [sys.executable, "-m", "vit4icd", *words, *map(str, options)]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    yield started
    started.terminate()
    assert started.wait(60) == 0
    assert started.stderr is not None
    started.stderr.close()


@pytest.fixture
def ask(process: subprocess.Popen[str]) -> Ask:
    """Asks that service."""
    assert process.stderr is not None
    port = int(process.stderr.readline().rsplit(":", 1)[1].strip("/\n"))

    def asked(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        headers = {} if body is None else {"Content-Type": "application/octet-stream"}
        connection.request(method, path, body, headers)
        with connection.getresponse() as answer:
            found = answer.status, answer.read()
        connection.close()
        return found

    until(lambda: asked("GET", "/readyz")[0] == 200)
    return asked


def _most_mb(process: subprocess.Popen[str]) -> float:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel says no peak")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_stays_small_and_goes_on(
    process: subprocess.Popen[str], ask: Ask, hostile: dict[str, bytes], pictures: list[Path]
) -> None:
    good = pictures[0].read_bytes()
    assert ask("POST", "/v1/collections/mine/images?id=good", good)[0] == 201
    assert ask("POST", COSTLY, good)[0] == 200
    before = _most_mb(process)
    asked = [(COSTLY, name) for name in hostile]
    asked += [("/v1/collections/mine/images", name) for name in hostile if "," not in name]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda it: ask("POST", it[0], hostile[it[1]]), asked))
    for (path, name), (status, answer) in zip(asked, answers, strict=True):
        assert status in (200, 201, 413, 415, 422), (path, name, answer)
        if status >= 400:
            assert json.loads(answer)["code"] not in ("internal", "damaged"), (name, answer)
    status, answer = ask("POST", "/v1/collections/mine/search", good)
    assert status == 200
    assert json.loads(answer)["matches"][0]["reference"] == "good"
    assert _most_mb(process) - before < MAX_PIXELS * MOST_BYTES_A_PIXEL / 2**20


def test_knows_heavy_pictures_by_their_headers(hostile: dict[str, bytes]) -> None:
    heavy = {name for name in hostile if is_heavy(hostile[name])}
    assert {"transparent", "one column", "four inks", "progressive, damaged", "webp"} <= heavy
    assert not heavy & {"frames", "text", "nothing", "zTXt"}
    photograph = _saved(Image.new("RGB", (4_000, 3_000)), "JPEG")
    assert not is_heavy(photograph)
    assert is_heavy(photograph, hostile["webp"])


def test_takes_heavy_pictures_one_at_a_time(hostile: dict[str, bytes]) -> None:
    turns, inside, most = Turns(), list[int](), list[int]()

    def take(name: str) -> None:
        with turns.taken(hostile[name]):
            inside.append(1)
            time.sleep(0.001)  # lets another thread in, were there no turns
            most.append(len(inside))
            inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, ["transparent"] * 50))
    assert max(most) == 1
    with turns.taken(hostile["webp"]):
        take("frames")  # what is light waits for nobody


async def _waiting(turns: Turns, picture: bytes, name: str, came: list[str]) -> None:
    async with turns.awaited(picture):
        came.append(name)


def test_gives_turns_in_the_order_of_coming_to_threads_and_requests(
    hostile: dict[str, bytes],
) -> None:
    turns, came, heavy = Turns(), list[str](), hostile["webp"]

    def later() -> None:
        with turns.taken(heavy):
            came.append("thread")

    async def ask() -> None:
        with turns.taken(heavy):
            first = asyncio.create_task(_waiting(turns, heavy, "first", came))
            gone = asyncio.create_task(_waiting(turns, heavy, "gone", came))
            await asyncio.sleep(0)
            thread = threading.Thread(target=later)
            thread.start()
            await asyncio.to_thread(until, lambda: len(turns._tickets) == 4)
            second = asyncio.create_task(_waiting(turns, heavy, "second", came))
            await asyncio.sleep(0)
            gone.cancel()  # the client hung up
        await asyncio.gather(first, second, gone, return_exceptions=True)
        thread.join()

    asyncio.run(ask())
    assert came == ["first", "thread", "second"]


def test_refuses_heavy_pictures_when_many_wait(hostile: dict[str, bytes]) -> None:
    turns, came, heavy = Turns(), list[str](), hostile["webp"]

    async def ask() -> None:
        with turns.taken(heavy):
            tasks = [asyncio.create_task(_waiting(turns, heavy, "one", came)) for _ in range(16)]
            await asyncio.sleep(0)
            with pytest.raises(Problem, match="too many large pictures") as caught:
                await _waiting(turns, heavy, "more", came)
            assert caught.value.headers["Retry-After"]
            await _waiting(turns, hostile["frames"], "light", came)
        await asyncio.gather(*tasks)

    asyncio.run(ask())
    assert came == ["light", *["one"] * 16]
