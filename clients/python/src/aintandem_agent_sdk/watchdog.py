"""Notices when something blocks the event loop, and says what: while it is blocked no lease is extended and no heartbeat sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Watchdog:
    """A thread that looks at the loop from outside, and a task on the loop that shows that it turns."""

    def __init__(self, blocked_after: float, handler_name: Callable[[], str]) -> None:
        self._blocked_after = blocked_after
        self._handler_name = handler_name
        self._turned = time.monotonic()
        self._ended = threading.Event()
        self._loop_thread = threading.get_ident()
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to watch, unless nobody wants it."""
        if self._blocked_after <= 0:
            return
        self._task = asyncio.create_task(self._turn(), name="watchdog")
        self._thread = threading.Thread(target=self._watch, name="aintandem-watchdog", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends both."""
        self._ended.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def _turn(self) -> None:
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(self._blocked_after / 4)

    def _watch(self) -> None:
        told = 0.0
        while not self._ended.wait(self._blocked_after / 2):
            away = time.monotonic() - self._turned
            # Told once for each block, however long.
            if away < self._blocked_after or told == self._turned:
                continue
            told = self._turned
            frame = sys._current_frames().get(self._loop_thread)
            where = "".join(traceback.format_stack(frame, limit=8)) if frame is not None else ""
            _log.warning(
                "the event loop has been blocked for %.1f s, last entered handler: %s. Leases are not extended meanwhile and messages "
                "may come again. Await what waits, or write the handler without `async`: it runs in a thread then.\n%s",
                away,
                self._handler_name() or "none",
                where,
            )
