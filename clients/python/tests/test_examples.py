"""The examples, run as they are."""

from __future__ import annotations

import asyncio
import secrets

from aintandem_agent_sdk import Client
from examples import coordinator_and_workers, human_approval, incident_investigation, swarm_vote, two_agents
from tests.brokers import Broker


async def _workspace(one: Broker) -> str:
    async with Client(one.urls, workspace_id=f"example-{secrets.token_hex(6)}") as client:
        await client.create_workspace()
        return client.workspace_id


async def test_two_agents(one: Broker) -> None:
    said = await asyncio.wait_for(two_agents.main(one.urls[0], await _workspace(one)), 30)
    assert said == ["alice asks: fix the build", "bob answers: looks good", "bob tells: I am going home"]


async def test_coordinator_and_workers(one: Broker) -> None:
    squares, by = await asyncio.wait_for(coordinator_and_workers.main(one.urls[0], await _workspace(one)), 60)
    assert squares == [number * number for number in range(1, coordinator_and_workers.TASKS + 1)]
    assert sum(by.values()) == coordinator_and_workers.TASKS


async def test_swarm_vote(one: Broker) -> None:
    decision, counted = await asyncio.wait_for(swarm_vote.main(one.urls[0], await _workspace(one)), 30)
    assert (decision, dict(counted)) == ("release", {"release": 3, "wait": 2})


async def test_human_approval(one: Broker) -> None:
    paid, ended = await asyncio.wait_for(human_approval.main(one.urls[0], one.rest), 30)
    assert (paid, ended) == ([20], ["APPROVAL_DENIED", "APPROVED"])


async def test_incident_investigation(one: Broker) -> None:
    report, told = await asyncio.wait_for(incident_investigation.main(one.urls[0], await _workspace(one)), 60)
    assert report["specialists"] == 4
    assert report["cause"] == "version 41 of the shop was deployed at 12:02"
    assert report["findings"][-1]["finding"] == "no answer (NO_CAPABLE_SANDBOX)"
    assert len(told) == 4
