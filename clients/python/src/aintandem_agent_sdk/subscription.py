"""An inbox as an async iterator, with credit, that comes back by itself after a break."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc

from aintandem_agent_sdk import errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import subscribe_service_pb2 as wire
from aintandem_agent_sdk.calls import Caller, ended
from aintandem_agent_sdk.messages import Message, duration
from aintandem_agent_sdk.outage import Outage
from aintandem_agent_sdk.rpc import method
from aintandem_agent_sdk.settlement import Settlement, Verdict

_log = logging.getLogger(__name__)
_SUBSCRIBE = method("messaging.Subscribe", "Subscribe", wire.SubscribeRequest, wire.SubscribeResponse)
_ON_THE_WAY = (errors.Unreachable, errors.ConnectionLost, errors.TimedOut)
_STALE = "the delivery ended with its stream; the message comes again unless an ack had counted whose answer was lost"


@dataclass(eq=False)
class Delivery:
    """One attempt to hand over a message, under a lease: say what became of it before its deadline, or extend it."""

    message: Message
    _number: int
    _size: int
    _stream: _Stream
    is_settled: bool = False
    """Whether something was said about it."""
    has_lapsed: bool = False
    """Whether its lease has ended by itself: its deadline passed, or its leader changed."""

    @property
    def attempt(self) -> int:
        """1 for the first one."""
        return self.message.attempt

    @property
    def is_live(self) -> bool:
        """Whether the lease still holds, as far as is known here."""
        return self._stream.is_open and not self.has_lapsed

    async def ack(self) -> None:
        """It is done, and the message gone for good; returns once that is durable.

        Raises LeaseLost when the delivery is not this client's any more, Refused with UNKNOWN_DELIVERY when something was said about
        it before.
        """
        await self._say(Verdict("ack"))

    async def nack(self, reason: str, *, delay: float | None = None, dead_letter: bool = False) -> None:
        """It failed. The message comes again after `delay` seconds or the backoff of the sandbox; with `dead_letter` it does not.

        `reason` is kept in the history of attempts, up to 1,024 bytes. Raises as `ack`.
        """
        await self._say(Verdict("nack", delay=delay, reason=reason, dead_letter=dead_letter))

    async def extend(self, seconds: float | None = None) -> None:
        """It takes longer: the deadline begins anew, with so many seconds or those of the subscription. Raises LeaseLost."""
        self._check_live()
        await self._stream.say(self._number, Verdict("extend", deadline=seconds))

    async def _say(self, verdict: Verdict) -> None:
        if self.is_settled:
            raise errors.Refused(
                "something was said about this delivery before",
                code="UNKNOWN_DELIVERY",
                status=grpc.StatusCode.NOT_FOUND,
            )
        self._check_live()
        self.is_settled = True
        self._stream.held.pop(self._number, None)
        # Shielded: whoever stops waiting does not take back what was said.
        await asyncio.shield(self._stream.say(self._number, verdict))

    def _check_live(self) -> None:
        if self.has_lapsed:
            raise errors.LeaseLost("the lease has ended, by its deadline or with its leader; the message comes again")
        if not self._stream.is_open:
            raise errors.LeaseLost(_STALE)


@dataclass(eq=False)
class _Stream:
    """What belongs to one stream, and ends with it."""

    is_open: bool = True
    settlement: Settlement = field(default_factory=Settlement)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    held: dict[int, Delivery] = field(default_factory=dict)
    used_messages: int = 0
    used_bytes: int = 0
    is_half_closed: bool = False

    def say(self, number: int, verdict: Verdict) -> asyncio.Future[None]:
        outcome = self.settlement.add(number, verdict)
        self.changed.set()
        return outcome


class Subscription:
    """The inbox of one sandbox. `async for delivery in subscription` until `close`.

    After a break the stream is opened again, at another node if need be. Deliveries from before it cannot be acknowledged any more
    (LEASE_LOST); their messages come again. Iteration ends with the error when no retry helps, such as UNKNOWN_SANDBOX.
    """

    def __init__(
        self,
        caller: Caller,
        workspace_id: str,
        sandbox_id: str,
        *,
        credit_messages: int = 1024,
        credit_bytes: int = 8 << 20,
        ack_deadline: float | None = None,
        low_priority_percent: int = 0,
        on_break: Callable[[], None] | None = None,
        repair: Callable[[errors.TandemError], Awaitable[bool]] | None = None,
    ) -> None:
        """`repair` is called with what ended a stream. True: it was repaired, try again. What it raises ends the subscription."""
        self._caller = caller
        self._sandbox_id = sandbox_id
        self._workspace_id = workspace_id
        self._credit_messages = max(1, credit_messages)
        self._credit_bytes = max(1, credit_bytes)
        self._open_request = wire.Open(workspace_id=workspace_id, sandbox_id=sandbox_id, low_priority_percent=low_priority_percent)
        if ack_deadline is not None:
            self._open_request.ack_deadline.CopyFrom(duration(ack_deadline))
        self._on_break = on_break
        self._repair = repair
        self._outage = Outage(caller, f"the inbox of {sandbox_id}")
        self._ready: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = _Stream(is_open=False)
        self._task: asyncio.Task[None] | None = None
        self._error: errors.TandemError | None = None
        self._is_closing = False
        self._was_opened = False
        self.ack_deadline = ack_deadline or 30.0
        """How long a delivery may take, in seconds, as the broker has it."""

    async def open(self) -> None:
        """Returns once the broker has confirmed the subscription. Raises TandemError where it never does."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"inbox of {self._sandbox_id}")
            self._task.add_done_callback(self._task_ended)
        await asyncio.shield(self._opened)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Delivery:
        delivery = await self.next()
        if delivery is None:
            raise StopAsyncIteration
        return delivery

    async def next(self, timeout: float | None = None) -> Delivery | None:
        """The next delivery; None once the subscription was closed, or after `timeout` seconds. Raises TandemError."""
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._is_closing:
                return None
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout)
            except asyncio.TimeoutError:
                return None
        delivery = self._ready.popleft()
        stream = delivery._stream
        stream.used_messages += 1
        stream.used_bytes += delivery._size
        if self._owes_credit(stream):
            stream.changed.set()
        return delivery

    def _owes_credit(self, stream: _Stream) -> bool:
        """Half a window at a time costs least."""
        return stream.used_messages * 2 >= self._credit_messages or stream.used_bytes * 2 >= self._credit_bytes

    def extend_all(self) -> None:
        """The deadlines of all deliveries that nothing was said about begin anew: a heartbeat of work that goes on."""
        for number in list(self._stream.held):
            self._stream.say(number, Verdict("extend"))

    async def close(self, timeout: float = 10.0) -> None:
        """Ends in order: what was said becomes durable, what nothing was said about is given back without a failed attempt."""
        if self._is_closing:
            return
        self._is_closing = True
        self._ready.clear()
        self._arrived.set()
        self._stream.changed.set()
        if self._task is not None:
            # Between two streams there is nobody to give anything back to.
            _, late = await asyncio.wait([self._task], timeout=timeout if self._stream.is_open else 0)
            for task in late:
                task.cancel()
                await asyncio.wait([task])
        if not self._opened.done():
            self._opened.set_exception(errors.Closed("the subscription was closed before it was open"))
            self._opened.exception()

    async def __aenter__(self) -> Subscription:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _run(self) -> None:
        while not self._is_closing:
            self._was_opened = False
            error = await self._once()
            if self._is_closing:
                return
            if self._was_opened:
                self._outage.is_over()
            try:
                is_repaired = self._repair is not None and await self._repair(error)
            except errors.TandemError as refused:
                # Why it cannot be repaired says more than what was to be.
                self._end(refused)
                return
            wait = self._next_try(error, is_repaired)
            if wait is None:
                self._end(error)
                return
            await asyncio.sleep(wait)

    def _next_try(self, error: errors.TandemError, is_repaired: bool) -> float | None:
        """Seconds until the next try; None where there is none."""
        is_first = not self._opened.done()
        if is_first and (self._outage.tries + 1 >= self._caller.settings.attempts or isinstance(error, errors.NotAuthenticated)):
            return None
        return self._outage.next_try(error, is_repaired=is_repaired)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for ever for a task that a bug has ended."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the inbox of %s failed inside the SDK", self._sandbox_id, exc_info=error)
            self._end(errors.ContractBroken(f"the subscription failed: {error!r}"))

    def _end(self, error: errors.TandemError) -> None:
        _log.warning("the inbox of %s is closed: %s", self._sandbox_id, error)
        self._error = error
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()
        self._arrived.set()

    async def _once(self) -> errors.TandemError:
        """Runs one stream until it ends; says why."""
        node = self._caller.nodes.pick(self._workspace_id)
        stream = self._stream = _Stream()
        writer: asyncio.Task[None] | None = None
        call: Any = None
        try:
            await node.connected(self._caller.settings.connect_timeout)
            call = node.stream(_SUBSCRIBE)(metadata=self._caller.metadata())
            writer = asyncio.create_task(self._write(call, stream))
            async for answer in call:
                self._take(stream, answer)
            return errors.ConnectionLost(f"{node.endpoint} ended the subscription")
        except grpc.aio.AioRpcError as error:
            found = errors.from_rpc(error, node.endpoint, None)
        except errors.TandemError as error:
            found = error
        finally:
            stream.is_open = False
            await ended(writer)
            if call is not None:
                call.cancel()
            stream.settlement.fail(errors.LeaseLost(_STALE))
            self._ready = deque(delivery for delivery in self._ready if delivery._stream is not stream)
            if self._on_break is not None and not self._is_closing:
                self._on_break()
        if isinstance(found, _ON_THE_WAY):
            self._caller.nodes.failed(node)
        return found

    async def _write(self, call: Any, stream: _Stream) -> None:
        # When the stream breaks, reading tells why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(wire.SubscribeRequest(open=self._open_request))
            first = wire.Credit(messages=self._credit_messages, bytes=self._credit_bytes)
            await call.write(wire.SubscribeRequest(credit=first))
            while True:
                while stream.settlement.has_something():
                    await call.write(stream.settlement.take())
                if self._owes_credit(stream) and not self._is_closing:
                    credit = wire.Credit(messages=stream.used_messages, bytes=stream.used_bytes)
                    stream.used_messages = stream.used_bytes = 0
                    await call.write(wire.SubscribeRequest(credit=credit))
                    continue
                if self._is_closing and not stream.is_half_closed and stream.settlement.is_settled():
                    stream.is_half_closed = True
                    await call.done_writing()
                    return
                stream.changed.clear()
                await stream.changed.wait()

    def _take(self, stream: _Stream, answer: wire.SubscribeResponse) -> None:
        kind = answer.WhichOneof("kind")
        if kind == "delivery_batch":
            for found in answer.delivery_batch.deliveries:
                message = Message(found.message, found.attempt)
                delivery = Delivery(message, found.delivery_id, found.message.ByteSize(), stream)
                if not self._is_closing:
                    stream.held[found.delivery_id] = delivery
                    self._ready.append(delivery)
            self._arrived.set()
        elif kind == "ack_outcome":
            stream.settlement.settled(list(answer.ack_outcome.refusals))
            stream.changed.set()
        elif kind == "nack_outcome":
            stream.settlement.settled(list(answer.nack_outcome.refusals))
            stream.changed.set()
        elif kind == "extend_outcome":
            stream.settlement.extended(list(answer.extend_outcome.refusals))
            stream.changed.set()
        elif kind == "leases_lost":
            self._lost(stream, answer.leases_lost)
        elif kind == "opened":
            deadline = answer.opened.ack_deadline
            self.ack_deadline = deadline.seconds + deadline.nanos / 1e9
            self._was_opened = True
            if not self._opened.done():
                self._opened.set_result(None)

    def _lost(self, stream: _Stream, lost: wire.LeasesLost) -> None:
        for number, delivery in [*stream.held.items()]:
            if any(found.first <= number <= found.last for found in lost.ranges):
                del stream.held[number]
                delivery.has_lapsed = True
                _log.warning("%s: delivery %d is lost and comes again: %s", self._sandbox_id, number, lost.status.message)
        # What was never taken is not worth a start any more; its credit comes back with it.
        stale = [delivery for delivery in self._ready if delivery.has_lapsed]
        for delivery in stale:
            self._ready.remove(delivery)
            stream.used_messages += 1
            stream.used_bytes += delivery._size
        if stale:
            stream.changed.set()
