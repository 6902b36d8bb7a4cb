"""What became of deliveries, on its way to the broker and back: gathered into few requests, with an outcome for each delivery."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from aintandem_agent_sdk import errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import subscribe_service_pb2 as wire
from aintandem_agent_sdk.messages import duration

# The contract allows 1,024 ranges. One for each delivery, so that a refusal names exactly the ones that it is about.
_MOST_RANGES = 1000
_REASON_BYTES = 1024
# Acks, nacks and extensions without an outcome; the broker stops reading at 1,024.
_MOST_UNANSWERED = 256


@dataclass(frozen=True)
class Verdict:
    """What shall become of a delivery. Equal ones that follow one another travel together."""

    kind: str  # ack, nack, extend
    delay: float | None = None
    reason: str = ""
    dead_letter: bool = False
    deadline: float | None = None


@dataclass
class _Request:
    verdict: Verdict
    outcomes: dict[int, asyncio.Future[None]] = field(default_factory=dict)


@dataclass
class Settlement:
    """Of one stream. The writer takes requests; the reader brings outcomes, which come in the order of the requests."""

    _queue: deque[_Request] = field(default_factory=deque)
    _settling: deque[_Request] = field(default_factory=deque)
    _extending: deque[_Request] = field(default_factory=deque)

    def add(self, delivery_id: int, verdict: Verdict) -> asyncio.Future[None]:
        """Says what shall become of a delivery; the future ends when the broker has said that it is durable."""
        last = self._queue[-1] if self._queue else None
        if last is None or last.verdict != verdict or len(last.outcomes) >= _MOST_RANGES or delivery_id in last.outcomes:
            last = _Request(verdict)
            self._queue.append(last)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        last.outcomes[delivery_id] = outcome
        return outcome

    def has_something(self) -> bool:
        """Whether a request can be sent now."""
        return bool(self._queue) and len(self._settling) + len(self._extending) < _MOST_UNANSWERED

    def is_settled(self) -> bool:
        """Whether everything that was said has its outcome."""
        return not (self._queue or self._settling or self._extending)

    def take(self) -> wire.SubscribeRequest:
        """The next request."""
        request = self._queue.popleft()
        verdict = request.verdict
        ranges = [wire.DeliveryRange(first=number, last=number) for number in request.outcomes]
        if verdict.kind == "extend":
            self._extending.append(request)
            extend = wire.Extend(ranges=ranges)
            if verdict.deadline is not None:
                extend.ack_deadline.CopyFrom(duration(verdict.deadline))
            return wire.SubscribeRequest(extend=extend)
        self._settling.append(request)
        if verdict.kind == "ack":
            return wire.SubscribeRequest(ack=wire.Ack(ranges=ranges))
        nack = wire.Nack(ranges=ranges, reason=clipped(verdict.reason), dead_letter=verdict.dead_letter)
        if verdict.delay is not None:
            nack.delay.CopyFrom(duration(verdict.delay))
        return wire.SubscribeRequest(nack=nack)

    def settled(self, refusals: list[wire.AckRefusal]) -> None:
        """The outcome of the oldest ack or nack."""
        self._answered(self._settling, refusals)

    def extended(self, refusals: list[wire.AckRefusal]) -> None:
        """The outcome of the oldest extension."""
        self._answered(self._extending, refusals)

    def fail(self, error: errors.TandemError) -> None:
        """The stream has ended: what has no outcome gets this one."""
        for request in (*self._settling, *self._extending, *self._queue):
            for outcome in request.outcomes.values():
                _fail(outcome, error)
        self._queue.clear()
        self._settling.clear()
        self._extending.clear()

    @staticmethod
    def _answered(waiting: deque[_Request], refusals: list[wire.AckRefusal]) -> None:
        if not waiting:
            raise errors.ContractBroken("the outcome of an ack came that was never sent")
        request = waiting.popleft()
        refused: dict[int, errors.TandemError] = {}
        for refusal in refusals:
            error = errors.refusal_from_status(refusal.status)
            for number in request.outcomes:
                if refusal.range.first <= number <= refusal.range.last:
                    refused.setdefault(number, error)
        for number, outcome in request.outcomes.items():
            if number in refused:
                _fail(outcome, refused[number])
            elif not outcome.done():
                outcome.set_result(None)


def clipped(reason: str) -> str:
    """A reason within the limit of the contract, 1,024 bytes of UTF-8."""
    encoded = reason.encode("utf-8", "replace")
    return encoded[:_REASON_BYTES].decode("utf-8", "ignore") if len(encoded) > _REASON_BYTES else encoded.decode("utf-8")


def _fail(outcome: asyncio.Future[None], error: errors.TandemError) -> None:
    if not outcome.done():
        outcome.set_exception(error)
        # Nobody has to look at what became of an extension, or of an ack after its handler was cancelled.
        outcome.exception()
