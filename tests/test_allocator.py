"""How much freed memory a process keeps."""

import os
import subprocess
import sys

import pytest

_HEAPS = """
import ctypes, os, sys, threading
{before}
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(7)

def work():
    together.wait()
    held = bytearray(50_000)  # not of Python's own pools
    together.wait()

threads = [threading.Thread(target=work) for _ in range(6)]
[thread.start() for thread in threads]
together.wait()
together.wait()
told = os.memfd_create("told")
stream = ctypes.c_void_p(libc.fdopen(os.dup(told), b"w"))
libc.malloc_info(0, stream)
libc.fclose(stream)
os.lseek(told, 0, 0)
print(os.read(told, 1_000_000).count(b"<heap nr="))
"""
_COMMAND_LINE = """
import vit4icd.__main__
sys.argv = ["vit4icd", "--version"]
try:
    vit4icd.__main__.main()
except SystemExit:
    pass
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="glibc's allocator is Linux's")
@pytest.mark.parametrize(
    ("before", "environment", "least", "most"),
    [
        ("", {}, 7, 7),
        (_COMMAND_LINE, {}, 1, 4),
        (_COMMAND_LINE, {"MALLOC_ARENA_MAX": "2"}, 1, 2),
        ("", {"MALLOC_ARENA_MAX": "4"}, 1, 4),
    ],
)
def test_shares_arenas(before: str, environment: dict[str, str], least: int, most: int) -> None:
    inherited = {key: value for key, value in os.environ.items() if "MALLOC" not in key}
    done = subprocess.run(
        [sys.executable, "-c", _HEAPS.format(before=before)],
        env=inherited | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert least <= int(done.stdout.split()[-1]) <= most
