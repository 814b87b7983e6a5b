"""What goes wrong in Lance, as errors of ours; it opens no table."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from vit4icd.errors import StoreError, Vit4icdError

__all__ = ["HINT", "explained", "without_hint"]

HINT = "; see what can be saved: vit4icd index recover"
_LONGEST = 300  # letters of what Lance says that are passed on
_NOISE = re.compile(
    r",? /[^ ,]*\.rs:\d+:\d+.*|LanceError\(\w+\): ", re.DOTALL
)  # Lance's own places


@contextmanager
def explained(uri: str, done: str) -> Iterator[None]:
    """Turn whatever Lance raises, panics of its Rust code included, into errors of ours."""
    try:
        yield
    except (Vit4icdError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a panic is no Exception
        text = _NOISE.sub("", str(error)).strip()[:_LONGEST] or type(error).__name__
        if done == "read" and "://" not in uri:
            text += f"{HINT} {uri}"
        raise StoreError(f"the collection {uri} cannot be {done}: {text}") from error


def without_hint(text: str) -> str:
    """Return what is wrong, without what to do about it."""
    return text.partition(HINT)[0]
