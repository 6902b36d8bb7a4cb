"""Messages that left an inbox without being acknowledged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timezone

from aintandem_agent_sdk._proto.aintandem.messaging.v1 import dead_letter_service_pb2 as wire
from aintandem_agent_sdk.calls import Caller
from aintandem_agent_sdk.messages import Message
from aintandem_agent_sdk.rpc import method

_LIST = method("messaging.DeadLetter", "ListDeadLetters", wire.ListDeadLettersRequest, wire.ListDeadLettersResponse)
_REDRIVE = method("messaging.DeadLetter", "RedriveDeadLetters", wire.RedriveDeadLettersRequest, wire.RedriveDeadLettersResponse)
_PURGE = method("messaging.DeadLetter", "PurgeDeadLetters", wire.PurgeDeadLettersRequest, wire.PurgeDeadLettersResponse)


@dataclass(frozen=True)
class FailedAttempt:
    """A delivery that did not end with an ack: its number, when, `nacked`, `lapsed` or `stream_broken`, and the reason of a nack."""

    attempt: int
    time: datetime
    error: str
    text: str


@dataclass(frozen=True)
class DeadLetter:
    """A message with the reason why it left its inbox, and the newest 32 of its attempts."""

    sandbox_id: str
    message: Message
    reason: str
    """`attempts_exhausted`, `rejected`, `expired` or `loop`."""
    text: str
    time: datetime
    attempts: tuple[FailedAttempt, ...]


class DeadLetters:
    """Of one workspace."""

    def __init__(self, caller: Caller, workspace_id: str) -> None:
        self._caller = caller
        self._workspace_id = workspace_id

    async def list(self, sandbox_id: str = "") -> AsyncIterator[DeadLetter]:
        """Of one sandbox, or of all, by recipient and sequence."""
        token = ""
        while True:
            request = wire.ListDeadLettersRequest(
                workspace_id=self._workspace_id, filter=wire.DeadLetterFilter(sandbox_id=sandbox_id), page_token=token
            )
            answer = await self._caller.unary(_LIST, request, workspace_id=self._workspace_id)
            for found in answer.dead_letters:
                yield _dead_letter(found)
            token = answer.next_page_token
            if not token:
                return

    async def redrive(
        self, sandbox_id: str = "", *, sequence: int = 0, to_sandbox_id: str = "", max_per_second: int = 0
    ) -> tuple[int, int]:
        """Puts them back into an inbox as first attempts; how many, and how many were left alone because it is full or gone.

        Each moves in one step, so a call that breaks is simply made again.
        """
        request = wire.RedriveDeadLettersRequest(
            workspace_id=self._workspace_id,
            filter=wire.DeadLetterFilter(sandbox_id=sandbox_id, sequence=sequence),
            to_sandbox_id=to_sandbox_id,
            max_per_second=max_per_second,
        )
        redriven = skipped = 0
        async for progress in self._caller.answers(_REDRIVE, request):
            redriven, skipped = progress.redriven, progress.skipped
        return redriven, skipped

    async def purge(self, sandbox_id: str = "", *, sequence: int = 0) -> int:
        """Removes them for good; how many."""
        request = wire.PurgeDeadLettersRequest(
            workspace_id=self._workspace_id, filter=wire.DeadLetterFilter(sandbox_id=sandbox_id, sequence=sequence)
        )
        purged = 0
        async for progress in self._caller.answers(_PURGE, request):
            purged = progress.purged
        return purged


def _dead_letter(found: wire.DeadLetter) -> DeadLetter:
    attempts = tuple(
        FailedAttempt(
            one.attempt,
            one.time.ToDatetime(tzinfo=timezone.utc),
            wire.AttemptError.Name(one.error).removeprefix("ATTEMPT_ERROR_").lower(),
            one.text,
        )
        for one in found.attempts
    )
    return DeadLetter(
        sandbox_id=found.sandbox_id,
        message=Message(found.message),
        reason=wire.DeadLetterReason.Name(found.reason).removeprefix("DEAD_LETTER_REASON_").lower(),
        text=found.reason_text,
        time=found.dead_time.ToDatetime(tzinfo=timezone.utc),
        attempts=attempts,
    )
