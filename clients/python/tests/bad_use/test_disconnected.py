"""Agents whom an operator disconnects (docs/guides/control-plane.md).

What is bound to the sandbox ends with an error; where nothing is, a sandbox that was unregistered comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aintandem import ApiError, AsyncClient, NotPermitted, Unavailable, Unreachable
from aintandem_agent_sdk import (
    Client,
    ContainerAgent,
    Message,
    NotAuthenticated,
    NotFound,
    TandemError,
    Token,
    Topic,
    build,
    outage,
)
from tests.bad_use.workspace import agent_of, until
from tests.brokers import TANDEM_CONTROL_PLANE, Broker, Node, free_ports, start_control_plane, tandem


@pytest.fixture(scope="module")
def served(closed: Broker) -> Iterator[Node]:
    """A control plane of its own in front of the closed broker."""
    if not TANDEM_CONTROL_PLANE.exists():
        pytest.skip(f"{TANDEM_CONTROL_PLANE} is not there; build it, or set TANDEM_CONTROL_PLANE_BIN")
    node = start_control_plane(closed)
    yield node
    node.stop()


@pytest.fixture
async def operator(closed: Broker, served: Node) -> AsyncIterator[AsyncClient]:
    """Who may disconnect."""
    async with AsyncClient(served.url, token_file=closed.tokens["admin"]) as found:
        yield found


@pytest.fixture
async def admin(closed: Broker) -> AsyncIterator[Client]:
    """The same one at the broker; there is a sandbox `tester`."""
    async with Client(closed.urls, token=Token.from_file(closed.tokens["admin"])) as found:
        await found.registry.register("tester")
        yield found


def _name() -> str:
    return f"worker-{secrets.token_hex(4)}"


async def _key(operator: AsyncClient, sandbox: str) -> str:
    made = await operator.api_keys.create(sandbox, ["sandbox"], workspace_id="default", sandbox_id=sandbox)
    return made.secret


def _issued(closed: Broker, sandbox: str) -> str:
    bound = ["--bind-workspace", "default", "--bind-sandbox", sandbox]
    asked = ["--token-file", closed.tokens["admin"], "token", "issue", "--subject", sandbox, "--role", "sandbox", *bound]
    return tandem(*asked, server=closed.urls[0]).strip()


def _agent(closed: Broker, sandbox: str, **config: Any) -> ContainerAgent:
    return ContainerAgent(sandbox, closed.urls, sandbox, {"heartbeat_interval": 0.2, **config})


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_who_is_disconnected_is_told_at_once(closed: Broker, operator: AsyncClient, admin: Client, kind: str) -> None:
    sandbox = _name()
    value = await _key(operator, sandbox) if kind == "key" else await asyncio.to_thread(_issued, closed, sandbox)
    agent, begun, ended = _agent(closed, sandbox, token=value), asyncio.Event(), asyncio.Event()

    @agent.on_message
    async def work(message: Message) -> None:
        begun.set()
        await asyncio.sleep(2.0)
        ended.set()

    async with agent, await agent.client.publisher() as publisher:
        await publisher.publish(build(sandbox, "tester", "before"))
        await admin.publish(build("tester", sandbox, 1))
        await begun.wait()
        asked = asyncio.create_task(agent.collaborate_with("tester", "?", timeout=30))
        await asyncio.sleep(0.2)
        done = await operator.collaboration.disconnect("default", sandbox, reason="it runs wild")
        assert (len(done.revoked_api_keys), len(done.revoked_tokens)) == ((1, 0) if kind == "key" else (0, 1))
        began = time.monotonic()
        for told in (agent.wait(), asked, agent.send_message("tester", 1), publisher.publish(build(sandbox, "tester", "after"))):
            with pytest.raises(NotAuthenticated) as refused:
                await asyncio.wait_for(told, 5)
            assert (refused.value.code, refused.value.retryable) == (f"{kind.upper()}_REVOKED", False)
        assert time.monotonic() - began < 5.0, "within a second where the machine is idle"
    assert ended.is_set(), "stop lets the handler finish"
    assert (await admin.registry.get(sandbox)).pending == 1, "what it was doing waits for whoever comes"
    with pytest.raises(NotAuthenticated):
        await agent.start()


async def test_one_that_only_sends_is_told_by_its_heartbeat(closed: Broker, operator: AsyncClient) -> None:
    sandbox = _name()
    async with _agent(closed, sandbox, token=await _key(operator, sandbox)) as agent:
        await operator.collaboration.disconnect("default", sandbox)
        with pytest.raises(NotAuthenticated) as refused:
            await asyncio.wait_for(agent.wait(), 5)
    assert refused.value.code == "KEY_REVOKED"


@pytest.mark.parametrize("has_inbox", [True, False])
async def test_who_has_a_file_waits_for_another_key_and_says_so(
    closed: Broker,
    operator: AsyncClient,
    admin: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    has_inbox: bool,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(outage, "_TOKEN_GRACE_S", 6.0)
    sandbox, path = _name(), tmp_path / "key"
    path.write_text(await _key(operator, sandbox))
    agent = _agent(closed, sandbox, token_file=path)
    got: list[Any] = []
    if has_inbox:
        agent.on_message(lambda message: got.append(message.content))

    async def has_warned() -> bool:
        return any("waits up to 6 s for another token" in record.getMessage() for record in caplog.records)

    async def works() -> bool:
        await admin.publish(build("tester", sandbox, "again"))
        await agent.send_message("tester", 1)
        return not has_inbox or "again" in got

    async with agent:
        waiting = asyncio.create_task(agent.wait())
        await operator.collaboration.disconnect("default", sandbox)
        await until(has_warned)
        # It is not forbidden that the sandbox is given another one.
        path.write_text(await _key(operator, sandbox))
        await asyncio.sleep(2.5)
        await until(works)
        assert not waiting.done()

        caplog.clear()
        await operator.collaboration.disconnect("default", sandbox)
        with pytest.raises(NotAuthenticated) as refused:
            await asyncio.wait_for(waiting, 20)
        assert refused.value.code == "KEY_REVOKED"
        assert await has_warned()


_AGAIN = "the sandbox was unregistered; it is registered again"


def _times_back(caplog: pytest.LogCaptureFixture, sandbox: str) -> int:
    return [record.getMessage() for record in caplog.records].count(f"{sandbox}: {_AGAIN}")


@pytest.mark.parametrize("has_inbox", [True, False])
async def test_who_is_revoked_and_unregistered_does_not_come_back(
    closed: Broker, operator: AsyncClient, admin: Client, has_inbox: bool
) -> None:
    sandbox = _name()
    agent = _agent(closed, sandbox, token=await _key(operator, sandbox))
    if has_inbox:
        agent.on_message(lambda message: None)
    async with agent:
        done = await operator.collaboration.disconnect("default", sandbox, unregister=True)
        assert (len(done.revoked_api_keys), done.unregistered) == (1, True)
        with pytest.raises(NotAuthenticated) as refused:
            await asyncio.wait_for(agent.wait(), 10)
        assert refused.value.code == "KEY_REVOKED"
    with pytest.raises(NotFound):
        await admin.registry.get(sandbox)


async def test_who_is_bound_to_no_sandbox_goes_on_and_is_registered_again(
    one: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    got: list[Any] = []
    worker = agent_of(one, client, heartbeat_interval=0.2, labels={"team": "red"})
    worker.on_message(lambda message: got.append(message.content))
    worker.on_topic("build.*")(lambda message: got.append(message.content))
    sender = agent_of(one, client, "sender", heartbeat_interval=0.2, labels={"team": "blue"})

    async def has(what: Any) -> bool:
        return what in got

    async def is_back(agent: ContainerAgent) -> bool:
        return _times_back(caplog, agent.sandbox_id) == 1

    for topic in ("build.linux", "tests", "news"):
        await client.topics.create(topic)
    async with worker, sender, AsyncClient(one.rest) as operator:
        for pattern in ("tests", "news"):
            await worker.follow(pattern)
        await worker.unfollow("news")
        waiting = [asyncio.create_task(agent.wait()) for agent in (worker, sender)]
        for agent in (worker, sender):
            done = await operator.collaboration.disconnect(client.workspace_id, agent.sandbox_id)
            assert (done.revoked_api_keys, done.revoked_tokens) == ([], [])
        await asyncio.sleep(1.5)
        await sender.send_message("worker", "still there?")
        await until(lambda: has("still there?"))
        assert not any(_times_back(caplog, agent.sandbox_id) for agent in (worker, sender)), "neither was unregistered"
        for agent, team in ((worker, "red"), (sender, "blue")):
            await operator.collaboration.disconnect(client.workspace_id, agent.sandbox_id, unregister=True)
            await until(lambda agent=agent: is_back(agent))
            found = await client.registry.get(agent.sandbox_id)
            assert ([one.name for one in found.agents], found.labels["team"]) == ([agent.sandbox_id], team)
        assert sorted(await client.topics.follows("worker")) == ["build.*", "tests"]
        await sender.send_message("worker", "and now?")
        await client.publish(build("tester", Topic("build.linux"), "green"))
        await until(lambda: has("and now?"))
        await until(lambda: has("green"))
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()


async def test_who_is_unregistered_again_and_again_in_the_middle_of_its_work_goes_on(
    one: Broker, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    handled: list[Any] = []
    worker = agent_of(one, client)
    worker.on_message(lambda message: handled.append(message.content))
    is_over = False

    async def flood(number: int) -> None:
        while not is_over:
            with contextlib.suppress(TandemError):
                await client.publish(build("tester", "worker", number))

    async def is_back(times: int) -> bool:
        return _times_back(caplog, "worker") == times

    async def has_more_than(count: int) -> bool:
        return len(handled) > count

    async with worker:
        waiting = asyncio.create_task(worker.wait())
        senders = asyncio.gather(*(flood(number) for number in range(8)))
        for times in range(1, 6):
            before = len(handled)
            # So that acknowledgements are on their way.
            await until(lambda before=before: has_more_than(before + 50))
            await client.registry.unregister("worker")
            await until(lambda times=times: is_back(times))
        is_over = True
        await senders
        await client.publish(build("tester", "worker", "the last one"))
        await until(lambda: _holds(handled, "the last one"))
        assert not waiting.done()
        waiting.cancel()


async def _holds(found: list[Any], what: Any) -> bool:
    return what in found


async def test_an_inbox_without_an_agent_ends_with_its_sandbox(client: Client) -> None:
    is_over = False

    async def flood() -> None:
        while not is_over:
            with contextlib.suppress(TandemError):
                await client.publish(build("tester", "worker", 1))

    async def read() -> None:
        acks: set[asyncio.Task[None]] = set()
        async with client.subscription("worker") as inbox:
            try:
                async for delivery in inbox:
                    acks.add(asyncio.create_task(delivery.ack()))
            finally:
                await asyncio.gather(*acks, return_exceptions=True)

    senders = asyncio.gather(*(flood() for _ in range(32)))
    try:
        # In one of six an ack is on its way, and ends the stream with LEASE_LOST.
        for _ in range(25):
            await client.registry.register("worker")
            reading = asyncio.create_task(read())
            await asyncio.sleep(0.1)
            await client.registry.unregister("worker")
            with pytest.raises(NotFound) as gone:
                await asyncio.wait_for(reading, 10)
            assert gone.value.code == "UNKNOWN_SANDBOX"
    finally:
        is_over = True
        await senders


async def test_a_disconnection_that_cannot_be_is_told(closed: Broker, served: Node, operator: AsyncClient, admin: Client) -> None:
    sandbox = _name()
    key = await _key(operator, sandbox)
    async with _agent(closed, sandbox, token=key) as agent, AsyncClient(served.url, token=key) as itself:
        with pytest.raises(NotPermitted) as refused:
            await itself.collaboration.disconnect("default", sandbox)
        assert refused.value.code == "ROLE_MISSING"
        node = closed.nodes[0]
        node.kill()
        try:
            for call in (operator.collaboration.disconnect("default", sandbox), operator.collaboration.status("default")):
                with pytest.raises(Unavailable) as away:
                    await asyncio.wait_for(call, 30)
                assert (away.value.code, away.value.retryable) == ("BROKER_UNAVAILABLE", True)
                assert away.value.retry_after
        finally:
            await asyncio.to_thread(closed.restart_killed)
        assert len((await operator.collaboration.disconnect("default", sandbox)).revoked_api_keys) == 1
        with pytest.raises(NotAuthenticated):
            await asyncio.wait_for(agent.wait(), 10)
    async with AsyncClient(f"http://127.0.0.1:{free_ports(1)[0]}", attempts=2) as nowhere:
        with pytest.raises(Unreachable) as unsent:
            await nowhere.collaboration.disconnect("default", sandbox)
    assert isinstance(unsent.value, ApiError)
    assert (unsent.value.code, unsent.value.retryable) == ("UNREACHABLE", True)
