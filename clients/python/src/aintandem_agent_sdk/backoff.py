"""How long to wait before a retry, and how many retries there may be.

Backoff spares a broker that is busy; the budget spares one that is down from everybody's retries at once: retries may be a part of
the calls that succeed, and a few more.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

FIRST_S = 0.02
LAST_S = 1.0


def backoff(attempt: int, *, last: float = LAST_S) -> float:
    """Seconds before the attempt after number `attempt` (from 1): 20 ms, doubled each time, up to `last`."""
    return min(FIRST_S * 2.0 ** min(max(attempt, 1) - 1, 20), last)


def pause(asked: float | None, attempt: int, *, last: float = LAST_S, spread: Callable[[], float] = random.random) -> float:
    """Seconds to wait where the broker may have asked for a wait: no less than that, and nothing where it says so.

    What it did not ask for is spread by up to a fifth more, so that clients which failed together do not come back together.
    """
    if asked == 0:
        return 0.0
    return max(asked or 0.0, backoff(attempt, last=last) * (1.0 + 0.2 * spread()))


class RetryBudget:
    """Tokens that retries cost, and that successes and time give back.

    Each retry takes one of at most `capacity`; each success gives back `share` of one, and each second `per_second`. While there is
    none, errors are raised at once, without a retry. There are enough for a few hundred callers at once to outlast a failover.
    """

    def __init__(
        self,
        capacity: float = 1000.0,
        share: float = 0.2,
        per_second: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._share = share
        self._per_second = per_second
        self._clock = clock
        self._tokens = capacity
        self._seen = clock()

    def succeeded(self) -> None:
        """A call went through."""
        self._tokens = min(self._capacity, self._tokens + self._share)

    def take(self) -> bool:
        """Whether there may be one more retry now."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._seen) * self._per_second)
        self._seen = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
