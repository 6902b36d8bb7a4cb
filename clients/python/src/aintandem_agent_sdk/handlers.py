"""Which function handles a message, and what it may say about it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from aintandem_agent_sdk.messages import Message
from aintandem_agent_sdk.topics import matches

Handler = Callable[[Message], Any]
HandlerT = TypeVar("HandlerT", bound=Callable[[Message], Any])


class Reject(Exception):
    """Raised by a handler: the message is never going to work. It becomes a dead letter at once, with this reason."""


class RetryLater(Exception):
    """Raised by a handler: not now. The message comes again after `delay` seconds, or after the backoff of the sandbox."""

    def __init__(self, reason: str = "not now", *, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


@dataclass
class Handlers:
    """The functions of an agent. The first kind that fits decides: topic, then type of the message, then `on_message`.

    A function without `async` runs in a thread, so it may block.
    """

    _by_type: dict[str, Handler] = field(default_factory=dict)
    _by_topic: list[tuple[str, Handler]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._by_type or self._by_topic)

    def set(self, kind: str, handler: HandlerT) -> HandlerT:
        """The handler of `request`, `response`, `notification`, `command`, `approval` or `message`; one of each."""
        _check(handler, kind)
        if kind in self._by_type:
            raise ValueError(f"there is a handler for {kind} already: {_name(self._by_type[kind])}")
        self._by_type[kind] = handler
        return handler

    def add_topic(self, pattern: str, handler: HandlerT) -> HandlerT:
        """The handler of the topics that match."""
        _check(handler, pattern)
        self._by_topic.append((pattern, handler))
        return handler

    @property
    def topics(self) -> list[str]:
        """The patterns that have handlers."""
        return [pattern for pattern, _ in self._by_topic]

    def find(self, message: Message) -> Handler | None:
        """The one for a message; None where nobody handles it."""
        topic = message.topic
        if topic is not None:
            for pattern, handler in self._by_topic:
                if matches(pattern, topic):
                    return handler
        if "aintandem-approval" in message.wire.metadata and "approval" in self._by_type:
            return self._by_type["approval"]
        return self._by_type.get(message.type) or self._by_type.get("message")


async def call(handler: Handler, message: Message) -> Any:
    """Runs a handler: on the loop where it is `async`, else in a thread."""
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
        return await handler(message)
    import asyncio

    found = await asyncio.to_thread(handler, message)
    return await found if inspect.isawaitable(found) else found


def _check(handler: Any, what: str) -> None:
    if not callable(handler):
        raise TypeError(f"the handler for {what} is {handler!r}, which cannot be called; write @agent.on_... above a function")


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", repr(handler))


class Decorators:
    """The `on_...` decorators of an agent, each with or without parentheses."""

    def __init__(self) -> None:
        self.handlers = Handlers()

    @overload
    def on_message(self, handler: HandlerT) -> HandlerT: ...
    @overload
    def on_message(self, handler: None = None) -> Callable[[HandlerT], HandlerT]: ...
    def on_message(self, handler: Any = None) -> Any:
        """Handles what no other handler fits."""
        return self._decorate("message", handler)

    @overload
    def on_request(self, handler: HandlerT) -> HandlerT: ...
    @overload
    def on_request(self, handler: None = None) -> Callable[[HandlerT], HandlerT]: ...
    def on_request(self, handler: Any = None) -> Any:
        """Handles requests; what it returns is sent back as the response."""
        return self._decorate("request", handler)

    @overload
    def on_command(self, handler: HandlerT) -> HandlerT: ...
    @overload
    def on_command(self, handler: None = None) -> Callable[[HandlerT], HandlerT]: ...
    def on_command(self, handler: Any = None) -> Any:
        """Handles commands; where the sender waits for a response, it is what this returns."""
        return self._decorate("command", handler)

    @overload
    def on_notification(self, handler: HandlerT) -> HandlerT: ...
    @overload
    def on_notification(self, handler: None = None) -> Callable[[HandlerT], HandlerT]: ...
    def on_notification(self, handler: Any = None) -> Any:
        """Handles notifications."""
        return self._decorate("notification", handler)

    @overload
    def on_response(self, handler: HandlerT) -> HandlerT: ...
    @overload
    def on_response(self, handler: None = None) -> Callable[[HandlerT], HandlerT]: ...
    def on_response(self, handler: Any = None) -> Any:
        """Handles responses that nobody waits for: late ones, and to `send_message` with `requires_response`."""
        return self._decorate("response", handler)

    @overload
    def on_approval(self, handler: HandlerT) -> HandlerT: ...
    @overload
    def on_approval(self, handler: None = None) -> Callable[[HandlerT], HandlerT]: ...
    def on_approval(self, handler: Any = None) -> Any:
        """Handles what the broker says about messages that were held for approval."""
        return self._decorate("approval", handler)

    def on_topic(self, pattern: str) -> Callable[[HandlerT], HandlerT]:
        """Handles what is published to the topics that match; the sandbox follows them from `start` on."""
        return lambda handler: self.handlers.add_topic(pattern, handler)

    def _decorate(self, kind: str, handler: Any) -> Any:
        if handler is None:
            return lambda later: self.handlers.set(kind, later)
        return self.handlers.set(kind, handler)
