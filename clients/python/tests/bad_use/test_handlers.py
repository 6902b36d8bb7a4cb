"""Handlers that block, raise, hang or say nonsense: a clear error or documented behaviour, nothing lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import pytest

from aintandem_agent_sdk import (
    Client,
    Invalid,
    Message,
    NotSerialisable,
    Reject,
    RetryLater,
    RetryPolicy,
    TandemError,
    Undeliverable,
    build,
)
from tests.bad_use.workspace import agent_of, has_dead_letters, is_empty, until
from tests.brokers import Broker


async def test_a_handler_that_blocks_the_loop_is_named_and_its_work_counts_once(
    one: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    done: list[str] = []
    agent = agent_of(one, client, blocked_after=0.8, ack_deadline=8.0)

    @agent.on_message
    async def sleeps_on_the_loop(message: Message) -> None:
        time.sleep(2.4)  # What must not be done.
        done.append(message.id)

    async with agent:
        await client.publish(build("tester", "worker", 1, message_id="m1"))
        await until(lambda: is_empty(client))
    assert done == ["m1"]
    told = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert len(told) == 1
    assert "sleeps_on_the_loop" in told[0]


async def test_a_handler_without_async_may_block(one: Broker, client: Client) -> None:
    done: list[int] = []
    agent = agent_of(one, client, ack_deadline=1.0)

    @agent.on_message
    def slow(message: Message) -> None:
        time.sleep(1.6)
        done.append(message.content)

    async with agent:
        for number in range(3):
            await client.publish(build("tester", "worker", number))
        await until(lambda: is_empty(client))
    assert sorted(done) == [0, 1, 2], "leases were extended meanwhile"


async def test_a_handler_that_raises_is_tried_again_and_then_a_dead_letter_with_its_reason(one: Broker, client: Client) -> None:
    attempts: list[int] = []
    agent = agent_of(one, client, retry=RetryPolicy(2, 0.05, 0.05))

    @agent.on_message
    async def fails(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError("no credentials")

    async with agent:
        await client.publish(build("tester", "worker", 1))
        await until(lambda: has_dead_letters(client, 1))
    assert attempts == [1, 2]
    dead = [one async for one in client.dead_letters.list("worker")]
    assert dead[0].reason == "attempts_exhausted"
    assert [attempt.text for attempt in dead[0].attempts] == ["ValueError: no credentials"] * 2


async def test_a_handler_may_reject_or_ask_for_later(one: Broker, client: Client) -> None:
    attempts: list[tuple[Any, int]] = []
    agent = agent_of(one, client)

    @agent.on_message
    async def choosy(message: Message) -> None:
        attempts.append((message.content, message.attempt))
        if message.content == "never":
            raise Reject("not mine")
        if message.attempt == 1:
            raise RetryLater(delay=0.2)

    async with agent:
        await client.publish(build("tester", "worker", "never"))
        await client.publish(build("tester", "worker", "later"))
        await until(lambda: is_empty(client))
    assert sorted(attempts) == [("later", 1), ("later", 2), ("never", 1)]
    dead = [one async for one in client.dead_letters.list("worker")]
    assert [(one.reason, one.attempts[0].text) for one in dead] == [("rejected", "not mine")]


async def test_a_request_that_cannot_be_answered_ends_with_the_reason(one: Broker, client: Client) -> None:
    agent = agent_of(one, client, retry=RetryPolicy(1))

    @agent.on_request
    async def answers(message: Message) -> object:
        if message.content == "nonsense":
            raise Reject("no answer to that")
        return object()  # Nothing that JSON can say.

    async with agent, agent_of(one, client, "asker") as asker:
        with pytest.raises(Undeliverable) as rejected:
            await asker.collaborate_with("worker", "nonsense", timeout=10)
        assert rejected.value.code == "REJECTED"
        with pytest.raises(Undeliverable) as failed:
            await asker.collaborate_with("worker", "anything", timeout=10)
        assert (failed.value.code, failed.value.retryable) == ("ATTEMPTS_EXHAUSTED", False)
        with pytest.raises(TandemError) as late:
            await asker.collaborate_with("tester", "is anybody there?", timeout=0.3)
        assert late.value.code == "RESPONSE_TIMEOUT"


async def test_a_handler_that_never_returns_is_cancelled_and_others_go_on(one: Broker, client: Client) -> None:
    seen: list[Any] = []
    was_cancelled = asyncio.Event()
    agent = agent_of(one, client, handler_timeout=0.5, retry=RetryPolicy(1))

    @agent.on_message
    async def hangs(message: Message) -> None:
        seen.append(message.content)
        if message.content == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                was_cancelled.set()

    async with agent:
        await client.publish(build("tester", "worker", "hang"))
        await client.publish(build("tester", "worker", "fine"))
        await until(lambda: has_dead_letters(client, 1))
    assert seen == ["hang", "fine"]
    assert was_cancelled.is_set()
    dead = [one async for one in client.dead_letters.list("worker")]
    assert "did not return within 0.5 s" in dead[0].text


async def test_a_handler_that_cannot_be_cancelled_or_cancels_itself_holds_nothing_up(one: Broker, client: Client) -> None:
    agent = agent_of(one, client, handler_timeout=0.3, retry=RetryPolicy(1))
    let_go = asyncio.Event()

    @agent.on_message
    async def stubborn(message: Message) -> None:
        if message.content == "cancels":
            raise asyncio.CancelledError
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    async with agent:
        await client.publish(build("tester", "worker", "stays"))
        await client.publish(build("tester", "worker", "cancels"))
        await until(lambda: has_dead_letters(client, 2))
        let_go.set()
    dead = [one async for one in client.dead_letters.list("worker")]
    assert ["did not return" in dead[0].text, "cancelled itself" in dead[1].text] == [True, True]


async def test_a_payload_that_does_not_serialise_sends_nothing(one: Broker, client: Client) -> None:
    async with agent_of(one, client) as agent:
        for content in ({1, 2}, object(), float("nan")):
            with pytest.raises(NotSerialisable):
                await agent.send_message("tester", content)
        with pytest.raises(TandemError) as large:
            await agent.send_message("tester", b"x" * (2 << 20))
        assert (large.value.code, large.value.retryable) == ("MESSAGE_TOO_LARGE", False)
    assert [one async for one in client.history.list()] == []


async def test_a_message_that_no_request_has_room_for_is_refused_here_and_by_the_broker_alike(one: Broker, client: Client) -> None:
    async with agent_of(one, client) as agent, await client.publisher() as publisher:
        producer_id = publisher.producer_id
        # The broker reads no request over 4 MiB and a little; this side sends none over 16 MiB.
        for size in (9_000_000, 15_000_000, 20_000_000):
            content = b"x" * size
            for refused in (
                agent.send_message("tester", content),
                agent.broadcast(content),
                agent.collaborate_with("tester", content),
                publisher.publish(build("tester", "worker", content)),
            ):
                with pytest.raises(Invalid) as large:
                    await asyncio.wait_for(refused, 5)
                assert (large.value.code, large.value.retryable) == ("MESSAGE_TOO_LARGE", False)
            assert (await publisher.publish(build("worker", "tester", 1))).sequence > 0
        assert publisher.producer_id == producer_id, "the stream has gone on, and its numbers without a gap"
    assert len([one async for one in client.history.list()]) == 3


async def test_a_message_without_a_handler_is_a_dead_letter_that_says_so(one: Broker, client: Client) -> None:
    agent = agent_of(one, client)
    agent.on_request(lambda message: "yes")
    async with agent:
        await client.publish(build("tester", "worker", 1))
        await until(lambda: has_dead_letters(client, 1))
    dead = [one async for one in client.dead_letters.list("worker")]
    assert "no handler takes a notification" in dead[0].attempts[0].text


async def test_stop_during_a_delivery_lets_the_handler_finish_and_gives_back_the_rest(one: Broker, client: Client) -> None:
    begun, may_end, finished = asyncio.Event(), asyncio.Event(), []
    agent = agent_of(one, client, concurrency=1)

    @agent.on_message
    async def slow(message: Message) -> None:
        begun.set()
        await may_end.wait()
        finished.append(message.content)

    await agent.start()
    for number in range(5):
        await client.publish(build("tester", "worker", number))
    await begun.wait()
    stopping = asyncio.create_task(agent.stop())
    await asyncio.sleep(0.1)
    may_end.set()
    await stopping
    assert finished == [0]
    assert (await client.registry.get("worker")).pending == 4
    attempts: list[tuple[int, int]] = []
    other = agent_of(one, client)
    other.on_message(lambda message: attempts.append((message.content, message.attempt)))
    async with other:
        await until(lambda: is_empty(client))
    assert sorted(attempts) == [(number, 1) for number in range(1, 5)], "given back without a failed attempt"


async def test_stop_does_not_wait_for_ever(one: Broker, client: Client) -> None:
    begun = asyncio.Event()
    agent = agent_of(one, client, stop_timeout=0.5)

    @agent.on_message
    async def hangs(message: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    await agent.start()
    await client.publish(build("tester", "worker", 1))
    await begun.wait()
    await asyncio.wait_for(agent.stop(), 10)
    await agent.stop()  # Once more does nothing.
    assert (await client.registry.get("worker")).pending == 1
