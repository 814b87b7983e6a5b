"""The stream through the engine: order kept, failures in their place, names lossless."""

import json
import os
import threading
from pathlib import Path

import numpy as np

from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ImageError
from vit4icd.preprocessing import prepare
from vit4icd.storage import name_fields
from vit4icd.stream import Described, Prepared, Skipped, described, write_skipped


def _picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (20, 30, 3)).astype(np.uint8)


def _prepared(describer: OnnxDescriber, number: int, n_views: int = 1) -> Prepared[int]:
    view = prepare(_picture(number), describer.preprocessing)
    return Prepared(np.repeat(view[None], n_views, axis=0), number)


def test_keeps_the_order_and_puts_failures_in_their_place(describer: OnnxDescriber) -> None:
    def prepared(number: int) -> Prepared[int]:
        if number % 7 == 3:
            raise ImageError("corrupt", f"bad {number}")
        if number % 7 == 5:
            raise MemoryError
        return _prepared(describer, number)

    items = [
        item for batch in described(range(40), prepared, describer, name=str) for item in batch
    ]
    assert len(items) == 40
    for number, item in enumerate(items):
        if number % 7 in (3, 5):
            reason = "corrupt" if number % 7 == 3 else "too_large"
            assert isinstance(item, Skipped)
            assert (item.name, item.reason) == (str(number), reason)
        else:
            assert isinstance(item, Described)
            assert item.rest == number
            expected = describer.describe_images([_picture(number)])
            np.testing.assert_allclose(item.vectors, expected, atol=1e-6)


def test_takes_several_views_or_none(describer: OnnxDescriber) -> None:
    counts = [0, 3, 1, 0, 2]
    found = described(
        range(5), lambda number: _prepared(describer, number, counts[number]), describer,
        name=str, n_views=3,
    )  # fmt: skip
    items = [item for batch in found for item in batch]
    assert [len(item.vectors) for item in items if isinstance(item, Described)] == counts
    alone = described([0], lambda number: _prepared(describer, number, 0), describer, name=str)
    (item,) = next(alone)
    assert isinstance(item, Described)
    assert item.vectors.shape == (0, describer.dim)


def test_begins_nothing_more_when_it_is_left(describer: OnnxDescriber) -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def prepared(number: int) -> Prepared[int]:
        with lock:
            begun.append(number)
        return _prepared(describer, number)

    stream = described(range(1000), prepared, describer, name=str, n_workers=1)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert 16 <= len(begun) <= 64


def test_lists_what_was_skipped(tmp_path: Path) -> None:
    odd = os.fsdecode(b"bad-\xe9.jpg")
    report = tmp_path / "skipped.jsonl"
    write_skipped(report, [Skipped("é.jpg", "empty", "no bytes"), Skipped(odd, "corrupt", "?")])
    first, second = map(json.loads, report.read_text("utf-8").splitlines())
    assert first == {"name": "é.jpg", "reason": "empty", "message": "no bytes"}
    assert second["name_base64"] == "YmFkLekuanBn"
    write_skipped(report, [])
    assert report.read_bytes() == b""
    write_skipped(report, [], keep_empty=False)
    assert not report.exists()


def test_writes_names_losslessly() -> None:
    assert name_fields("id", "a\nb") == {"id": "a\nb"}
    fields = name_fields("id", os.fsdecode(b"\xff"))
    assert fields == {"id": "�", "id_base64": "/w=="}


def test_prepares_in_the_same_threads_again_and_again(describer: OnnxDescriber) -> None:
    threads: set[threading.Thread] = set()

    def prepared(number: int) -> Prepared[int]:
        threads.add(threading.current_thread())
        return _prepared(describer, number)

    for _ in range(20):
        list(described(range(4), prepared, describer, name=str, n_workers=2))
    assert 1 <= len(threads) <= 2
