"""Keys that open the service: made once, kept as hashes, compared in constant time."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from vit4icd.errors import ConfigError

__all__ = ["Key", "Keys", "Scope", "make_key", "read_keys"]

Scope = Literal["read", "admin"]
"""read: search, compare and look; admin: add, remove and decide as well."""

_LINE = re.compile(r"(read|admin)\s+sha256:([0-9a-f]{64})(?:\s+(.*))?")
_PREFIX = "v4i_"  # by which scanners of leaked secrets may know a key


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as far as it is kept."""

    scope: Scope
    digest: str
    """SHA-256 of the key; 32 random bytes need no slower hash."""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of a service."""

    known: tuple[Key, ...]

    def find(self, presented: str) -> Key | None:
        """Return the key that was presented; the time taken tells nothing of any key.

        Example:
            >>> key, line = make_key("read")
            >>> Keys((Key("read", line.split()[1][7:]),)).find(key).scope
            'read'
        """
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).hexdigest()
        return self.of_digest(digest)

    def of_digest(self, digest: str) -> Key | None:
        """Return the key of this hash, if it is still among the keys."""
        found = None
        for key in self.known:  # all of them, every time
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def make_key(scope: Scope) -> tuple[str, str]:
    """Return a new key, and the line for the file of keys, which does not tell it."""
    key = _PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode("ascii")).hexdigest()
    return key, f"{scope} sha256:{digest} made {datetime.now(UTC):%Y-%m-%d}"


def read_keys(path: Path) -> Keys:
    """Read a file of keys: one line each, as :func:`make_key` gives them; # begins a comment.

    Raises:
        ConfigError: it cannot be read, holds no key, or a line that is none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the keys in {path} cannot be read: {error}") from error
    known = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"line {number} of {path} is no key; make one with: vit4icd serve --make-key admin"
            )
        scope: Scope = "admin" if match[1] == "admin" else "read"
        known.append(Key(scope, match[2], match[3] or ""))
    if not known:
        raise ConfigError(f"{path} holds no key; make one with: vit4icd serve --make-key admin")
    return Keys(tuple(known))
