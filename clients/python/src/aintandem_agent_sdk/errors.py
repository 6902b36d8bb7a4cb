"""What can go wrong, and whether a retry can help.

Every error has a stable `code` in capitals (docs/errors), so programs never compare texts, says with `retryable` whether the same
call may succeed later, and with `retry_after` how many seconds the broker asks to wait. `retryable` says nothing about whether a
repeat is safe: a publish that is repeated needs a message id, which this package gives each message.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.rpc.status_pb2 import Status

    from aintandem_agent_sdk._proto.aintandem.messaging.v1.message_pb2 import Message as WireMessage

# Not a verdict on the request: the same one may be accepted elsewhere or later.
_UNAVAILABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
# What a server that counts the time as well answers, bare of details.
_TIME_IS_UP = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
# A wait is part of the verdict, and short; who is told to wait for a human or for room (INBOX_FULL) decides himself.
_THROTTLED = {"OVERLOADED", "RATE_LIMITED", "TOO_MANY_STREAMS", "TOO_MANY_CONNECTIONS"}


@dataclass(frozen=True)
class FieldViolation:
    """A field that the broker found wrong: its path, and what is wrong with it."""

    field: str
    description: str


class TandemError(Exception):
    """Everything that this package raises by itself, but for wrong types of arguments."""

    code: str = "INTERNAL"
    retryable: bool = False
    retry_after: float | None = None
    """Seconds that the broker asks to wait; None where it does not say."""

    def __init__(self, text: str, *, code: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.text} [{self.code}]"


class Refused(TandemError):
    """The broker answered with an error.

    Of its kinds, `Unavailable` is no verdict on the request; all others mean that it was not done.
    """

    def __init__(
        self,
        text: str,
        *,
        code: str,
        status: grpc.StatusCode,
        retry_after: float | None = None,
        fields: tuple[FieldViolation, ...] = (),
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(text, code=code)
        self.status = status
        self.retry_after = retry_after
        self.retryable = retry_after is not None or status in _UNAVAILABLE
        self.fields = fields
        """The fields at fault; empty when the error is not about fields."""
        self.metadata = metadata or {}

    @property
    def is_throttled(self) -> bool:
        """Whether a short wait is all that is asked for."""
        return self.code in _THROTTLED and self.retry_after is not None


class Unavailable(Refused):
    """The node cannot say now; it, or another one, can later. Whether it acted on the request is unknown."""


class NotAuthenticated(Refused):
    """The token is missing, wrong, expired or revoked. A new one helps, a retry does not."""


class NotPermitted(Refused):
    """Roles, bindings or the policy of the workspace forbid it."""


class NotFound(Refused):
    """A workspace, sandbox, message, topic or the like is not there."""


class Invalid(Refused):
    """The request is wrong; `fields` says where."""


class Exhausted(Refused):
    """A limit is reached; `retry_after` says when to try again, if waiting helps."""


class Unreachable(TandemError):
    """No connection could be made. Nothing was sent."""

    code = "UNREACHABLE"
    retryable = True


class ConnectionLost(TandemError):
    """The connection broke. Whether the broker acted on the request is unknown."""

    code = "CONNECTION_LOST"
    retryable = True


class TimedOut(TandemError):
    """No answer came in time. Whether the broker acted on the request is unknown."""

    code = "TIMEOUT"
    retryable = True


class LeaseLost(TandemError):
    """The delivery is not this client's any more: its deadline passed, or its stream or leader changed.

    The message comes again, unless an acknowledgement had counted whose answer was lost.
    """

    code = "LEASE_LOST"


class Undeliverable(TandemError):
    """A request became a dead letter or expired; the broker answered in the recipient's place.

    `code` is one of REJECTED, ATTEMPTS_EXHAUSTED, EXPIRED, LOOP and those of approvals; `sequence` is that of the request.
    """

    def __init__(self, text: str, *, code: str, sequence: int | None) -> None:
        super().__init__(text, code=code)
        self.sequence = sequence


class Closed(TandemError):
    """It was used after it had been closed."""

    code = "STREAM_CLOSED"


class ContractBroken(TandemError):
    """The other side sent what the contract does not allow: client and broker may be of versions that do not fit."""

    code = "CONTRACT_BROKEN"


class InvalidSettings(TandemError):
    """A setting cannot be; the text names it and its value."""

    code = "INVALID_SETTINGS"


class InvalidEndpoint(InvalidSettings):
    """The address of a broker cannot be used."""

    code = "INVALID_ENDPOINT"


class NotSerialisable(TandemError):
    """The content of a message is nothing that JSON can say, nor bytes. Nothing was sent."""

    code = "CONTENT_NOT_SERIALIZABLE"


class NotReadable(TandemError):
    """The content of a message is not what its content type says."""

    code = "CONTENT_NOT_READABLE"


_KINDS: dict[grpc.StatusCode, type[Refused]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.ABORTED: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
}


def refusal_from_status(status: Status) -> TandemError:
    """Reads a `google.rpc.Status` with its details, as it stands in a trailer, an exception of a batch or the outcome of an ack."""
    # Imported with the first error, because an agent that has none needs no descriptors of them.
    from google.rpc import error_details_pb2 as details

    code, retry_after, metadata = "", None, {}
    fields: tuple[FieldViolation, ...] = ()
    for detail in status.details:
        if detail.Is(details.ErrorInfo.DESCRIPTOR):
            info = details.ErrorInfo()
            detail.Unpack(info)
            code, metadata = info.reason, dict(info.metadata)
        elif detail.Is(details.RetryInfo.DESCRIPTOR):
            retry = details.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Is(details.BadRequest.DESCRIPTOR):
            bad = details.BadRequest()
            detail.Unpack(bad)
            fields = tuple(FieldViolation(field.field, field.description) for field in bad.field_violations)
    grpc_code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    if code == LeaseLost.code:
        return LeaseLost(status.message)
    kind = _KINDS.get(grpc_code, Refused)
    return kind(
        status.message,
        code=code or grpc_code.name,
        status=grpc_code,
        retry_after=retry_after,
        fields=fields,
        metadata=metadata,
    )


def from_rpc(error: grpc.aio.AioRpcError, endpoint: str, timeout: float | None) -> TandemError:
    """Tells apart what the broker said and what happened on the way. The connection was there when the call began."""
    for key, value in _pairs(error.trailing_metadata()):
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            from google.rpc.status_pb2 import Status

            return refusal_from_status(Status.FromString(value))
    code, text = error.code(), error.details() or ""
    if code in _TIME_IS_UP:
        within = "" if timeout is None else f" within {timeout:g} s"
        return TimedOut(f"{endpoint} did not answer{within}")
    # Without details it is the library's own word: the broker always sends some, but where a method is unknown to it.
    if code is grpc.StatusCode.UNAVAILABLE:
        return ConnectionLost(f"the connection to {endpoint} was lost: {text}")
    if code is grpc.StatusCode.INTERNAL:
        return ConnectionLost(f"the stream to {endpoint} was reset: {text}")
    return Refused(text, code=code.name, status=code)


def undeliverable_from(message: WireMessage) -> Undeliverable | None:
    """Of a response that the broker gave in the recipient's place; None when a participant gave it."""
    code = message.metadata.get("aintandem-error")
    if not code:
        return None
    text, sequence = message.content.decode("utf-8", "replace"), None
    try:
        said = json.loads(message.content)
        text = str(said.get("text", text))
        sequence = said.get("sequence")
    except (ValueError, AttributeError):
        pass  # Whatever else it is, it is shown as it came.
    return Undeliverable(f"the request will not be answered: {text}", code=code, sequence=sequence if isinstance(sequence, int) else None)


def _pairs(metadata: object) -> Iterable[tuple[str, str | bytes]]:
    return metadata if metadata is not None else ()  # type: ignore[return-value]
