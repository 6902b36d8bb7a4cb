"""The workspace of a test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from aintandem_agent_sdk import (
    Client,
)
from tests.brokers import Broker


@pytest.fixture
async def client(one: Broker) -> AsyncIterator[Client]:
    """A workspace of its own, with the sandbox `tester` in it."""
    async with Client(one.urls, workspace_id=f"bad-{secrets.token_hex(6)}") as found:
        await found.create_workspace()
        await found.registry.register("tester")
        yield found
        await found.delete_workspace()
