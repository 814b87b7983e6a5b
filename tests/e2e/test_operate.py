"""The operator's guide, its commands run as they stand: programs ask, copies are put back."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import until

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "src" / "vit4icd" / "demo"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the guide's commands are those of a shell"),
]


def _block(after: str) -> str:
    """Return the commands that follow a line of the guide."""
    text = (ROOT / "docs" / "operate.md").read_text("utf-8")
    assert text.count(after) == 1
    block = re.search(r"```\n(.*?)```", text.split(after)[1], re.DOTALL)
    assert block is not None
    return block[1]


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the operator stands after the guide's first commands, with the command on the path."""
    folder = tmp_path_factory.mktemp("operator")
    shutil.copytree(DEMO / "photographs", folder / "MY_PICTURES")
    for name, query in (("cat", "q01"), ("query", "q02"), ("a", "q02"), ("b", "q05")):
        shutil.copy(DEMO / "queries" / f"{query}.jpg", folder / f"{name}.jpg")
    (folder / "backup").mkdir()
    command = folder / "bin" / "vit4icd"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vit4icd "$@"\n')
    command.chmod(0o755)
    lines = _block("# Operate the service\n").splitlines()
    _run("\n".join(line for line in lines if "index add" in line), folder)
    return folder


def _run(commands: str, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    commands = commands.replace("/backup", str(folder / "backup"))
    done = subprocess.run(
        ["sh", "-ec", commands],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (commands, done.stderr)
    return done.stdout


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    words = ["vit4icd", "serve", "references", "--pictures", "MY_PICTURES", "--port", "0"]
    served = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    assert served.stderr is not None
    address = served.stderr.readline().split()[-1].rstrip("/")
    assert address.startswith("http://127.0.0.1:")
    try:
        until(lambda: _is_ready(address))
        yield address
    finally:
        served.terminate()
        served.communicate()
    assert served.returncode == 0


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=60) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        with error:
            return False


def _asked(address: str, data: bytes | None = None, kind: str = "image/jpeg") -> Any:
    request = urllib.request.Request(address, data, {"Content-Type": kind} if data else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _reject(address: str, query: Path) -> None:
    found = _asked(f"{address}/v1/collections/references/search?review=true", query.read_bytes())
    decision = json.dumps({"decision": "reject", "match": found["matches"][0]["id"]}).encode()
    _asked(f"{address}/v1/decisions", decision, "application/json")


def test_keeps_a_copy_and_puts_it_back_as_the_guide_does(guided: Path) -> None:
    with _served(guided) as address:
        _reject(address, guided / "cat.jpg")
        _run(_block("**Back up** while it runs:\n"), guided)
        _reject(address, guided / "query.jpg")
        _asked(
            f"{address}/v1/collections/references/images?id=late", (guided / "b.jpg").read_bytes()
        )
    _run(_block("belongs to the old one:\n"), guided)
    with _served(guided) as address:
        (decision,) = _asked(f"{address}/v1/decisions")["decisions"]
        assert decision["fields"]["reference_id"] == "MY_PICTURES/astronaut.jpg"
        assert _asked(f"{address}/v1/collections")["collections"][0]["n_images"] == 22
        found = _asked(
            f"{address}/v1/collections/references/search", (guided / "cat.jpg").read_bytes()
        )
        assert found["n_rejected"] == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_answers_programs_as_the_guide_says(guided: Path) -> None:
    with _served(guided) as address:
        commands = _block("## For programs\n").replace("http://127.0.0.1:8400", address)
        commands = commands.replace("curl ", "curl -sSf -w '\\n' ")
        added, found, compared, job, listed, removed = map(
            json.loads, _run(commands, guided).splitlines()
        )
    assert (added["id"], added["outcome"]) == ("cat", "stored")
    assert found["matches"][0]["verified"]
    assert compared["match"]["verdict"] == "none"
    assert job["state"] in ("waiting", "running", "done")
    assert len(listed["images"]) == 3
    assert removed["n_removed"] == 1
