"""What a client shows to prove who it is."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from aintandem_agent_sdk.errors import InvalidSettings

_log = logging.getLogger(__name__)
# A file is looked at again after so many seconds; whoever renews the token writes another one there.
_LOOK_AGAIN_S = 1.0


class Token:
    """A token or an API key. It goes out with every call and stands in no text that this package prints."""

    def __init__(self, value: str = "", *, path: str | os.PathLike[str] | None = None) -> None:
        self._value = _checked(value) if path is None else ""
        self._path = None if path is None else Path(path)
        self._stamp: tuple[int, int, int] | None = None
        self._looked = float("-inf")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Token:
        """The one in a file, which is read again when it has changed, a second later at the latest.

        Where it cannot be read, the last one goes out, or none, and the broker says what that means.
        """
        return cls(path=path)

    @property
    def is_renewable(self) -> bool:
        """Whether another one may come by itself."""
        return self._path is not None

    def read(self) -> str:
        """The token in force; empty when there is none."""
        if self._path is not None and time.monotonic() - self._looked >= _LOOK_AGAIN_S:
            self._looked = time.monotonic()
            try:
                found = self._path.stat()
                stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
                if stamp != self._stamp:
                    self._value = _checked(self._path.read_text(encoding="utf-8"))
                    self._stamp = stamp
            except (OSError, UnicodeDecodeError, InvalidSettings) as error:
                _log.warning("the token in %s cannot be read: %s", self._path, error)
        return self._value

    def look_again(self) -> None:
        """Lets the next `read` look at the file, however short ago that was: the broker has refused what was read."""
        self._looked = float("-inf")

    def __repr__(self) -> str:
        return f"Token({'…' if self._path is None else str(self._path)!r})"


def _checked(value: str) -> str:
    value = value.strip()
    if not value.isascii() or any(character.isspace() for character in value):
        raise InvalidSettings("a token is one word of ASCII; what was given is not")
    return value
