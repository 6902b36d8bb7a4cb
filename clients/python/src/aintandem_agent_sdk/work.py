"""Deliveries while their handlers run: leases extended, verdicts said once, no message handled by two runs at a time.

A broker delivers at least once. When a stream breaks while a handler runs, or before the answer to an ack came, the message comes
again although its work is being done, or done. Within one process this module recognises that: the new delivery takes the place of
the old one, and the handler does not run again. Across processes it cannot: key the work by `message.id`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aintandem_agent_sdk import errors, tracing
from aintandem_agent_sdk.handlers import Handler, Handlers, Reject, RetryLater, call
from aintandem_agent_sdk.messages import Message
from aintandem_agent_sdk.subscription import Delivery

_log = logging.getLogger(__name__)
# Work that is done and whose ack has no answer yet. What falls out is handled again if it comes again.
_MOST_REMEMBERED = 10_000
# And for so many seconds: whoever replays the message later wants it handled again.
_REMEMBERED_S = 600.0

# How long a handler that is cancelled may take to end.
_CANCEL_S = 2.0

Respond = Callable[[Message, Any], Awaitable[Any]]
_Identity = tuple[int, str, int]


def _identity(message: Message) -> _Identity:
    """What is the same in each delivery of a message, and in none of another one.

    A broker that was restored from a backup gives sequences again, and with them the ids `seq-<sequence>` of messages whose sender
    named none. Their times differ.
    """
    return message.sequence, message.id, message.wire.server_time.ToMilliseconds()


@dataclass
class _Run:
    delivery: Delivery
    task: asyncio.Task[None] | None = None
    handler_name: str = ""
    is_over: bool = False


@dataclass(frozen=True)
class _Outcome:
    """What the handler came to: an ack without a reason."""

    reason: str | None = None
    delay: float | None = None
    dead_letter: bool = False


class _TookTooLong(Exception):
    """The time of a handler is up."""


class Work:
    """The handlers of one agent that run."""

    def __init__(self, handlers: Handlers, respond: Respond, *, timeout: float | None) -> None:
        self._handlers = handlers
        self._respond = respond
        self._timeout = timeout
        self._runs: dict[_Identity, _Run] = {}
        self._done: OrderedDict[_Identity, tuple[float, _Outcome]] = OrderedDict()
        self._is_draining = False
        self.now_running: str = ""
        """Name of the handler that was entered last, for whoever finds the loop blocked."""

    def __len__(self) -> int:
        return len(self._runs)

    def begin(self, delivery: Delivery, when_done: Callable[[], None]) -> None:
        """Starts the handler of a delivery; `when_done` is called once its verdict is said."""
        identity = _identity(delivery.message)
        run = self._runs.get(identity)
        if run is not None and not run.is_over:
            _log.info("message %s came again while it is handled; its handler goes on", delivery.message.id)
            run.delivery = delivery
            when_done()
            return
        run = self._runs[identity] = _Run(delivery)
        run.task = asyncio.create_task(self._handle(run), name=f"handler of {delivery.message.id}")

        def ended(task: asyncio.Task[None]) -> None:
            if self._runs.get(identity) is run:
                del self._runs[identity]
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("handling message %s failed inside the SDK", delivery.message.id, exc_info=error)
            when_done()

        run.task.add_done_callback(ended)

    async def drain(self, timeout: float) -> None:
        """Waits for the handlers that run; cancels those that take longer, and their messages are given back."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout)
        self._is_draining = True
        for task in late:
            task.cancel()
        if late:
            _log.warning(
                "%d handlers did not return within %g s and were cancelled; their messages come again",
                len(late),
                timeout,
            )
            await asyncio.wait(late, timeout=2 * _CANCEL_S)
        self._is_draining = False

    async def _handle(self, run: _Run) -> None:
        identity = _identity(run.delivery.message)
        outcome = self._remembered(identity)
        if outcome is None:
            outcome = await self._outcome_of(run)
            self._done[identity] = (time.monotonic(), outcome)
            if len(self._done) > _MOST_REMEMBERED:
                self._done.popitem(last=False)
        else:
            _log.info("message %s came again after its work was done; only its verdict is said again", run.delivery.message.id)
        is_counted = await self._say(run, outcome)
        # From here to the end of the task nothing is awaited, so that a delivery that comes finds this run either going or over.
        run.is_over = True
        # What failed may be tried anew; what succeeded is remembered, and acknowledged when it comes again.
        if is_counted or outcome.reason is not None:
            self._done.pop(identity, None)

    async def _say(self, run: _Run, outcome: _Outcome) -> bool:
        """Says the verdict about the newest delivery of the message; False where the lease of that one was lost, too."""
        while True:
            delivery, is_counted = run.delivery, True
            try:
                if outcome.reason is None:
                    await delivery.ack()
                else:
                    await delivery.nack(outcome.reason, delay=outcome.delay, dead_letter=outcome.dead_letter)
            except errors.LeaseLost as error:
                _log.info("the verdict about message %s did not count: %s", delivery.message.id, error)
                is_counted = False
            except errors.TandemError as error:
                _log.warning("the verdict about message %s was refused: %s", delivery.message.id, error)
            if run.delivery is delivery:
                return is_counted

    def _remembered(self, identity: _Identity) -> _Outcome | None:
        when, outcome = self._done.pop(identity, (0.0, None))
        if outcome is None or time.monotonic() - when > _REMEMBERED_S:
            return None
        self._done[identity] = (when, outcome)
        return outcome

    async def _outcome_of(self, run: _Run) -> _Outcome:
        message = run.delivery.message
        handler = self._handlers.find(message)
        if handler is None:
            if "aintandem-approval" in message.wire.metadata:
                _log.info("approval %s has ended: %s", message.metadata["aintandem-approval"], message.raw[:200])
                return _Outcome()
            _log.warning("no handler takes the %s %s of %s", message.type, message.id, message.sender)
            return _Outcome(f"no handler takes a {message.type}", dead_letter=True)
        run.handler_name = self.now_running = getattr(handler, "__qualname__", repr(handler))
        try:
            with tracing.handling(message.wire.traceparent, f"handle {message.type}"):
                answer = await self._within_time(handler, message)
                if message.type == "request" or (message.type == "command" and message.requires_response):
                    await self._respond(message, answer)
        except Reject as said:
            return _Outcome(str(said) or "rejected", dead_letter=True)
        except RetryLater as said:
            return _Outcome(str(said), delay=said.delay)
        except _TookTooLong:
            text = f"{run.handler_name} did not return within {self._timeout} s"
            _log.error("message %s comes again: %s", message.id, text)
            return _Outcome(text)
        except asyncio.CancelledError:
            if self._is_draining:
                raise
            _log.error("%s cancelled itself with message %s; it comes again", run.handler_name, message.id)
            return _Outcome(f"{run.handler_name} cancelled itself")
        except Exception as error:
            _log.exception("%s failed with message %s; it comes again", run.handler_name, message.id)
            return _Outcome(f"{type(error).__name__}: {error}")
        finally:
            self.now_running = ""
        return _Outcome()

    async def _within_time(self, handler: Handler, message: Message) -> Any:
        """Runs a handler. Raises _TookTooLong when its time is up, also where it does not let itself be cancelled."""
        task = asyncio.ensure_future(call(handler, message))
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout)
            if done:
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                # A moment for its `finally`; a thread goes on, and nobody can stop it.
                await asyncio.wait({task}, timeout=_CANCEL_S)
        raise _TookTooLong
