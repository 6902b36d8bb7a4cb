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

        Each moves in one step, so a call that breaks is made again; then what moved after its last word is not counted.
        """
        request = wire.RedriveDeadLettersRequest(
            workspace_id=self._workspace_id,
            filter=wire.DeadLetterFilter(sandbox_id=sandbox_id, sequence=sequence),
            to_sandbox_id=to_sandbox_id,
            max_per_second=max_per_second,
        )
        by_try: dict[int, tuple[int, int]] = {}
        async for attempt, progress in self._caller.repeated(_REDRIVE, request):
            by_try[attempt] = (progress.redriven, progress.skipped)
        return sum(redriven for redriven, _ in by_try.values()), max([skipped for _, skipped in by_try.values()], default=0)

    async def purge(self, sandbox_id: str = "", *, sequence: int = 0) -> int:
        """Removes them for good; how many, counted as in `redrive`."""
        request = wire.PurgeDeadLettersRequest(
            workspace_id=self._workspace_id, filter=wire.DeadLetterFilter(sandbox_id=sandbox_id, sequence=sequence)
        )
        by_try: dict[int, int] = {}
        async for attempt, progress in self._caller.repeated(_PURGE, request):
            by_try[attempt] = progress.purged
        return sum(by_try.values())


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
