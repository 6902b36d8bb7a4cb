"""Wrong addresses, tokens that end, brokers and processes that go away: a clear error or what the guide says, nothing lost or doubled."""

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
    RetryPolicy,
    TandemError,
    Token,
    Unreachable,
    build,
)
from tests.bad_use.workspace import QUICK, agent_of, is_empty, until
from tests.brokers import Broker, free_ports, leader_of, start_one
from tests.proxy import Proxy


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
    path.write_text(closed.token("sandbox", workspace="default", sandbox="renewed", expires_in_s=5))
    got: list[Any] = []
    agent = ContainerAgent("renewed", closed.urls, config={"token_file": path, "heartbeat_interval": 0.5})

    @agent.on_message
    async def take(message: Message) -> None:
        got.append(message.content)

    async with agent:
        await asyncio.sleep(1.0)
        path.write_text(closed.token("sandbox", workspace="default", sandbox="renewed", expires_in_s=60))
        await asyncio.sleep(5.5)  # The stream ends with the first token, and is opened again with the second.
        async with Client(closed.urls, token=Token(Path(closed.tokens["admin"]).read_text())) as admin:
            await admin.registry.register("tester")
            await admin.publish(build("tester", "renewed", "still there?"))
            await until(lambda: _contains(got, "still there?"))
    path.write_text(closed.token("sandbox", workspace="default", sandbox="renewed", expires_in_s=1))
    await asyncio.sleep(2.5)
    with pytest.raises(NotAuthenticated) as refused:
        await agent.start()
    assert refused.value.code == "TOKEN_EXPIRED"


async def test_an_agent_whose_token_by_value_ends_is_told_by_wait(closed: Broker) -> None:
    value = closed.token("sandbox", workspace="default", sandbox="short", expires_in_s=5)
    agent = ContainerAgent("short", closed.urls, config={"token": value})
    agent.on_message(lambda message: None)
    async with agent:
        with pytest.raises(NotAuthenticated) as refused:
            await asyncio.wait_for(agent.wait(), 20)
    assert refused.value.code == "TOKEN_EXPIRED"


async def _contains(found: list[Any], what: Any) -> bool:
    return what in found


async def test_a_handler_that_blocks_beyond_its_lease_is_not_run_again_in_this_process(one: Broker, client: Client) -> None:
    done: list[str] = []
    agent = agent_of(one, client, ack_deadline=1.0, blocked_after=0)

    @agent.on_message
    async def sleeps_on_the_loop(message: Message) -> None:
        time.sleep(2.0)
        done.append(message.id)

    async with agent:
        await client.publish(build("tester", "worker", 1, message_id="m1"))
        await until(lambda: is_empty(client))
    assert done == ["m1"], "the lease had ended; the message came again and was acknowledged without being handled again"


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


async def test_a_broker_that_goes_away_comes_back_without_loss_or_doubling() -> None:
    broker = start_one()
    try:
        handled: list[int] = []
        got_all = asyncio.Event()
        agent = ContainerAgent("worker", broker.urls, config={"heartbeat_interval": 0.5, **QUICK})

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
            await until(lambda: is_empty(client))
            assert len([one async for one in client.history.list(sandbox_id="tester")]) == 60, "published once"
        assert sorted(handled) == list(range(60)), "handled once"
    finally:
        broker.stop()


async def test_an_agent_handles_everything_once_while_the_leader_is_killed(three: Broker) -> None:
    handled: list[int] = []
    workspace = f"killed-{secrets.token_hex(6)}"
    agent = ContainerAgent("worker", three.urls, config={"workspace_id": workspace, **QUICK})

    @agent.on_message
    async def take(message: Message) -> None:
        await asyncio.sleep(0.005)
        handled.append(message.content)

    async with Client(three.urls, workspace_id=workspace) as client, await client.publisher() as publisher:
        await client.create_workspace()
        await client.registry.register("tester")
        async with agent:
            waiting = [await publisher.send(build("tester", "worker", number)) for number in range(1500)]
            await until(lambda: _has(handled, 200))
            leader = await asyncio.to_thread(leader_of, three, workspace)
            assert leader is not None
            three.nodes[leader].kill()
            try:
                waiting += [await publisher.send(build("tester", "worker", number)) for number in range(1500, 2000)]
                receipts = await asyncio.wait_for(asyncio.gather(*waiting), 60)
                await until(lambda: is_empty(client), within=60)
            finally:
                await asyncio.to_thread(three.restart_killed)
        assert len({receipt.sequence for receipt in receipts}) == 2000
        assert sorted(handled) == list(range(2000)), "each once"


async def test_hundreds_of_callers_at_once_outlast_a_leader_that_is_killed(three: Broker) -> None:
    async with Client(three.urls, workspace_id=f"crowd-{secrets.token_hex(6)}") as client:
        await client.create_workspace()
        await client.registry.register("tester")
        published, is_over = 0, False

        async def publish() -> None:
            nonlocal published
            while not is_over:
                await client.publish(build("tester", "tester", 1))
                published += 1

        crowd = asyncio.gather(*(publish() for _ in range(256)))
        leader = await asyncio.to_thread(leader_of, three, client.workspace_id)
        assert leader is not None
        three.nodes[leader].kill()
        try:
            before = published
            await asyncio.sleep(3.0)
            is_over = True
            await asyncio.wait_for(crowd, 30)
        finally:
            is_over = True
            await asyncio.to_thread(three.restart_killed)
        assert published >= before + 256, "each of them got through again"


async def _has(handled: list[int], count: int) -> bool:
    return len(handled) >= count


async def test_a_node_that_hangs_is_left_for_another_one(three: Broker) -> None:
    async with Client(three.urls, workspace_id=f"hang-{secrets.token_hex(6)}", follow_leader=False) as client:
        await client.create_workspace()
        await client.registry.register("tester")
        leader = await asyncio.to_thread(leader_of, three, client.workspace_id)
        asked = three.urls.index(client._caller.nodes.pick().endpoint)
        # The leader itself cannot be one that only hangs: that would be a failover, which the scenarios play.
        if asked == leader:
            client._caller.nodes.failed(client._caller.nodes.pick())
            asked = three.urls.index(client._caller.nodes.pick().endpoint)
        three.nodes[asked].signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            receipts = [await client.publish(build("tester", "tester", number)) for number in range(5)]
            assert time.monotonic() - began < 15.0
        finally:
            three.nodes[asked].signal(signal.SIGCONT)
        assert len({receipt.sequence for receipt in receipts}) == 5
        assert len([one async for one in client.history.list()]) == 5


async def test_a_publisher_goes_on_with_a_renewed_token(closed: Broker, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(closed.token("sandbox", workspace="default", sandbox="source", expires_in_s=5))
    async with Client(closed.urls, token=Token.from_file(path)) as client:
        await client.registry.register("source")
        async with await client.publisher() as publisher:
            assert (await publisher.publish(build("source", "source", 1))).sequence
            await asyncio.sleep(5.5)  # The stream has ended with its token, and there is no other one yet.
            waiting = await publisher.send(build("source", "source", 2))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            path.write_text(closed.token("sandbox", workspace="default", sandbox="source", expires_in_s=60))
            assert (await asyncio.wait_for(waiting, 10)).sequence


async def test_stop_and_close_do_not_wait_for_a_broker_that_is_away(one: Broker, client: Client) -> None:
    proxy = Proxy(one.urls[0])
    await proxy.start()
    agent = ContainerAgent("worker", proxy.url, config={"workspace_id": client.workspace_id, "unregister_on_stop": False})
    agent.on_message(lambda message: None)
    away = Client(proxy.url, workspace_id=client.workspace_id)
    publisher = await away.publisher()
    await agent.start()
    await proxy.stop()
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await agent.stop()
    waiting = await publisher.send(build("tester", "tester", 1))
    await publisher.close(timeout=0.5)
    await away.close()
    assert time.monotonic() - began < 8.0
    with pytest.raises(Closed):
        await waiting


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
    agent = agent_of(one, client)
    agent.on_message(lambda message: attempts.append(message.attempt))
    async with agent:
        await until(lambda: is_empty(client))
    assert attempts == [2], "the attempt of the process that was killed counts"


async def test_sigterm_ends_a_process_in_order(one: Broker, client: Client) -> None:
    await client.registry.register("worker")
    process = _process(one, client)
    assert process.stdout is not None
    try:
        await until(lambda: _is_online(client))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()


async def _is_online(client: Client) -> bool:
    # The registration of this test counts as a heartbeat; the label is the agent's, which by then listens for signals.
    found = await client.registry.get("worker")
    return found.is_online and "aintandem-instance" in found.labels


async def test_two_agents_with_one_sandbox_id_share_its_inbox_and_are_told(
    one: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    handled: list[tuple[str, int]] = []
    first, second = agent_of(one, client, concurrency=2, heartbeat_interval=0.1), agent_of(one, client, concurrency=2)

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
        await until(lambda: is_empty(client))
        await asyncio.sleep(0.5)
    assert sorted(number for _, number in handled) == list(range(40)), "each message went to one of them"
    assert {name for name, _ in handled} == {"first", "second"}
    assert len([record for record in caplog.records if "another agent has registered" in record.getMessage()]) == 1
    with pytest.raises(ValueError, match="already"):
        first.on_message(handler("another"))
