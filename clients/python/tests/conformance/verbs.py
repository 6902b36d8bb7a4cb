"""The verbs of the scenarios, played through the public API of the SDK. Each returns the result that `expect` is compared to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from aintandem_agent_sdk import (
    BROADCAST,
    Agent,
    Capability,
    Client,
    Delivery,
    Message,
    Receipt,
    RetryPolicy,
    Settings,
    Subscription,
    Token,
    Topic,
    build,
)
from tests.brokers import Broker, free_ports, leader_of
from tests.conformance.expectations import difference
from tests.proxy import Proxy

_WITHIN_MS = 10_000
Arguments = Mapping[str, Any]
Verb = Callable[[Arguments, Mapping[str, Any]], Awaitable[dict[str, Any]]]


def _milliseconds(arguments: Arguments, name: str) -> float | None:
    return arguments[name] / 1000 if name in arguments else None


class Stage:
    """Where a scenario is played: its workspace, clients, subscriptions, deliveries and what is in the background."""

    def __init__(self, broker: Broker, workspace: str, proxies: list[Proxy]) -> None:
        self.broker = broker
        self.workspace = workspace
        self.proxies = proxies
        self.clients: dict[str, Client] = {}
        self.tokens: dict[str, str | None] = {"none": None}
        self.subscriptions: dict[str, Subscription] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.calls: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self.client = self.clients["main"] = self._client(broker.tokens.get("admin"))

    def _client(self, token_file: str | None = None, **settings: Any) -> Client:
        urls = tuple(proxy.url for proxy in self.proxies) or tuple(self.broker.urls)
        token = Token.from_file(token_file) if token_file else settings.pop("token", None)
        found = {"endpoints": urls, "token": token, "follow_leader": not self.proxies, **settings}
        return Client(Settings(**found), workspace_id=self.workspace)

    async def close(self) -> None:
        for task in self.calls.values():
            task.cancel()
        for subscription in self.subscriptions.values():
            await subscription.close(timeout=2.0)
        for client in self.clients.values():
            await client.close()

    def verb(self, name: str) -> Verb:
        found: Verb = getattr(self, f"do_{name}")
        return found

    # Sandboxes.

    async def do_register(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        retry = RetryPolicy(
            arguments.get("max_attempts"), _milliseconds(arguments, "initial_backoff_ms"), _milliseconds(arguments, "max_backoff_ms")
        )
        agents = [Agent(one["name"], one["role"], one["capabilities"]) for one in arguments.get("agents", [])]
        limit = arguments.get("max_messages", 0)
        found = await self.client.registry.register(arguments["sandbox"], agents=agents, retry=retry, max_messages=limit)
        return {"created": found.created}

    async def do_heartbeat(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        await self.client.registry.heartbeat(arguments["sandbox"])
        return {}

    async def do_unregister(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return {"abandoned": await self.client.registry.unregister(arguments["sandbox"])}

    async def do_inbox(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            found = await self.client.registry.get(arguments["sandbox"])
            return {
                "pending": found.pending,
                "deferred": found.deferred,
                "dead_letters": found.dead_letters,
                "online": found.is_online,
            }

        return await self._until_it_fits(ask, arguments, step)

    async def do_discover(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        wanted = {name: arguments[name] for name in ("role", "capability", "agent", "online") if name in arguments}
        found = await self.client.registry.discover(**wanted)
        return {"agents": [f"{one.sandbox_id}/{one.name}" for one in found]}

    # Sending.

    async def do_publish(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        delay = _milliseconds(arguments, "delay_ms")
        message = build(
            arguments["from"],
            self._target(arguments),
            arguments["content"],
            type=arguments.get("type", "notification"),
            message_id=arguments.get("id", ""),
            priority=arguments.get("priority"),
            correlation_id=arguments.get("correlation_id", ""),
            requires_response=arguments.get("requires_response", False),
            ordering_key=arguments.get("ordering_key", ""),
            ttl=_milliseconds(arguments, "ttl_ms"),
            dead_letter_on_expiry=arguments.get("dead_letter_on_expiry", False),
            not_before=None if delay is None else datetime.now(timezone.utc) + timedelta(seconds=delay),
            metadata=arguments.get("metadata"),
        )
        return _receipt(await self.client.publish(message))

    async def do_publish_many(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return await self._perhaps_behind(self._publish_many(self.client, arguments), arguments)

    async def _publish_many(self, client: Client, arguments: Arguments) -> dict[str, Any]:
        async with await client.publisher() as publisher:
            waiting = [
                await publisher.send(build(arguments["from"], arguments["to"], {"n": number}))
                for number in range(1, arguments["count"] + 1)
            ]
            receipts = await asyncio.gather(*waiting)
        sequences = [receipt.sequence for receipt in receipts]
        in_order = all(one < other for one, other in zip(sequences, sequences[1:], strict=False))
        return {"accepted": sum(sequence > 0 for sequence in sequences), "in_order": in_order}

    async def do_request(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return await self._perhaps_behind(self._request(self.client, arguments), arguments)

    async def _request(self, client: Client, arguments: Arguments) -> dict[str, Any]:
        message = build(arguments["from"], self._target(arguments), arguments["content"], type=arguments.get("type", "request"))
        response = await client.request(message, arguments["timeout_ms"] / 1000)
        return {"content": response.content, "from": response.sender}

    async def do_respond(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        asked = self._delivery(arguments).message
        message = build(arguments["from"], asked.sender, arguments["content"], type="response", correlation_id=asked.correlation_id)
        return _receipt(await self.client.publish(message))

    async def do_finish(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return await asyncio.wait_for(self.calls.pop(arguments["call"]), arguments.get("within_ms", _WITHIN_MS) / 1000)

    # Receiving.

    async def do_subscribe(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        credit = arguments.get("credit", 1024)
        deadline = _milliseconds(arguments, "ack_deadline_ms")
        found = self.client.subscription(arguments["sandbox"], ack_deadline=deadline, credit_messages=credit)
        self.subscriptions[arguments["as"]] = found
        await found.open()
        return {}

    async def do_receive(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        within = arguments.get("within_ms", _WITHIN_MS) / 1000
        delivery = await self.subscriptions[arguments["via"]].next(timeout=within)
        if delivery is None:
            raise AssertionError(f"nothing came on {arguments['via']} within {within} s")
        self.deliveries[arguments.get("as", "last")] = delivery
        return _shown(delivery.message)

    async def do_receive_none(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        delivery = await self.subscriptions[arguments["via"]].next(timeout=arguments["for_ms"] / 1000)
        if delivery is not None:
            raise AssertionError(f"{_shown(delivery.message)} came on {arguments['via']}")
        return {}

    async def do_receive_all(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        wanted = set(range(1, arguments["count"] + 1))
        deadline = time.monotonic() + arguments.get("within_ms", _WITHIN_MS) / 1000
        first_seen: list[int] = []
        acks: set[asyncio.Task[None]] = set()
        while wanted and (left := deadline - time.monotonic()) > 0:
            delivery = await self.subscriptions[arguments["via"]].next(timeout=left)
            if delivery is None:
                break
            number = delivery.message.content["n"]
            if number in wanted:
                wanted.discard(number)
                first_seen.append(number)
            acks.add(asyncio.create_task(delivery.ack()))
        # One that lost its lease comes again, to whoever takes the next delivery: see to those, too.
        await asyncio.gather(*acks, return_exceptions=True)
        while (again := await self.subscriptions[arguments["via"]].next(timeout=1.0)) is not None:
            await again.ack()
        return {"missing": sorted(wanted), "in_order": first_seen == sorted(first_seen)}

    async def do_ack(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        await self._delivery(arguments).ack()
        return {}

    async def do_nack(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        delay, last = _milliseconds(arguments, "delay_ms"), arguments.get("dead_letter", False)
        await self._delivery(arguments).nack(arguments["reason"], delay=delay, dead_letter=last)
        return {}

    async def do_extend(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        await self._delivery(arguments).extend(_milliseconds(arguments, "deadline_ms"))
        return {}

    async def do_close(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        await self.subscriptions.pop(arguments["via"]).close()
        return {}

    # What happens around.

    async def do_cut(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        for proxy in self.proxies:
            proxy.cut()
        return {}

    async def do_kill_leader(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        if self.broker.is_cluster:
            leader = await asyncio.to_thread(leader_of, self.broker, self.workspace)
            assert leader is not None, "nobody leads the workspace"
            self.broker.nodes[leader].kill()
        return {}

    async def do_wait(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(arguments["ms"] / 1000)
        return {}

    async def do_token(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        made = self.broker.token(
            arguments["role"],
            workspace=self.workspace,
            sandbox=arguments.get("sandbox", ""),
            expires_in_s=arguments["expires_in_ms"] / 1000,
        )
        self.tokens[arguments["as"]] = made
        return {}

    async def do_connect(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if "attempts" in arguments:
            settings["attempts"] = arguments["attempts"]
        if "token" in arguments:
            value = self.tokens[arguments["token"]]
            settings["token"] = None if value is None else Token(value)
        if arguments.get("wrong_url"):
            settings |= {"endpoints": (f"http://127.0.0.1:{free_ports(1)[0]}",), "attempts": 1}
        self.clients[arguments["as"]] = self._client(**settings)
        return {}

    # The rest of a workspace.

    async def do_create_topic(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return {"created": await self.client.topics.create(arguments["topic"])}

    async def do_delete_topic(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        await self.client.topics.delete(arguments["topic"])
        return {}

    async def do_follow(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return {"created": await self.client.topics.follow(arguments["sandbox"], arguments["topic"])}

    async def do_unfollow(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        await self.client.topics.unfollow(arguments["sandbox"], arguments["topic"])
        return {}

    async def do_dead_letters(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            found = [one async for one in self.client.dead_letters.list(arguments["sandbox"])]
            return {
                "count": len(found),
                "ids": [one.message.id for one in found],
                "reasons": [one.reason for one in found],
                "texts": [one.text for one in found],
                "attempts": [len(one.attempts) for one in found],
            }

        return await self._until_it_fits(ask, arguments, step)

    async def do_redrive(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        redriven, skipped = await self.client.dead_letters.redrive(arguments["sandbox"])
        return {"redriven": redriven, "skipped": skipped}

    async def do_purge(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return {"purged": await self.client.dead_letters.purge(arguments["sandbox"])}

    async def do_history(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        sender = arguments.get("from")
        found = [one async for one in self.client.history.list() if sender is None or one.sender == sender]
        return {"count": len(found), "ids": [one.id for one in found]}

    async def do_set_policy(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        return {"revision": (await self.client.policies.set(arguments["policy"])).revision}

    async def do_approvals(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        found = await self.client.approvals.list(arguments.get("state"))
        return {"count": len(found), "ids": [one.id for one in found]}

    async def do_approve(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        found = await self.client.approvals.approve(arguments["approval"], arguments.get("comment", ""))
        return {"state": found.state, "sequence": found.sequence}

    async def do_deny(self, arguments: Arguments, step: Mapping[str, Any]) -> dict[str, Any]:
        found = await self.client.approvals.deny(arguments["approval"], arguments.get("comment", ""))
        return {"state": found.state, "sequence": found.sequence}

    # How steps are played.

    def _target(self, arguments: Arguments) -> Any:
        if arguments.get("broadcast"):
            return BROADCAST
        if "topic" in arguments:
            return Topic(arguments["topic"])
        if "capability" in arguments:
            return Capability(arguments["capability"])
        return arguments["to"]

    def _delivery(self, arguments: Arguments) -> Delivery:
        return self.deliveries[arguments.get("delivery", "last")]

    async def _perhaps_behind(self, call: Any, arguments: Arguments) -> dict[str, Any]:
        if "background" not in arguments:
            found: dict[str, Any] = await call
            return found
        self.calls[arguments["background"]] = asyncio.create_task(call)
        return {}

    async def _until_it_fits(
        self, ask: Callable[[], Awaitable[dict[str, Any]]], arguments: Arguments, step: Mapping[str, Any]
    ) -> dict[str, Any]:
        deadline = time.monotonic() + arguments.get("within_ms", _WITHIN_MS) / 1000
        while True:
            found = await ask()
            if not difference(step.get("expect", {}), found) or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.1)


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {
        "id": receipt.message_id,
        "sequence": receipt.sequence,
        "duplicate": receipt.duplicate,
        "approval_id": receipt.approval_id,
    }


def _shown(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "from": message.sender,
        "type": message.type,
        "content": message.content,
        "priority": message.priority,
        "attempt": message.attempt,
        "sequence": message.sequence,
        "correlation_id": message.correlation_id,
        "metadata": message.metadata,
    }
