"""Messages, as they are sent and as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from aintandem_agent_sdk import errors, tracing
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import message_pb2 as wire

MessageType = Literal["request", "response", "notification", "command"]
JSON = "application/json"
OCTETS = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"

_TYPES: dict[str, wire.MessageType] = {
    "request": wire.MESSAGE_TYPE_REQUEST,
    "response": wire.MESSAGE_TYPE_RESPONSE,
    "notification": wire.MESSAGE_TYPE_NOTIFICATION,
    "command": wire.MESSAGE_TYPE_COMMAND,
}
_TYPE_NAMES: dict[int, MessageType] = {int(value): name for name, value in _TYPES.items()}  # type: ignore[misc]
# What a request holds beside its message, in bytes: more than it does.
_BESIDE_BYTES = 1 << 10
BROADCAST = object()
"""The destination that is every sandbox of the workspace but the sender."""


@dataclass(frozen=True)
class Topic:
    """Every sandbox that follows the topic, but the sender."""

    name: str


@dataclass(frozen=True)
class Capability:
    """Whoever can do something: one sandbox that is online, or with `all` every one that can.

    With `wait` the message waits until somebody comes who can, instead of being refused with NO_CAPABLE_SANDBOX.
    """

    name: str
    all: bool = False
    wait: bool = False


Target = str | Topic | Capability
"""A sandbox by its id, a topic, or who has a capability."""


def encode_content(content: Any, content_type: str | None = None) -> tuple[bytes, str]:
    """Bytes and media type of a content: bytes as they are, with another content type a text as UTF-8, and anything else as JSON.

    Raises NotSerialisable, with the type that JSON has no word for.
    """
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content), content_type or OCTETS
    if isinstance(content, str) and content_type is not None and content_type != JSON:
        return content.encode("utf-8"), content_type
    try:
        # NaN is in no JSON that others can read.
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8"), content_type or JSON
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise errors.NotSerialisable(
            f"the content, a {type(content).__name__}, cannot be sent as JSON: {error}; send bytes, or what json.dumps takes"
        ) from error


def duration(seconds: float) -> Duration:
    """A time span on the wire, to the microsecond."""
    whole, part = divmod(round(seconds * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=part * 1000)


def timestamp(when: datetime) -> Timestamp:
    """A moment on the wire. One without a time zone is one of UTC."""
    found = Timestamp()
    found.FromDatetime(when if when.tzinfo is None else when.astimezone(timezone.utc).replace(tzinfo=None))
    return found


def build(
    sender: str,
    target: Target | object,
    content: Any,
    *,
    type: MessageType = "notification",  # noqa: A002
    message_id: str = "",
    from_agent: str = "",
    to_agent: str = "",
    content_type: str | None = None,
    priority: int | None = None,
    requires_response: bool = False,
    correlation_id: str = "",
    ordering_key: str = "",
    ttl: float | None = None,
    dead_letter_on_expiry: bool = False,
    not_before: datetime | None = None,
    metadata: Mapping[str, str] | None = None,
    traceparent: str | None = None,
) -> wire.Message:
    """A message for the wire. `ttl` is in seconds, `priority` 0 to 9 with 9 first and 5 unless given; the broker judges the rest.

    Raises NotSerialisable for the content, and TypeError or ValueError for arguments of other types than these.
    """
    if type not in _TYPES:
        raise ValueError(f"{type!r} is no type of a message; there are {', '.join(_TYPES)}")
    body, media = encode_content(content, content_type)
    message = wire.Message(
        message_id=message_id,
        from_sandbox_id=sender,
        from_agent=from_agent,
        to_agent=to_agent,
        type=_TYPES[type],
        content=body,
        content_type=media,
        requires_response=requires_response,
        correlation_id=correlation_id,
        ordering_key=ordering_key,
        dead_letter_on_expiry=dead_letter_on_expiry,
        traceparent=tracing.current() if traceparent is None else traceparent,
    )
    _address(message, target)
    if priority is not None:
        message.priority = priority
    if ttl is not None:
        message.ttl.CopyFrom(duration(ttl))
    if not_before is not None:
        message.not_before.CopyFrom(timestamp(not_before))
    if metadata:
        message.metadata.update(metadata)
    return message


def check_size(message: wire.Message, most: int) -> int:
    """How many bytes it has.

    Raises Invalid with MESSAGE_TOO_LARGE for what a request of `most` bytes has no room for, before any of it is sent.
    """
    size = message.ByteSize()
    if size + _BESIDE_BYTES > most:
        raise errors.Invalid(
            f"the message has {size} bytes; this client sends at most {most}, and the broker may take less",
            code="MESSAGE_TOO_LARGE",
            status=grpc.StatusCode.INVALID_ARGUMENT,
        )
    return size


def _address(message: wire.Message, target: Target | object) -> None:
    if target is BROADCAST:
        message.destination.broadcast.SetInParent()
    elif isinstance(target, str):
        message.destination.sandbox_id = target
    elif isinstance(target, Topic):
        message.destination.topic = target.name
    elif isinstance(target, Capability):
        message.destination.capability.capability = target.name
        message.destination.capability.all = target.all
        message.destination.capability.wait = target.wait
    else:
        raise TypeError(f"{target!r} is no target: give a sandbox id, Topic or Capability")


@dataclass(frozen=True)
class Message:
    """A message as it came. `content` is decoded when it is first asked for."""

    wire: wire.Message
    attempt: int = 1
    """How many deliveries of it there were, this one included."""
    _decoded: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def id(self) -> str:
        """Names it within its workspace; work that must not be done twice is keyed by it."""
        return self.wire.message_id

    @property
    def sequence(self) -> int:
        """Its position in the log of the workspace."""
        return self.wire.sequence

    @property
    def sender(self) -> str:
        """The sandbox that has sent it."""
        return self.wire.from_sandbox_id

    @property
    def sender_agent(self) -> str:
        """The agent in that sandbox; empty when it does not say."""
        return self.wire.from_agent

    @property
    def to_agent(self) -> str:
        """The agent that is meant; empty for whichever takes it."""
        return self.wire.to_agent

    @property
    def type(self) -> MessageType:
        """What it is for."""
        return _TYPE_NAMES.get(int(self.wire.type), "notification")

    @property
    def topic(self) -> str | None:
        """The topic that it was published to; None when it was not."""
        destination = self.wire.destination
        return destination.topic if destination.WhichOneof("kind") == "topic" else None

    @property
    def is_broadcast(self) -> bool:
        """Whether it went to everybody."""
        return self.wire.destination.HasField("broadcast")

    @property
    def priority(self) -> int:
        """0 to 9, 9 first."""
        return self.wire.priority if self.wire.HasField("priority") else 5

    @property
    def correlation_id(self) -> str:
        """Ties the messages of one conversation together; may be empty."""
        return self.wire.correlation_id

    @property
    def requires_response(self) -> bool:
        """Whether the sender waits for a response."""
        return self.wire.requires_response

    @property
    def metadata(self) -> dict[str, str]:
        """Headers of the application."""
        return dict(self.wire.metadata)

    @property
    def raw(self) -> bytes:
        """The content as bytes."""
        return self.wire.content

    @property
    def content_type(self) -> str:
        """Media type of the content."""
        return self.wire.content_type or JSON

    @property
    def server_time(self) -> datetime:
        """When it was committed, UTC."""
        return self.wire.server_time.ToDatetime(tzinfo=timezone.utc)

    @property
    def content(self) -> Any:
        """The content: what the JSON says, a text for `text/*`, and bytes otherwise. Raises NotReadable where it is not that."""
        if not self._decoded:
            self._decoded.append(_decode(self.raw, self.content_type, self.id))
        return self._decoded[0]


def _decode(raw: bytes, content_type: str, message_id: str) -> Any:
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media == JSON or media.endswith("+json"):
            return json.loads(raw)
        if media.startswith("text/"):
            return raw.decode("utf-8")
    except (ValueError, RecursionError) as error:
        raise errors.NotReadable(f"the content of message {message_id} is no {content_type}: {error}") from error
    return raw
