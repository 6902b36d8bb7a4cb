"""Every scenario of clients/conformance, against one node and against three with the leader killed in the middle."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml

from aintandem_agent_sdk import TandemError
from tests.brokers import Broker
from tests.conformance.expectations import difference
from tests.conformance.verbs import Stage
from tests.proxy import Proxy

_FOLDER = Path(__file__).parents[3] / "conformance"
_BESIDE = {"expect", "error", "save", "client"}
SCENARIOS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.yaml"))}
_WANTED = {"publish", "subscribe", "ack", "nack", "retry", "dead_letter", "request_response", "broadcast", "topics", "discover"} | {
    *("resume", "failover", "full_inbox", "policy_refusal", "approval", "expired_token")
}


def test_all_scenarios_are_there() -> None:
    assert set(SCENARIOS) >= _WANTED
    assert all(scenario["name"] == stem and scenario["about"] and scenario["steps"] for stem, scenario in SCENARIOS.items())


@pytest.mark.parametrize("name", SCENARIOS)
async def test_one_node(name: str, request: pytest.FixtureRequest) -> None:
    needs = SCENARIOS[name].get("needs", [])
    if "cluster" in needs:
        pytest.skip("needs three nodes")
    broker: Broker = request.getfixturevalue("closed" if "tokens" in needs else "one")
    await _play(SCENARIOS[name], broker)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_three_nodes(name: str, request: pytest.FixtureRequest) -> None:
    broker: Broker = request.getfixturevalue("closed_three" if "tokens" in SCENARIOS[name].get("needs", []) else "three")
    try:
        await _play(SCENARIOS[name], broker)
    finally:
        await asyncio.to_thread(broker.restart_killed)


async def _play(scenario: dict[str, Any], broker: Broker) -> None:
    proxies = [Proxy(url) for url in broker.urls] if "cut" in scenario.get("needs", []) else []
    for proxy in proxies:
        await proxy.start()
    stage = Stage(broker, f"conf-{scenario['name']}-{secrets.token_hex(6)}", proxies)
    try:
        await stage.client.create_workspace()
        await asyncio.wait_for(_steps(stage, scenario), scenario.get("timeout_s", 60))
        await stage.clients["main"].delete_workspace()
    finally:
        await stage.close()
        for proxy in proxies:
            await proxy.stop()


async def _steps(stage: Stage, scenario: dict[str, Any]) -> None:
    kept: dict[str, Any] = {}
    for number, step in enumerate(scenario["steps"], 1):
        await _step(stage, f"step {number} of {scenario['name']}", step, kept)


async def _step(stage: Stage, what: str, step: dict[str, Any], kept: dict[str, Any]) -> None:
    (verb, arguments), *more = [(key, value) for key, value in step.items() if key not in _BESIDE]
    assert not more, f"{what} has two verbs"
    stage.client = stage.clients[step.get("client", "main")]
    step, arguments = _filled(step, kept), _filled(arguments, kept)
    try:
        found = await stage.verb(verb)(arguments, step)
    except TandemError as error:
        wanted = step.get("error")
        assert wanted is not None, f"{what} ({verb}): {error!r}"
        wanted = {"code": wanted} if isinstance(wanted, str) else wanted
        seen = {"code": error.code, "retryable": error.retryable, "retry_after": error.retry_after is not None}
        assert not difference(wanted, seen), f"{what} ({verb}): {difference(wanted, seen)}: {error}"
        return
    assert "error" not in step, f"{what} ({verb}): no error, expected {step['error']}; got {found}"
    assert not (said := difference(step.get("expect", {}), found)), f"{what} ({verb}): {said}"
    kept.update({name: found[key] for name, key in step.get("save", {}).items()})


def _filled(value: Any, kept: dict[str, Any]) -> Any:
    """With what was kept in the place of `$name`."""
    if isinstance(value, str) and value.startswith("$"):
        return kept[value[1:]]
    if isinstance(value, dict):
        return {key: _filled(inner, kept) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, kept) for inner in value]
    return value
