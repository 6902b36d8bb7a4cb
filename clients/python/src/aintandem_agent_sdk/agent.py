"""`ContainerAgent`: what an agent author needs and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

from aintandem_agent_sdk import errors, messages
from aintandem_agent_sdk.client import Client
from aintandem_agent_sdk.config import AgentConfig
from aintandem_agent_sdk.handlers import Decorators
from aintandem_agent_sdk.messages import Message, MessageType, Target
from aintandem_agent_sdk.outage import Outage
from aintandem_agent_sdk.outbox import Receipt
from aintandem_agent_sdk.registration import Registration, is_gone
from aintandem_agent_sdk.registry import Agent, FoundAgent
from aintandem_agent_sdk.subscription import Subscription
from aintandem_agent_sdk.watchdog import Watchdog
from aintandem_agent_sdk.work import Work

_log = logging.getLogger(__name__)
# After a heartbeat that did not go through.
_HEARTBEAT_RETRY_S = 1.0


class ContainerAgent(Decorators):
    """A sandbox with an agent in it, as a participant.

    `start` registers the sandbox with its agent, follows the topics that have handlers, opens the inbox and keeps up heartbeats;
    the connection comes back by itself, and so does a sandbox that somebody unregistered, with what it followed. `stop` lets handlers
    finish and gives back what was not begun. Also `async with`.

    Each message is handled by one function. When it returns the message is acknowledged; when it raises, the message comes again
    with the reason in its history (`Reject`: never again, `RetryLater`: when it says). While it runs the lease is extended.
    """

    def __init__(
        self,
        sandbox_id: str,
        collaboration_bus_url: str | Sequence[str] = "http://127.0.0.1:8001",
        agent: Agent | Mapping[str, Any] | str | None = None,
        config: AgentConfig | Mapping[str, Any] | None = None,
    ) -> None:
        """`agent` is an `Agent`, a mapping with `name`, `role` and `capabilities`, or a name. Urls of several nodes: a list, or commas.

        Raises InvalidEndpoint or InvalidSettings.
        """
        super().__init__()
        self.sandbox_id = sandbox_id
        self.config = AgentConfig.of(config)
        self.agent = _agent(agent)
        self._settings = self.config.settings(collaboration_bus_url)
        self._client: Client | None = None
        self._inbox: Subscription | None = None
        self._work = Work(self.handlers, self.respond, timeout=self.config.handler_timeout)
        self._slots = asyncio.Semaphore(self.config.concurrency)
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: errors.TandemError | None = None
        self._ended = asyncio.Event()
        self._watchdog: Watchdog | None = None
        self._registration = Registration(sandbox_id, self.agent, self.config)
        self._is_stopping = False

    @classmethod
    def from_environment(
        cls,
        agent: Agent | Mapping[str, Any] | str | None = None,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> ContainerAgent:
        """Of a process in a sandbox: TANDEM_SANDBOX, TANDEM_BROKER (a URL or several), TANDEM_WORKSPACE, TANDEM_TOKEN_FILE.

        Raises InvalidSettings where TANDEM_SANDBOX or TANDEM_BROKER is missing.
        """
        environment = os.environ if environment is None else environment
        missing = [name for name in ("TANDEM_SANDBOX", "TANDEM_BROKER") if not environment.get(name)]
        if missing:
            raise errors.InvalidSettings(f"the environment has no {' and no '.join(missing)}")
        found: dict[str, Any] = {"workspace_id": environment.get("TANDEM_WORKSPACE") or "default"}
        for variable, name in (("TANDEM_TOKEN_FILE", "token_file"), ("TANDEM_CA_FILE", "ca_file")):
            if environment.get(variable):
                found[name] = environment[variable]
        return cls(environment["TANDEM_SANDBOX"], environment["TANDEM_BROKER"], agent, {**found, **(config or {})})

    @property
    def client(self) -> Client:
        """For what this class does not offer. Raises Closed unless the agent is started."""
        if self._client is None:
            raise errors.Closed(f"the agent of {self.sandbox_id} is not started; use `async with agent` or `await agent.start()`")
        return self._client

    async def start(self) -> None:
        """Takes part; returns once the inbox is open. Raises TandemError where the broker cannot be reached or refuses."""
        if self._client is not None:
            raise errors.Closed(f"the agent of {self.sandbox_id} is started already")
        self._client = Client(self._settings, workspace_id=self.config.workspace_id)
        self._failure = None
        self._is_stopping = False
        self._ended.clear()
        for pattern in self.handlers.topics:
            self._registration.follows(pattern)
        try:
            await self._registration.register(self._client)
            if self.handlers:
                await self._open_inbox()
        except BaseException:
            client, self._client = self._client, None
            if self._inbox is not None:
                await self._inbox.close()
            await client.close()
            raise
        self._watchdog = Watchdog(self.config.blocked_after, lambda: self._work.now_running)
        self._watchdog.start()
        self._tasks.append(asyncio.create_task(self._heartbeat(self._client), name=f"heartbeat of {self.sandbox_id}"))

    async def stop(self) -> None:
        """Leaves in order: nothing new is begun, handlers may finish for `stop_timeout`, what was not begun is given back."""
        client, self._client = self._client, None
        if client is None:
            return
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        try:
            # Handlers that finish now may send and respond.
            self._client = client
            await self._work.drain(self.config.stop_timeout)
            if self._inbox is not None:
                await self._inbox.close()
            if self.config.unregister_on_stop:
                with contextlib.suppress(errors.NotFound):
                    await client.registry.unregister(self.sandbox_id)
                self._registration.is_unregistered()
        finally:
            self._client = self._inbox = None
            if self._watchdog is not None:
                await self._watchdog.stop()
            await client.close()
            self._ended.set()

    async def wait(self) -> None:
        """Returns when the agent was stopped. Raises TandemError when it cannot go on, say because its token ended for good."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def run(self) -> None:
        """Starts, and stops in order on SIGTERM and SIGINT. Raises as `start` and `wait`."""
        import signal

        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.add_signal_handler(number, stopping.set)
        async with self:
            waits = [asyncio.create_task(self.wait()), asyncio.create_task(stopping.wait())]
            done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            for task in done:
                task.result()

    async def __aenter__(self) -> ContainerAgent:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def send_message(
        self,
        target: Target,
        content: Any,
        *,
        type: MessageType = "notification",  # noqa: A002
        message_id: str = "",
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
    ) -> Receipt:
        """Sends to a sandbox, `Topic` or `Capability`, and returns once a majority has it on disk.

        `content` is anything that JSON can say, or bytes. Raises NotSerialisable, and TandemError when it was not accepted; a retry of
        a call with its own `message_id` is never a second message.
        """
        return await self.client.publish(
            messages.build(
                self.sandbox_id,
                target,
                content,
                type=type,
                message_id=message_id,
                from_agent=self._agent_name,
                to_agent=to_agent,
                content_type=content_type,
                priority=priority,
                requires_response=requires_response,
                correlation_id=correlation_id,
                ordering_key=ordering_key,
                ttl=ttl,
                dead_letter_on_expiry=dead_letter_on_expiry,
                not_before=not_before,
                metadata=metadata,
            )
        )

    async def broadcast(self, content: Any, *, priority: int | None = None, metadata: Mapping[str, str] | None = None) -> Receipt:
        """Tells every sandbox of the workspace but this one. Raises as `send_message`."""
        message = messages.build(
            self.sandbox_id,
            messages.BROADCAST,
            content,
            from_agent=self._agent_name,
            priority=priority,
            metadata=metadata,
        )
        return await self.client.publish(message)

    async def publish_to(self, topic: str, content: Any, **options: Any) -> Receipt:
        """Publishes to a topic, which is created if need be; `options` are those of `send_message`."""
        try:
            return await self.send_message(messages.Topic(topic), content, **options)
        except errors.NotFound as error:
            if error.code != "UNKNOWN_TOPIC":
                raise
        await self.client.topics.create(topic)
        return await self.send_message(messages.Topic(topic), content, **options)

    async def collaborate_with(self, target: Target, task: Any, timeout: float = 30.0, **options: Any) -> Any:
        """Asks a sandbox, or who has a `Capability`, and returns the content of the response.

        Raises Refused with RESPONSE_TIMEOUT after `timeout` seconds, Undeliverable when the other side refused or failed for good.
        `options` are further arguments of `messages.build`, such as `priority` or `metadata`.
        """
        options.setdefault("type", "request")
        message = messages.build(self.sandbox_id, target, task, from_agent=self._agent_name, **options)
        return (await self.client.request(message, timeout)).content

    async def respond(self, message: Message, content: Any) -> Receipt:
        """Answers a request by hand. A handler of requests answers with what it returns, and needs this not."""
        return await self.send_message(
            message.sender,
            content,
            type="response",
            correlation_id=message.correlation_id,
            to_agent=message.sender_agent,
        )

    async def discover(
        self, *, role: str = "", capability: str = "", agent: str = "", online: bool | None = None
    ) -> Sequence[FoundAgent]:
        """Agents of the workspace for which all that is given holds."""
        return await self.client.registry.discover(role=role, capability=capability, agent=agent, online=online)

    async def follow(self, pattern: str) -> None:
        """Gets what is published to the topics that match from now on; `on_topic` or `on_message` handles it."""
        await self.client.topics.follow(self.sandbox_id, pattern)
        self._registration.follows(pattern)

    async def unfollow(self, pattern: str) -> None:
        """Ends it."""
        await self.client.topics.unfollow(self.sandbox_id, pattern)
        self._registration.unfollows(pattern)

    @property
    def _agent_name(self) -> str:
        return self.agent.name if self.agent is not None else ""

    async def _open_inbox(self) -> None:
        self._inbox = self.client.subscription(
            self.sandbox_id,
            credit_messages=2 * self.config.concurrency,
            ack_deadline=self.config.ack_deadline,
            repair=self._repair,
        )
        await self._inbox.open()
        self._tasks.append(asyncio.create_task(self._receive(self._inbox), name=f"deliveries to {self.sandbox_id}"))
        self._tasks.append(asyncio.create_task(self._extend(self._inbox), name=f"leases of {self.sandbox_id}"))

    async def _receive(self, inbox: Subscription) -> None:
        try:
            while True:
                await self._slots.acquire()
                delivery = None
                try:
                    delivery = await inbox.next()
                finally:
                    if delivery is None:
                        self._slots.release()
                if delivery is None:
                    return
                self._work.begin(delivery, self._slots.release)
        except errors.TandemError as error:
            self._cannot_go_on(error)

    async def _extend(self, inbox: Subscription) -> None:
        while True:
            await asyncio.sleep(inbox.ack_deadline / 3)
            inbox.extend_all()

    async def _heartbeat(self, client: Client) -> None:
        outage = Outage(client._caller, f"the heartbeat of {self.sandbox_id}")
        while True:
            await asyncio.sleep(self.config.heartbeat_interval)
            try:
                await client.registry.heartbeat(self.sandbox_id)
            except errors.TandemError as error:
                _log.info("no heartbeat of %s: %s", self.sandbox_id, error)
                # Of an agent with an inbox, that says whether it can go on; of one without, nothing else does.
                if self._inbox is None and not await self._goes_on(error, outage):
                    return
                await asyncio.sleep(_HEARTBEAT_RETRY_S)
            else:
                outage.is_over()
                await self._registration.look_for_others(client)

    async def _goes_on(self, error: errors.TandemError, outage: Outage) -> bool:
        try:
            if await self._repair(error) or outage.next_try(error) is not None:
                return True
        except errors.TandemError as refused:
            error = refused
        self._cannot_go_on(error)
        return False

    async def _repair(self, error: errors.TandemError) -> bool:
        """A sandbox that is gone is registered again, unless its agent is going as well."""
        if not is_gone(error) or self._is_stopping:
            return False
        await self._registration.register_again(self.client)
        return True

    def _cannot_go_on(self, error: errors.TandemError) -> None:
        _log.error("the agent of %s cannot go on: %s", self.sandbox_id, error)
        self._failure = error
        self._ended.set()


def _agent(given: Agent | Mapping[str, Any] | str | None) -> Agent | None:
    if given is None or isinstance(given, Agent):
        return given
    if isinstance(given, str):
        return Agent(given)
    known = {"name", "role", "capabilities"}
    if unknown := sorted(set(given) - known):
        raise errors.InvalidSettings(f"{', '.join(unknown)}: no such field of an agent; there are name, role and capabilities")
    if not given.get("name"):
        raise errors.InvalidSettings("an agent has a name")
    return Agent(given["name"], given.get("role", ""), tuple(given.get("capabilities", ())))
