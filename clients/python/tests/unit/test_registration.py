from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import grpc
import pytest

from aintandem_agent_sdk import Agent, AgentConfig, Client, ConnectionLost, NotAuthenticated, NotFound, TandemError
from aintandem_agent_sdk.calls import Caller
from aintandem_agent_sdk.registration import Registration
from aintandem_agent_sdk.settings import Settings

_GONE = NotFound("gone", code="UNKNOWN_SANDBOX", status=grpc.StatusCode.NOT_FOUND)
_REVOKED = NotAuthenticated("revoked", code="KEY_REVOKED", status=grpc.StatusCode.UNAUTHENTICATED)


class FakeClient:
    """Says how calls end, in their order; what is not said goes well."""

    def __init__(self, *ends: TandemError | None) -> None:
        self.ends = [*ends]
        self.made: list[str] = []
        self._caller = Caller(Settings())
        self.registry = self.topics = self

    async def register(self, sandbox_id: str, **_: Any) -> None:
        self._end("register")

    async def follow(self, sandbox_id: str, pattern: str) -> None:
        self._end(pattern)

    def _end(self, call: str) -> None:
        self.made.append(call)
        if self.ends and (error := self.ends.pop(0)) is not None:
            raise error


class Stage:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.registration = Registration("worker", Agent("worker"), AgentConfig(), clock=lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def again(self, *ends: TandemError | None) -> list[str]:
        client = FakeClient(*ends)
        await self.registration.register_again(cast("Client", client))
        return client.made

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


async def test_it_comes_back_at_once_and_later_and_later_where_it_is_unregistered_again(stage: Stage) -> None:
    for _ in range(14):
        await stage.again()
    assert stage.pauses[0] == 0.0
    wanted = [min(0.02 * 2.0**times, 10.0) for times in range(13)]
    assert all(low <= pause <= 1.2 * low for pause, low in zip(stage.pauses[1:], wanted, strict=True)), stage.pauses
    stage.now += 60.0
    await stage.again()
    assert stage.pauses[-1] == 0.0


async def test_what_it_follows_comes_back_also_where_that_takes_several_tries(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for pattern in ("a", "b", "c"):
        stage.registration.follows(pattern)
    stage.registration.unfollows("c")
    made = await stage.again(None, ConnectionLost("lost"), None, None, _GONE)
    assert made == ["register", "a", "register", "a", "b", "register", "a", "b"]
    assert [record.getMessage() for record in caplog.records] == ["worker: the sandbox was unregistered; it is registered again"]
    stage.registration.is_unregistered()
    assert await stage.again() == ["register"]


async def test_a_refusal_that_no_retry_helps_against_is_raised(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(NotAuthenticated):
        await stage.again(_REVOKED)
    assert not caplog.records, "it is not back"
