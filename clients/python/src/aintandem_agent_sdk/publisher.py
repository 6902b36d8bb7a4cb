"""Publishing: many messages over one stream, batched, numbered and sent again after a break without doubling."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Any

import grpc

from aintandem_agent_sdk import errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import message_pb2
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import publish_service_pb2 as wire
from aintandem_agent_sdk.calls import Caller, ended
from aintandem_agent_sdk.messages import check_size
from aintandem_agent_sdk.outage import Outage
from aintandem_agent_sdk.outbox import Outbox, Receipt
from aintandem_agent_sdk.rpc import method

_log = logging.getLogger(__name__)
_STREAM = method("messaging.Publish", "PublishStream", wire.PublishStreamRequest, wire.PublishStreamResponse)
# Requests under way. More would only make batches smaller: what waits for a place gathers.
_REQUESTS_UNDER_WAY = 4
# The contract lets a server read no request over this by much; its own limits are asked for when a stream is opened.
_DEFAULT_MESSAGE_BYTES = 1 << 20
_TRANSIENT = (errors.Unreachable, errors.ConnectionLost, errors.TimedOut)


class Publisher:
    """Publishes into one workspace, in the order of `send`. There is no timer: what gathers while requests are under way is the next.

    The publisher is a producer with an id of its own that numbers its messages. What has no answer when the stream breaks is sent
    again under its numbers, at another node if need be, and the broker accepts each number once: nothing is lost or doubled.
    """

    def __init__(
        self,
        caller: Caller,
        workspace_id: str,
        *,
        window_messages: int = 4096,
        window_bytes: int = 8 << 20,
        batch_messages: int = 500,
        batch_bytes: int = 1 << 20,
    ) -> None:
        self._caller = caller
        self._workspace_id = workspace_id
        self._window_messages = max(1, window_messages)
        self._window_bytes = max(1, window_bytes)
        self._outage = Outage(caller, f"the publisher of {workspace_id}")
        self._outbox = Outbox(max(1, batch_messages), max(1, batch_bytes))
        self._max_message_bytes = _DEFAULT_MESSAGE_BYTES
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def producer_id(self) -> str:
        """Under which the broker knows what it has had. A new one after an error that no retry helps."""
        return self._outbox.producer_id

    async def send(self, message: message_pb2.Message) -> asyncio.Future[Receipt]:
        """Adds a message, and returns what its receipt will be in. Waits only while the window is full.

        Raises Closed after `close`, and Invalid with MESSAGE_TOO_LARGE for what the broker would not read.
        """
        size = check_size(message, self._caller.settings.max_message_bytes)
        if size > self._max_message_bytes:
            raise errors.Invalid(
                f"the message has {size} bytes, and the broker takes {self._max_message_bytes}; send a reference to the content",
                code="MESSAGE_TOO_LARGE",
                status=grpc.StatusCode.INVALID_ARGUMENT,
            )
        while not self._is_closed and not self._has_room(size):
            self._room.clear()
            await self._room.wait()
        if self._is_closed:
            raise errors.Closed("the publisher is closed; make a new one")
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._outbox.add(message, size, receipt)
        self._more.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"publisher of {self._workspace_id}")
            self._task.add_done_callback(self._task_ended)
        return receipt

    async def publish(self, message: message_pb2.Message) -> Receipt:
        """Publishes a message and returns once a majority has it on disk. Raises TandemError when it was not accepted."""
        return await (await self.send(message))

    async def flush(self) -> None:
        """Returns once all that was sent so far has its outcome."""
        while self._outbox.messages:
            self._room.clear()
            await self._room.wait()

    async def close(self, timeout: float | None = 60.0) -> None:
        """Sends what waits, for up to `timeout` seconds (None: for as long as it takes), then ends the stream.

        What has no answer by then fails with STREAM_CLOSED; whether the broker has it is unknown.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.flush(), timeout)
        if self._outbox.messages:
            _log.warning("%d messages had no answer when the publisher of %s was closed", self._outbox.messages, self._workspace_id)
        self._is_closed = True
        self._room.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._outbox.fail(errors.Closed("the publisher was closed before the broker had answered"))

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close(timeout=60.0 if kind is None else 5.0)

    def _has_room(self, size: int) -> bool:
        outbox = self._outbox
        return outbox.messages == 0 or (outbox.messages < self._window_messages and outbox.bytes + size <= self._window_bytes)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for ever for a task that a bug has ended."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("publishing into %s failed inside the SDK", self._workspace_id, exc_info=error)
            self._is_closed = True
            self._outbox.fail(errors.ContractBroken(f"the publisher failed: {error!r}"))
            self._room.set()

    async def _run(self) -> None:
        """Keeps a stream open for as long as there is something to send; ends with the publisher."""
        while True:
            if not self._outbox.has_something():
                self._more.clear()
                await self._more.wait()
            answers = self._outbox.answers
            error = await self._stream()
            self._outbox.broke()
            if error is None or self._outbox.answers > answers:
                self._outage.is_over()
            if error is None:
                continue
            wait = self._outage.next_try(error)
            if wait is None:
                _log.warning("publishing into %s has failed: %s", self._workspace_id, error)
                self._outbox.fail(error)
                self._room.set()
                continue
            await asyncio.sleep(wait)

    async def _stream(self) -> errors.TandemError | None:
        """Runs one stream until it ends; returns why."""
        node = self._caller.nodes.pick(self._workspace_id)
        writer: asyncio.Task[None] | None = None
        call: Any = None
        try:
            await node.connected(self._caller.settings.connect_timeout)
            call = node.stream(_STREAM)(metadata=self._caller.metadata())
            writer = asyncio.create_task(self._write(call))
            async for answer in call:
                self._outbox.answered(answer)
                self._room.set()
                self._more.set()
        except grpc.aio.AioRpcError as error:
            found = errors.from_rpc(error, node.endpoint, None)
        except errors.TandemError as error:
            found = error
        else:
            if not self._outbox.unanswered_requests():
                return None
            found = errors.ConnectionLost(f"{node.endpoint} ended the publish stream")
        finally:
            await ended(writer)
            if call is not None:
                call.cancel()
        if isinstance(found, _TRANSIENT):
            self._caller.nodes.failed(node)
        return found

    async def _write(self, call: Any) -> None:
        workspace_id = self._workspace_id
        # When the stream breaks, reading tells why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                while not self._outbox.has_something() or self._outbox.unanswered_requests() >= _REQUESTS_UNDER_WAY:
                    self._more.clear()
                    await self._more.wait()
                batch = self._outbox.take()
                position = wire.ProducerPosition(producer_id=self._outbox.producer_id, sequence=batch.position)
                messages = [waiting.message for waiting in batch.messages]
                await call.write(
                    wire.PublishStreamRequest(
                        workspace_id=workspace_id, request_id=batch.request_id, messages=messages, producer=position
                    )
                )

    def limit_messages_to(self, max_message_bytes: int) -> None:
        """What the broker says that it takes."""
        self._max_message_bytes = max_message_bytes
