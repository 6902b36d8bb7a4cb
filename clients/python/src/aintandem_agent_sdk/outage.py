"""What is done while a stream is gone: when it is tried again, when it is given up, and what is said about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aintandem_agent_sdk import errors
from aintandem_agent_sdk.backoff import pause
from aintandem_agent_sdk.calls import Caller, is_worth_a_retry

_log = logging.getLogger(__name__)
# A stream ends with its token, which may be renewed a little late by whoever renews it.
_TOKEN_GRACE_S = 10.0
_RENEWED_EVERY_S = 1.0


class Outage:
    """How it stands with one stream, or with whatever else has to go on by itself, since it last worked."""

    def __init__(self, caller: Caller, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`what` names it in the log."""
        self._caller = caller
        self._what = what
        self._clock = clock
        self.tries = 0
        """Those that have failed since it last worked."""
        self._since = 0.0
        self._refused_since: float | None = None
        self._has_warned = False

    def is_over(self) -> None:
        """It works."""
        self.tries = 0
        self._refused_since = None
        self._has_warned = False

    def next_try(self, error: errors.TandemError, *, is_repaired: bool = False) -> float | None:
        """Seconds before the next try after one that has failed; None where there is none, because it would not help.

        `is_repaired`: what was wrong is so no more.
        """
        now = self._clock()
        if self.tries == 0:
            self._since = now
        self.tries += 1
        limit = self._caller.settings.reconnect_limit
        if limit is not None and now - self._since >= limit:
            return None
        token = self._caller.settings.token
        if isinstance(error, errors.NotAuthenticated) and token is not None and token.is_renewable:
            token.look_again()
            return self._until_renewed(error, now)
        # LEASE_LOST ends a stream whose sandbox was unregistered while an ack was on its way: the next one says so.
        if not (is_repaired or isinstance(error, errors.LeaseLost) or is_worth_a_retry(error)):
            return None
        wait = pause(error.retry_after, self.tries)
        log = _log.info if self.tries == 1 else _log.debug
        log("%s broke off (%s); trying again in %.2f s", self._what, error, wait)
        return wait

    def _until_renewed(self, error: errors.NotAuthenticated, now: float) -> float | None:
        """The same of a token that comes from a file: at once, for there may be another one by now, and then again and again."""
        if self._refused_since is None:
            self._refused_since = now
            _log.info("%s broke off (%s); trying again with the token that is in the file now", self._what, error)
            return 0.0
        if now - self._refused_since >= _TOKEN_GRACE_S:
            return None
        if not self._has_warned:
            self._has_warned = True
            _log.warning("%s waits up to %g s for another token in its file: %s", self._what, _TOKEN_GRACE_S, error)
        return _RENEWED_EVERY_S
