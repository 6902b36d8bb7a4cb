"""W3C trace context, with OpenTelemetry and without."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from opentelemetry import trace

from aintandem_agent_sdk import Client, ContainerAgent, Message, build, tracing
from tests.brokers import Broker

_TRACE = "0af7651916cd43dd8448eb211c80319c"
_PARENT = f"00-{_TRACE}-b7ad6b7169203331-01"


def test_the_current_span_goes_out() -> None:
    assert build("a", "b", 1).traceparent == ""
    context = trace.SpanContext(int(_TRACE, 16), 0xB7AD6B7169203331, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert build("a", "b", 1).traceparent == _PARENT
        assert build("a", "b", 1, traceparent="").traceparent == ""


def test_without_opentelemetry_the_trace_of_the_message_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_is_installed", False)
    with tracing.handling(_PARENT, "handle request"):
        assert build("a", "b", 1).traceparent == _PARENT
    assert build("a", "b", 1).traceparent == ""


async def test_a_trace_goes_through_an_agent_and_back(one: Broker) -> None:
    workspace = f"trace-{secrets.token_hex(6)}"
    agent = ContainerAgent("worker", one.urls, config={"workspace_id": workspace})

    @agent.on_request
    async def answer(message: Message) -> str:
        return message.wire.traceparent

    async with Client(one.urls, workspace_id=workspace) as client:
        await client.create_workspace()
        await client.registry.register("tester")
        async with agent:
            asked = build("tester", "worker", 1, type="request", traceparent=_PARENT)
            response = await asyncio.wait_for(client.request(asked, 10), 20)
        await client.delete_workspace()
    assert response.content == _PARENT
    assert response.wire.traceparent.split("-")[1] == _TRACE
