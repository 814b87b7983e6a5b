"""Sessions of the page as signed cookies, and the token of its requests; none is stored."""

import base64
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from vit4icd.service.keys import Key, Keys
from vit4icd.storage import atomic_path

__all__ = ["COOKIE", "LASTS_S", "TOKEN_HEADER", "Sessions", "read_secret"]

COOKIE = "vit4icd_session"
TOKEN_HEADER = "x-csrf-token"  # noqa: S105 - the name of a header
LASTS_S = 12 * 3600
"""Seconds that a session lasts."""
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Sessions:
    """Who is logged in, told from the cookie alone, so that a restart logs nobody out."""

    secret: bytes

    def begin(self, key: Key, *, now: float | None = None) -> str:
        """Return the cookie of a new session."""
        ends = int(time.time() if now is None else now) + LASTS_S
        text = f"{key.digest}.{ends}"
        return f"{text}.{self._sign('session', text)}"

    def key_of(self, cookie: str, keys: Keys, *, now: float | None = None) -> Key | None:
        """Return the key of a session that is ours, lasts, and whose key is still valid."""
        text, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        digest, _, ends = text.partition(".")
        if int(ends) < (time.time() if now is None else now):
            return None
        return keys.of_digest(digest)

    def token(self, cookie: str) -> str:
        """Return the token that requests of this session's page carry."""
        return self._sign("token", cookie)

    def is_token(self, token: str, cookie: str) -> bool:
        """Return whether a request's token is that of its session."""
        return hmac.compare_digest(token.encode(), self.token(cookie).encode())

    def _sign(self, purpose: str, text: str) -> str:
        signed = hmac.new(self.secret, f"{purpose} {text}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(signed).rstrip(b"=").decode("ascii")


def read_secret(path: Path) -> bytes:
    """Return the secret that signs sessions, made when there is none; only its owner reads it.

    One of another length is what a kill or a full disk left, and is made anew.
    """
    secret = _secret_in(path)
    if secret is None:
        with atomic_path(path) as temporary:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
        secret = _secret_in(path)  # that of the process which wrote last
        assert secret is not None
    return secret


def _secret_in(path: Path) -> bytes | None:
    secret = path.read_bytes() if path.exists() else b""
    return secret if len(secret) == _SECRET_BYTES else None
