"""Single calls: token, deadline, retry with backoff and a budget, leader hints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from aintandem_agent_sdk import errors
from aintandem_agent_sdk.backoff import RetryBudget, pause
from aintandem_agent_sdk.nodes import Node, Nodes
from aintandem_agent_sdk.rpc import Method, RequestT, ResponseT
from aintandem_agent_sdk.settings import Settings

_log = logging.getLogger(__name__)
# With several nodes one try takes no longer than this, or a quarter of the whole: a node that hangs must leave time for another.
_SHORTEST_TRY_S = 2.0
_ON_THE_WAY = (errors.Unreachable, errors.ConnectionLost, errors.TimedOut)


def is_worth_a_retry(error: errors.TandemError) -> bool:
    """Whether this package tries again by itself: what was no verdict, and what asks for a short wait.

    What else is `retryable` (INBOX_FULL) is for the caller to decide, who can do something else meanwhile.
    """
    if isinstance(error, (*_ON_THE_WAY, errors.Unavailable)):
        return error.code != "NODE_STOPPED"
    return isinstance(error, errors.Refused) and error.is_throttled


async def ended(writer: asyncio.Task[None] | None) -> None:
    """Ends the half of a stream that writes. How it failed does not count: reading tells why a stream has ended."""
    if writer is None:
        return
    writer.cancel()
    await asyncio.wait([writer])
    if not writer.cancelled() and (error := writer.exception()) is not None:
        _log.debug("writing to a stream failed: %r", error)


class Caller:
    """Makes calls for all parts of a client."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.nodes = Nodes(settings)
        self.budget = RetryBudget()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who calls."""
        value = self.settings.token.read() if self.settings.token is not None else ""
        return (("authorization", f"Bearer {value}"),) if value else ()

    def has_renewed(self, shown: tuple[tuple[str, str], ...]) -> bool:
        """Whether there is another token than the one that was refused."""
        if self.settings.token is None:
            return False
        self.settings.token.look_again()
        return self.metadata() != shown

    async def unary(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        workspace_id: str | None = None,
        timeout: float | None = None,
    ) -> ResponseT:
        """Calls until there is an answer, a verdict, or no time, try or budget left.

        Only for what may be repeated: it reads, sets something to a value, or carries an id. `timeout` is for all tries together,
        in seconds; None takes that of the settings. Raises TandemError.
        """
        loop = asyncio.get_running_loop()
        whole = self.settings.request_timeout if timeout is None else timeout
        deadline, attempt = loop.time() + whole, 1
        while True:
            node = self.nodes.pick(workspace_id)
            left = deadline - loop.time()
            limit = min(left, max(_SHORTEST_TRY_S, whole / 4)) if self.nodes.are_several else left
            shown = self.metadata()
            try:
                answer = await self.once(node, method, request, workspace_id=workspace_id, timeout=limit)
            except errors.TandemError as error:
                if isinstance(error, errors.NotAuthenticated) and attempt == 1 and self.has_renewed(shown):
                    attempt += 1
                    continue
                if isinstance(error, _ON_THE_WAY):
                    self.nodes.failed(node)
                wait = pause(error.retry_after, attempt)
                is_over = attempt >= self.settings.attempts or loop.time() + wait >= deadline
                if not is_worth_a_retry(error) or is_over or not self.budget.take():
                    raise
                _log.debug("%s: %s; trying again in %.2f s (attempt %d)", method.path, error, wait, attempt + 1)
                await asyncio.sleep(wait)
                attempt += 1
            else:
                self.budget.succeeded()
                return answer

    async def once(
        self,
        node: Node,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        workspace_id: str | None,
        timeout: float,
    ) -> ResponseT:
        """One try at one node."""
        if timeout <= 0:
            raise errors.TimedOut(f"no time is left to ask {node.endpoint}")
        await node.connected(min(timeout, self.settings.connect_timeout))
        call = node.unary(method)(request, metadata=self.metadata(), timeout=timeout)
        try:
            answer: ResponseT = await call
            self.nodes.note(workspace_id, await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            raise errors.from_rpc(error, node.endpoint, timeout) from None
        return answer

    async def answers(self, method: Method[Any, ResponseT], request: Any) -> AsyncIterator[ResponseT]:
        """The answers of a call with many of them; not repeated by itself. Raises TandemError where it breaks."""
        node = self.nodes.pick()
        try:
            await node.connected(self.settings.connect_timeout)
            async for answer in node.answers(method)(request, metadata=self.metadata()):
                yield answer
        except grpc.aio.AioRpcError as error:
            found = errors.from_rpc(error, node.endpoint, None)
            if isinstance(found, _ON_THE_WAY):
                self.nodes.failed(node)
            raise found from None
        except errors.Unreachable:
            self.nodes.failed(node)
            raise

    async def repeated(self, method: Method[Any, ResponseT], request: Any) -> AsyncIterator[tuple[int, ResponseT]]:
        """The answers of a call that may be made again from the start, each with the number of the try; again while it breaks.

        Raises TandemError when no try, time or budget is left.
        """
        loop = asyncio.get_running_loop()
        deadline, attempt = loop.time() + self.settings.request_timeout, 1
        while True:
            try:
                async for answer in self.answers(method, request):
                    deadline = loop.time() + self.settings.request_timeout
                    yield attempt, answer
            except errors.TandemError as error:
                wait = pause(error.retry_after, attempt)
                is_over = attempt >= self.settings.attempts or loop.time() + wait >= deadline
                if not is_worth_a_retry(error) or is_over or not self.budget.take():
                    raise
                _log.debug("%s: %s; trying again in %.2f s (attempt %d)", method.path, error, wait, attempt + 1)
                await asyncio.sleep(wait)
                attempt += 1
            else:
                return

    async def close(self) -> None:
        """Ends all connections."""
        await self.nodes.close()
