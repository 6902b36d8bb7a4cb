"""What the two clients have in common and needs no connection: settings, token, retry."""

from __future__ import annotations

import os
import random
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import httpx

from aintandem.errors import ApiError, Unreachable

DEFAULT_URL = "http://127.0.0.1:8000"
_LOOK_AGAIN_S = 1.0


class TokenSource:
    """A token by value, or from a file that is read again when it changes. It is not printed."""

    def __init__(self, value: str | None, path: str | os.PathLike[str] | None) -> None:
        self._value = value
        self._path = None if path is None else Path(path)
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")

    def read(self) -> str | None:
        """The one in force; None without one. Raises OSError where the file was never readable."""
        if self._path is not None and time.monotonic() - self._looked >= _LOOK_AGAIN_S:
            self._looked = time.monotonic()
            try:
                found = self._path.stat()
                if (found.st_mtime_ns, found.st_size) != self._stamp:
                    self._value = self._path.read_text(encoding="ascii").strip()
                    self._stamp = (found.st_mtime_ns, found.st_size)
            except OSError:
                # Between two tokens of whoever renews it, the last one holds.
                if self._value is None:
                    raise
        return self._value


@dataclass(frozen=True)
class Retry:
    """How often a call is tried, at least once, and the longest wait between two tries in seconds."""

    attempts: int = 4
    longest_wait: float = 5.0

    def wait(self, error: ApiError, attempt: int) -> float | None:
        """Seconds before the next try; None where there is none, because it would not help or is asked to wait for too long."""
        if attempt >= self.attempts or not error.retryable:
            return None
        asked = error.retry_after or 0.0
        if asked > self.longest_wait:
            return None
        return max(asked, min(0.1 * 2.0 ** (attempt - 1), self.longest_wait) * (1.0 + 0.2 * random.random()))


def new_key() -> str:
    """An idempotency key."""
    return str(uuid.uuid4())


def checked_url(url: str) -> str:
    """The address of a control plane. Raises ValueError that says what is wrong."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no address of a control plane: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"{url!r} is no address of a control plane; write it like {DEFAULT_URL}")
    return str(parts).rstrip("/")


def unanswered(error: httpx.TransportError, url: str, *, may_repeat: bool) -> Unreachable:
    """What it means that no answer came. `may_repeat` says whether a repeat does nothing twice."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return Unreachable(f"cannot connect to {url}: {error or type(error).__name__}", code="UNREACHABLE", retryable=True)
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{url} did not answer in time", code="TIMEOUT", retryable=may_repeat)
    return Unreachable(f"the connection to {url} was lost: {error or type(error).__name__}", code="CONNECTION_LOST", retryable=may_repeat)
