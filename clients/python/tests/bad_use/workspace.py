"""Agents of a test, and what is waited for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aintandem_agent_sdk import (
    Client,
    ContainerAgent,
    RetryPolicy,
)
from tests.brokers import Broker

QUICK = {"retry": RetryPolicy(5, 0.05, 0.1)}


def agent_of(one: Broker, client: Client, name: str = "worker", **config: Any) -> ContainerAgent:
    return ContainerAgent(name, one.urls, {"name": name}, {"workspace_id": client.workspace_id, **QUICK, **config})


async def until(condition: Any, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def is_empty(client: Client, sandbox_id: str = "worker") -> bool:
    found = await client.registry.get(sandbox_id)
    return found.pending == 0


async def has_dead_letters(client: Client, count: int) -> bool:
    return len([one async for one in client.dead_letters.list("worker")]) == count
