from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from aintandem_agent_sdk import Delivery, LeaseLost, Message, build
from aintandem_agent_sdk.handlers import Handlers
from aintandem_agent_sdk.work import Work


class FakeDelivery:
    """Of the message with sequence 1; `fails` is how the ack ends, and `gate` what it waits for."""

    def __init__(self, *, fails: bool = False, gate: asyncio.Event | None = None, message_id: str = "m1", seconds: int = 0) -> None:
        wire = build("a", "b", 1, message_id=message_id)
        wire.sequence = 1
        wire.server_time.FromSeconds(seconds)
        self.message = Message(wire)
        self.fails = fails
        self.gate = gate
        self.said: list[str] = []

    async def ack(self) -> None:
        self.said.append("ack")
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise LeaseLost("gone")

    async def nack(self, reason: str, **_: Any) -> None:
        self.said.append(f"nack {reason}")


class Stage:
    def __init__(self, handler: Any) -> None:
        handlers = Handlers()
        handlers.set("message", handler)

        async def respond(message: Message, content: Any) -> None:
            raise AssertionError("nobody asked")

        self.work = Work(handlers, respond, timeout=None)
        self.slots = 0

    def begin(self, delivery: FakeDelivery) -> None:
        self.slots += 1
        self.work.begin(cast("Delivery", delivery), self._free)

    def _free(self) -> None:
        self.slots -= 1

    async def settle(self) -> None:
        while len(self.work):
            await asyncio.sleep(0)
        assert self.slots == 0, "every slot was given back"


async def test_a_message_that_comes_again_while_it_is_handled_is_acknowledged_under_its_new_delivery() -> None:
    go, runs = asyncio.Event(), []

    async def handler(message: Message) -> None:
        runs.append(message.id)
        await go.wait()

    stage = Stage(handler)
    first, second = FakeDelivery(), FakeDelivery()
    stage.begin(first)
    await asyncio.sleep(0)
    stage.begin(second)
    go.set()
    await stage.settle()
    assert (runs, first.said, second.said) == (["m1"], [], ["ack"])


async def test_a_message_that_comes_again_while_its_ack_is_on_the_way_is_not_forgotten() -> None:
    gate, runs = asyncio.Event(), []
    stage = Stage(lambda message: runs.append(message.id))
    first, second = FakeDelivery(fails=True, gate=gate), FakeDelivery()
    stage.begin(first)
    while not first.said:
        await asyncio.sleep(0.001)
    stage.begin(second)
    gate.set()
    await stage.settle()
    assert (runs, first.said, second.said) == (["m1"], ["ack"], ["ack"])


async def test_work_whose_ack_was_lost_is_not_done_again_and_a_replay_is() -> None:
    runs: list[str] = []
    stage = Stage(lambda message: runs.append(message.id))
    lost, again, replayed = FakeDelivery(fails=True), FakeDelivery(), FakeDelivery()
    for delivery in (lost, again, replayed):
        stage.begin(delivery)
        await stage.settle()
    assert [delivery.said for delivery in (lost, again, replayed)] == [["ack"]] * 3
    assert len(runs) == 2, "the second delivery only repeats the verdict; after that has counted the message is a new one"


# A broker that was restored gives sequences again; the second pair of messages had no id of its own.
@pytest.mark.parametrize("ids", [("m1", "m2"), ("seq-1", "seq-1")])
async def test_another_message_with_the_sequence_of_one_that_is_done_is_handled(ids: tuple[str, str]) -> None:
    runs: list[str] = []
    stage = Stage(lambda message: runs.append(message.id))
    first, second = FakeDelivery(fails=True, message_id=ids[0], seconds=1), FakeDelivery(message_id=ids[1], seconds=2)
    for delivery in (first, second):
        stage.begin(delivery)
        await stage.settle()
    assert (runs, second.said) == ([*ids], ["ack"])


async def test_another_message_with_the_sequence_of_one_that_is_handled_does_not_wait_for_it() -> None:
    go, runs = asyncio.Event(), []

    async def handler(message: Message) -> None:
        runs.append(message.id)
        await go.wait()

    stage = Stage(handler)
    first, second = FakeDelivery(), FakeDelivery(message_id="m2")
    for delivery in (first, second):
        stage.begin(delivery)
    go.set()
    await stage.settle()
    assert (runs, first.said, second.said) == (["m1", "m2"], ["ack"], ["ack"])


async def test_work_that_failed_is_tried_again() -> None:
    runs: list[int] = []

    async def handler(message: Message) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("busy")

    stage = Stage(handler)
    first, second = FakeDelivery(), FakeDelivery()
    stage.begin(first)
    await stage.settle()
    stage.begin(second)
    await stage.settle()
    assert (first.said, second.said) == (["nack ValueError: busy"], ["ack"])
