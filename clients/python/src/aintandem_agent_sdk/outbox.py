"""What a publisher has not had an answer for: numbered, in order, and sent again as it was after a break."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from aintandem_agent_sdk import errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import message_pb2
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import publish_service_pb2 as wire
from aintandem_agent_sdk.ids import new_id


@dataclass(frozen=True)
class Receipt:
    """What became of a message that was accepted."""

    message_id: str
    """As it was given, or the broker's `seq-<sequence>`; empty for a held message without an id of its own."""
    sequence: int
    """Its position in the log of the workspace; 0 while it is held for approval."""
    duplicate: bool = False
    """It had been accepted before, by an earlier try or under the same id; the sequence is that of the first time."""
    approval_id: int = 0
    """It is durable, and a policy holds it for this approval. 0: it is not held."""


@dataclass
class Waiting:
    """A message without an answer."""

    message: message_pb2.Message
    size: int
    receipt: asyncio.Future[Receipt]


@dataclass
class Batch:
    """A request. Its parts and its position stay what they are when it is sent again."""

    request_id: int
    position: int
    messages: list[Waiting]


@dataclass
class Outbox:
    """Pure but for its futures: the stream asks it what to send and tells it what came.

    Every message gets exactly one outcome. The producer's positions follow one another without a gap, whatever the broker says
    about single messages, because a refused message takes its position as well.
    """

    batch_messages: int
    batch_bytes: int
    producer_id: str = field(default_factory=new_id)
    _next_position: int = 1
    _next_request: int = 1
    _unsent: deque[Waiting] = field(default_factory=deque)
    _sent: deque[Batch] = field(default_factory=deque)
    _to_resend: deque[Batch] = field(default_factory=deque)
    messages: int = 0
    """Without an outcome."""
    bytes: int = 0
    """Of those."""
    answers: int = 0
    """Requests that were answered so far."""

    def add(self, message: message_pb2.Message, size: int, receipt: asyncio.Future[Receipt]) -> None:
        """One more at the end, of so many bytes."""
        waiting = Waiting(message, size, receipt)
        self._unsent.append(waiting)
        self.messages += 1
        self.bytes += waiting.size

    def has_something(self) -> bool:
        """Whether there is a request to send now."""
        return bool(self._to_resend or self._unsent)

    def unanswered_requests(self) -> int:
        """Sent on the stream that is open."""
        return len(self._sent)

    def take(self) -> Batch:
        """The next request: one that has to be sent again, or all that has gathered, within the limits of a batch."""
        if self._to_resend:
            batch = self._to_resend.popleft()
        else:
            batch = Batch(self._next_request, self._next_position, self._gather())
            self._next_position += len(batch.messages)
        # Numbered anew for each stream, which answers in order.
        batch.request_id = self._next_request
        self._next_request += 1
        self._sent.append(batch)
        return batch

    def _gather(self) -> list[Waiting]:
        gathered = [self._unsent.popleft()]
        size = gathered[0].size
        while self._unsent and len(gathered) < self.batch_messages and size + self._unsent[0].size <= self.batch_bytes:
            gathered.append(self._unsent.popleft())
            size += gathered[-1].size
        return gathered

    def broke(self) -> None:
        """The stream has ended: what it had no answer for is sent again first, in the same order."""
        self._to_resend.extendleft(reversed(self._sent))
        self._sent.clear()

    def answered(self, answer: wire.PublishStreamResponse) -> None:
        """Gives the messages of the oldest request their outcomes. Raises ContractBroken where the answer is none to it."""
        if not self._sent or self._sent[0].request_id != answer.request_id:
            raise errors.ContractBroken(f"an answer came to request {answer.request_id}, which is not the next one")
        batch = self._sent[0]
        if answer.accepted + len(answer.exceptions) != len(batch.messages):
            raise errors.ContractBroken(f"the answer to request {answer.request_id} does not tell of all its messages")
        self._sent.popleft()
        self.answers += 1
        exceptions = {exception.index: exception for exception in answer.exceptions}
        for index, waiting in enumerate(batch.messages):
            exception = exceptions.get(index)
            if exception is None:
                self._settle(waiting, _receipt(waiting, answer.first_sequence + index))
            else:
                self._settle(waiting, _outcome(waiting, exception))

    def fail(self, error: errors.TandemError) -> None:
        """All that has no outcome gets this one, and a new producer begins: positions of the old one may be taken or not."""
        unsettled = [waiting for batch in (*self._sent, *self._to_resend) for waiting in batch.messages]
        for waiting in (*unsettled, *self._unsent):
            self._settle(waiting, error)
        self._sent.clear()
        self._to_resend.clear()
        self._unsent.clear()
        self.producer_id, self._next_position = new_id(), 1

    def _settle(self, waiting: Waiting, outcome: Receipt | errors.TandemError) -> None:
        self.messages -= 1
        self.bytes -= waiting.size
        if waiting.receipt.done():
            return  # Whoever waited for it has given up; it is published all the same.
        if isinstance(outcome, Receipt):
            waiting.receipt.set_result(outcome)
        else:
            waiting.receipt.set_exception(outcome)


def _receipt(waiting: Waiting, sequence: int, *, duplicate: bool = False) -> Receipt:
    return Receipt(waiting.message.message_id or f"seq-{sequence}", sequence, duplicate)


def _outcome(waiting: Waiting, exception: wire.PublishException) -> Receipt | errors.TandemError:
    kind = exception.WhichOneof("outcome")
    if kind == "duplicate_of":
        return _receipt(waiting, exception.duplicate_of, duplicate=True)
    if kind == "approval_id":
        return Receipt(waiting.message.message_id, 0, approval_id=exception.approval_id)
    if kind == "refusal":
        return errors.refusal_from_status(exception.refusal)
    return errors.ContractBroken("an exception of a batch does not say what became of its message")
