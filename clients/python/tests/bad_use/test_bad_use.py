"""Agents that are used badly, or that the world is bad to: a clear error or documented behaviour, no hang, nothing lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aintandem_agent_sdk import (
    Client,
    Closed,
    ContainerAgent,
    InvalidEndpoint,
    InvalidSettings,
    Message,
    NotAuthenticated,
    NotSerialisable,
    Reject,
    RetryLater,
    RetryPolicy,
    TandemError,
    Undeliverable,
    Unreachable,
    build,
)
from tests.brokers import Broker, free_ports, start_one
from tests.proxy import Proxy

_QUICK = {"retry": RetryPolicy(5, 0.05, 0.1)}


@pytest.fixture
async def client(one: Broker) -> AsyncIterator[Client]:
    """A workspace of its own, with the sandbox `tester` in it."""
    async with Client(one.urls, workspace_id=f"bad-{secrets.token_hex(6)}") as found:
        await found.create_workspace()
        await found.registry.register("tester")
        yield found
        await found.delete_workspace()


def _agent(one: Broker, client: Client, name: str = "worker", **config: Any) -> ContainerAgent:
    return ContainerAgent(name, one.urls, {"name": name}, {"workspace_id": client.workspace_id, **_QUICK, **config})


async def _until(condition: Any, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def _is_empty(client: Client, sandbox_id: str = "worker") -> bool:
    found = await client.registry.get(sandbox_id)
    return found.pending == 0


async def test_a_wrong_url_is_told_at_once_or_within_the_time_limit() -> None:
    for url in ("127.0.0.1:8001", "ftp://x", ""):
        with pytest.raises(InvalidEndpoint):
            ContainerAgent("a", url)
    began = time.monotonic()
    agent = ContainerAgent("a", f"http://127.0.0.1:{free_ports(1)[0]}", config={"attempts": 2, "connect_timeout": 1.0})
    with pytest.raises(Unreachable) as refused:
        await agent.start()
    assert refused.value.retryable
    assert time.monotonic() - began < 5.0
    with pytest.raises(Closed, match="not started"):
        await agent.send_message("b", 1)


async def test_an_address_that_speaks_something_else_is_told() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(b"SSH-2.0-x\r\n")
        with contextlib.suppress(OSError):
            await reader.read()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    agent = ContainerAgent("a", f"http://127.0.0.1:{port}", config={"attempts": 1, "connect_timeout": 1.0})
    with pytest.raises(Unreachable):
        await agent.start()
    server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.05)


async def test_an_unknown_setting_is_told() -> None:
    with pytest.raises(InvalidSettings, match="heartbeat_intervall"):
        ContainerAgent("a", config={"heartbeat_intervall": 3})
    with pytest.raises(InvalidSettings, match="TANDEM_SANDBOX"):
        ContainerAgent.from_environment(environment={"TANDEM_BROKER": "http://x:1"})
    found = ContainerAgent.from_environment(
        "a", environment={"TANDEM_SANDBOX": "s", "TANDEM_BROKER": "http://x:1", "TANDEM_WORKSPACE": "w"}
    )
    assert (found.sandbox_id, found.config.workspace_id) == ("s", "w")


async def test_an_expired_token_is_told_and_a_renewed_file_is_used(closed: Broker, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(closed.token("sandbox", workspace="default", sandbox="renewed", expires_in_s=2))
    got: list[Any] = []
    agent = ContainerAgent("renewed", closed.urls, config={"token_file": path, "heartbeat_interval": 0.5})

    @agent.on_message
    async def take(message: Message) -> None:
        got.append(message.content)

    async with agent:
        await asyncio.sleep(1.0)
        path.write_text(closed.token("sandbox", workspace="default", sandbox="renewed", expires_in_s=60))
        await asyncio.sleep(2.5)  # The stream ends with the first token, and is opened again with the second.
        async with Client(closed.urls, token=_token(Path(closed.tokens["admin"]).read_text())) as admin:
            await admin.registry.register("tester")
            await admin.publish(build("tester", "renewed", "still there?"))
            await _until(lambda: _contains(got, "still there?"))
    path.write_text(closed.token("sandbox", workspace="default", sandbox="renewed", expires_in_s=1))
    await asyncio.sleep(2.5)
    with pytest.raises(NotAuthenticated) as refused:
        await agent.start()
    assert refused.value.code == "TOKEN_EXPIRED"


async def test_an_agent_whose_token_by_value_ends_is_told_by_wait(closed: Broker) -> None:
    value = closed.token("sandbox", workspace="default", sandbox="short", expires_in_s=2)
    agent = ContainerAgent("short", closed.urls, config={"token": value})
    agent.on_message(lambda message: None)
    async with agent:
        with pytest.raises(NotAuthenticated) as refused:
            await asyncio.wait_for(agent.wait(), 10)
    assert refused.value.code == "TOKEN_EXPIRED"


def _token(value: str) -> Any:
    from aintandem_agent_sdk import Token

    return Token(value)


async def _contains(found: list[Any], what: Any) -> bool:
    return what in found


async def test_a_handler_that_blocks_the_loop_is_named_and_its_work_counts_once(
    one: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    done: list[str] = []
    agent = _agent(one, client, blocked_after=0.3, ack_deadline=5.0)

    @agent.on_message
    async def sleeps_on_the_loop(message: Message) -> None:
        time.sleep(1.2)  # What must not be done.
        done.append(message.id)

    async with agent:
        await client.publish(build("tester", "worker", 1, message_id="m1"))
        await _until(lambda: _is_empty(client))
    assert done == ["m1"]
    told = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert len(told) == 1
    assert "sleeps_on_the_loop" in told[0]


async def test_a_handler_that_blocks_beyond_its_lease_is_not_run_again_in_this_process(one: Broker, client: Client) -> None:
    done: list[str] = []
    agent = _agent(one, client, ack_deadline=1.0, blocked_after=0)

    @agent.on_message
    async def sleeps_on_the_loop(message: Message) -> None:
        time.sleep(2.0)
        done.append(message.id)

    async with agent:
        await client.publish(build("tester", "worker", 1, message_id="m1"))
        await _until(lambda: _is_empty(client))
    assert done == ["m1"], "the lease had ended; the message came again and was acknowledged without being handled again"


async def test_a_handler_without_async_may_block(one: Broker, client: Client) -> None:
    done: list[int] = []
    agent = _agent(one, client, ack_deadline=1.0)

    @agent.on_message
    def slow(message: Message) -> None:
        time.sleep(1.6)
        done.append(message.content)

    async with agent:
        for number in range(3):
            await client.publish(build("tester", "worker", number))
        await _until(lambda: _is_empty(client))
    assert sorted(done) == [0, 1, 2], "leases were extended meanwhile"


async def test_a_handler_that_raises_is_tried_again_and_then_a_dead_letter_with_its_reason(one: Broker, client: Client) -> None:
    attempts: list[int] = []
    agent = _agent(one, client, retry=RetryPolicy(2, 0.05, 0.05))

    @agent.on_message
    async def fails(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError("no credentials")

    async with agent:
        await client.publish(build("tester", "worker", 1))
        await _until(lambda: _has_dead_letters(client, 1))
    assert attempts == [1, 2]
    dead = [one async for one in client.dead_letters.list("worker")]
    assert dead[0].reason == "attempts_exhausted"
    assert [attempt.text for attempt in dead[0].attempts] == ["ValueError: no credentials"] * 2


async def _has_dead_letters(client: Client, count: int) -> bool:
    return len([one async for one in client.dead_letters.list("worker")]) == count


async def test_a_handler_may_reject_or_ask_for_later(one: Broker, client: Client) -> None:
    attempts: list[tuple[Any, int]] = []
    agent = _agent(one, client)

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
        await _until(lambda: _is_empty(client))
    assert sorted(attempts) == [("later", 1), ("later", 2), ("never", 1)]
    dead = [one async for one in client.dead_letters.list("worker")]
    assert [(one.reason, one.attempts[0].text) for one in dead] == [("rejected", "not mine")]


async def test_a_request_that_cannot_be_answered_ends_with_the_reason(one: Broker, client: Client) -> None:
    agent = _agent(one, client, retry=RetryPolicy(1))

    @agent.on_request
    async def answers(message: Message) -> object:
        if message.content == "nonsense":
            raise Reject("no answer to that")
        return object()  # Nothing that JSON can say.

    async with agent, _agent(one, client, "asker") as asker:
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
    agent = _agent(one, client, handler_timeout=0.5, retry=RetryPolicy(1))

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
        await _until(lambda: _has_dead_letters(client, 1))
    assert seen == ["hang", "fine"]
    assert was_cancelled.is_set()
    dead = [one async for one in client.dead_letters.list("worker")]
    assert "did not return within 0.5 s" in dead[0].text


async def test_a_handler_that_cannot_be_cancelled_or_cancels_itself_holds_nothing_up(one: Broker, client: Client) -> None:
    agent = _agent(one, client, handler_timeout=0.3, retry=RetryPolicy(1))
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
        await _until(lambda: _has_dead_letters(client, 2))
        let_go.set()
    dead = [one async for one in client.dead_letters.list("worker")]
    assert ["did not return" in dead[0].text, "cancelled itself" in dead[1].text] == [True, True]


async def test_a_payload_that_does_not_serialise_sends_nothing(one: Broker, client: Client) -> None:
    async with _agent(one, client) as agent:
        for content in ({1, 2}, object(), float("nan")):
            with pytest.raises(NotSerialisable):
                await agent.send_message("tester", content)
        with pytest.raises(TandemError) as large:
            await agent.send_message("tester", b"x" * (2 << 20))
        assert (large.value.code, large.value.retryable) == ("MESSAGE_TOO_LARGE", False)
    assert [one async for one in client.history.list()] == []


async def test_a_publisher_outlives_a_message_that_is_too_large(client: Client) -> None:
    async with await client.publisher() as publisher:
        with pytest.raises(TandemError) as large:
            await publisher.publish(build("tester", "tester", b"x" * (2 << 20)))
        assert large.value.code == "MESSAGE_TOO_LARGE"
        with pytest.raises(TandemError) as unknown:
            await publisher.publish(build("tester", "nobody", 1))
        assert unknown.value.code == "UNKNOWN_SANDBOX"
        assert (await publisher.publish(build("tester", "tester", 1))).sequence > 0
    with pytest.raises(Closed):
        await publisher.publish(build("tester", "tester", 1))


async def test_a_message_without_a_handler_is_a_dead_letter_that_says_so(one: Broker, client: Client) -> None:
    agent = _agent(one, client)
    agent.on_request(lambda message: "yes")
    async with agent:
        await client.publish(build("tester", "worker", 1))
        await _until(lambda: _has_dead_letters(client, 1))
    dead = [one async for one in client.dead_letters.list("worker")]
    assert "no handler takes a notification" in dead[0].attempts[0].text


async def test_a_broker_that_goes_away_comes_back_without_loss_or_doubling() -> None:
    broker = start_one()
    try:
        handled: list[int] = []
        got_all = asyncio.Event()
        agent = ContainerAgent("worker", broker.urls, config={"heartbeat_interval": 0.5, **_QUICK})

        @agent.on_message
        async def take(message: Message) -> None:
            handled.append(message.content["n"])
            if len(handled) == 60:
                got_all.set()

        async with agent, Client(broker.urls) as client, await client.publisher() as publisher:
            await client.registry.register("tester")
            before = [await publisher.send(build("tester", "worker", {"n": number})) for number in range(30)]
            await asyncio.gather(*before)
            node = broker.nodes[0]
            node.kill()
            # What is sent meanwhile waits; a single call ends within its limit, and says that a retry can help.
            during = [await publisher.send(build("tester", "worker", {"n": number})) for number in range(30, 60)]
            async with Client(broker.urls, attempts=2, request_timeout=2.0) as hurried:
                with pytest.raises(TandemError) as away:
                    await hurried.publish(build("tester", "worker", {"n": -1}))
            assert away.value.retryable
            await asyncio.sleep(3.0)
            assert not any(receipt.done() for receipt in during)
            await asyncio.to_thread(broker.restart_killed)
            receipts = await asyncio.wait_for(asyncio.gather(*during), 30)
            assert all(receipt.sequence for receipt in receipts)
            await asyncio.wait_for(got_all.wait(), 30)
            await _until(lambda: _is_empty(client))
            assert len([one async for one in client.history.list(sandbox_id="tester")]) == 60, "published once"
        assert sorted(handled) == list(range(60)), "handled once"
    finally:
        broker.stop()


async def test_a_limit_on_reconnecting_ends_the_agent_with_an_error(one: Broker, client: Client) -> None:
    proxy = Proxy(one.urls[0])
    await proxy.start()
    config = {"workspace_id": client.workspace_id, "reconnect_limit": 1.0, "connect_timeout": 0.5}
    agent = ContainerAgent("worker", proxy.url, config=config)
    agent.on_message(lambda message: None)
    async with agent:
        await proxy.stop()
        with pytest.raises(Unreachable):
            await asyncio.wait_for(agent.wait(), 15)


_KILLED = """
import asyncio, sys, time
from aintandem_agent_sdk import ContainerAgent
agent = ContainerAgent("worker", sys.argv[1], config={"workspace_id": sys.argv[2], "retry": None})
@agent.on_message
async def work(message):
    print("begun", message.attempt, flush=True)
    await asyncio.sleep(3600)
asyncio.run(agent.run())
"""


def _process(one: Broker, client: Client) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _KILLED, one.urls[0], client.workspace_id]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})


async def test_a_process_that_is_killed_in_a_handler_loses_nothing(one: Broker, client: Client) -> None:
    await client.registry.register("worker", retry=RetryPolicy(5, 0.05, 0.1))
    await client.publish(build("tester", "worker", 1))
    process = _process(one, client)
    assert process.stdout is not None
    try:
        assert (await asyncio.to_thread(process.stdout.readline)).split() == ["begun", "1"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    attempts: list[int] = []
    agent = _agent(one, client)
    agent.on_message(lambda message: attempts.append(message.attempt))
    async with agent:
        await _until(lambda: _is_empty(client))
    assert attempts == [2], "the attempt of the process that was killed counts"


async def test_sigterm_ends_a_process_in_order(one: Broker, client: Client) -> None:
    await client.registry.register("worker")
    process = _process(one, client)
    assert process.stdout is not None
    try:
        await _until(lambda: _is_online(client))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()


async def _is_online(client: Client) -> bool:
    # The registration of this test counts as a heartbeat; an agent name is there once the process has registered.
    await asyncio.sleep(1.0)
    return (await client.registry.get("worker")).is_online


async def test_stop_during_a_delivery_lets_the_handler_finish_and_gives_back_the_rest(one: Broker, client: Client) -> None:
    begun, finished = asyncio.Event(), []
    agent = _agent(one, client, concurrency=1)

    @agent.on_message
    async def slow(message: Message) -> None:
        begun.set()
        await asyncio.sleep(0.5)
        finished.append(message.content)

    await agent.start()
    for number in range(5):
        await client.publish(build("tester", "worker", number))
    await begun.wait()
    await agent.stop()
    assert finished == [0]
    assert (await client.registry.get("worker")).pending == 4
    attempts: list[tuple[int, int]] = []
    other = _agent(one, client)
    other.on_message(lambda message: attempts.append((message.content, message.attempt)))
    async with other:
        await _until(lambda: _is_empty(client))
    assert sorted(attempts) == [(number, 1) for number in range(1, 5)], "given back without a failed attempt"


async def test_stop_does_not_wait_for_ever(one: Broker, client: Client) -> None:
    begun = asyncio.Event()
    agent = _agent(one, client, stop_timeout=0.5)

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


async def test_two_agents_with_one_sandbox_id_share_its_inbox_and_are_told(
    one: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    handled: list[tuple[str, int]] = []
    first, second = _agent(one, client, concurrency=2), _agent(one, client, concurrency=2)

    def handler(name: str) -> Any:
        async def take(message: Message) -> None:
            handled.append((name, message.content))
            await asyncio.sleep(0.02)

        return take

    first.on_message(handler("first"))
    second.on_message(handler("second"))
    async with first, second:
        for number in range(40):
            await client.publish(build("tester", "worker", number))
        await _until(lambda: _is_empty(client))
    assert sorted(number for _, number in handled) == list(range(40)), "each message went to one of them"
    assert {name for name, _ in handled} == {"first", "second"}
    assert any("online already" in record.getMessage() for record in caplog.records)
    with pytest.raises(ValueError, match="already"):
        first.on_message(handler("another"))
