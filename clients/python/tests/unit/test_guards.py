"""Bugs of the SDK itself end with an error for whoever waits, and never with a hang."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aintandem_agent_sdk import Client, TandemError, build
from aintandem_agent_sdk.publisher import Publisher


async def test_a_publisher_that_fails_inside_tells_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(self: Publisher) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(Publisher, "_stream", breaks)
    async with Client() as client:
        publisher = Publisher(client._caller, "w")
        receipt = await publisher.send(build("a", "b", 1))
        with pytest.raises(TandemError) as failed:
            await asyncio.wait_for(receipt, 5)
        assert failed.value.code == "CONTRACT_BROKEN"
        with pytest.raises(TandemError):
            await publisher.send(build("a", "b", 1))
        await asyncio.wait_for(publisher.close(), 5)


async def test_a_subscription_that_fails_inside_tells_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Client() as client:
        inbox = client.subscription("s")

        async def breaks(*_: Any) -> None:
            raise KeyError("bug")

        monkeypatch.setattr(inbox, "_once", breaks)
        with pytest.raises(TandemError) as failed:
            await asyncio.wait_for(inbox.open(), 5)
        assert failed.value.code == "CONTRACT_BROKEN"
        with pytest.raises(TandemError):
            await asyncio.wait_for(inbox.next(), 5)
        await inbox.close()
