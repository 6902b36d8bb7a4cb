"""The control plane's client against a real control plane, and against one that is played where a real one is never so unlucky."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from aintandem import ApiError, AsyncClient, Client, Conflict, InvalidRequest, NotFound, Unavailable, Unreachable
from aintandem_agent_sdk import Client as Broker
from tests.brokers import Broker as Process


def _new_id() -> str:
    return f"w-{secrets.token_hex(6)}"


def test_a_workspace_lives_and_ends(one: Process) -> None:
    workspace = _new_id()
    with Client(one.rest) as client:
        made = client.workspaces.create(f"The shop {workspace}", id=workspace, settings={"max_sandboxes": 20})
        assert (made.id, made.settings.max_sandboxes) == (workspace, 20)
        with pytest.raises(Conflict) as taken:
            client.workspaces.create(f"Another {workspace}", id=workspace)
        assert taken.value.code == "WORKSPACE_EXISTS"
        assert taken.value.request_id
        changed = client.workspaces.update(workspace, description="new", if_revision=client.workspaces.get(workspace).revision)
        assert changed.description == "new"
        with pytest.raises(Conflict) as late:
            client.workspaces.update(workspace, description="newer", if_revision=0)
        assert late.value.code == "REVISION_CHANGED"
        assert workspace in [found.id for found in client.workspaces.iter_all(name_prefix="The shop")]
        client.workspaces.delete(workspace, force=True)
        with pytest.raises(NotFound) as gone:
            client.workspaces.get(workspace)
        assert gone.value.code == "UNKNOWN_WORKSPACE"


async def test_messages_go_through_and_what_is_wrong_is_named(one: Process) -> None:
    async with AsyncClient(one.rest) as client:
        workspace = (await client.workspaces.create(_new_id(), id=_new_id())).id
        async with Broker(one.urls, workspace_id=workspace) as broker:
            await broker.registry.register("alice")
            await broker.registry.register("bob")
        sent = await client.messages.send(workspace, "alice", "bob", {"q": 1}, type="request", message_id="m1", priority=9)
        assert (sent.message_id, sent.sequence > 0, sent.duplicate) == ("m1", True, False)
        assert (await client.messages.get(workspace, "m1")).content == {"q": 1}
        await client.messages.broadcast(workspace, "alice", "noon")
        assert [message.content async for message in client.messages.iter_all(workspace)] == [{"q": 1}, "noon"]
        with pytest.raises(InvalidRequest) as wrong:
            await client.messages.send(workspace, "alice", "bob", 1, priority=77)
        assert wrong.value.code == "INVALID_FIELD"
        assert wrong.value.fields
        assert not wrong.value.retryable
        assert len(await client.agents.discover(workspace)) == 0
        assert len(await client.dead_letters.list(workspace)) == 0
        assert (await client.dead_letters.redrive(workspace)).redriven == 0
        assert (await client.audit.list(workspace)).items


async def test_policies_and_approvals(one: Process) -> None:
    async with AsyncClient(one.rest) as client:
        workspace = (await client.workspaces.create(_new_id(), id=_new_id())).id
        async with Broker(one.urls, workspace_id=workspace) as broker:
            await broker.registry.register("alice")
            await broker.registry.register("bob")
        rules = {"policy": "deny_list", "rules": [{"from": "alice", "to": "bob", "approval_required": True}]}
        policy = await client.policies.set(workspace, rules)
        assert (await client.policies.get(workspace)).policy == rules
        with pytest.raises(Conflict):
            await client.policies.set(workspace, rules, if_revision=policy.revision + 5)
        held = await client.messages.send(workspace, "alice", "bob", "please")
        assert held.approval_id
        waiting = (await client.approvals.list(workspace, state="waiting")).items
        assert [one.id for one in waiting] == [held.approval_id]
        assert (await client.approvals.approve(workspace, held.approval_id, "fine")).state == "approved"
        with pytest.raises(ApiError) as ended:
            await client.approvals.deny(workspace, held.approval_id)
        assert ended.value.code == "APPROVAL_ENDED"
        await client.policies.delete(workspace)


async def test_events_are_followed(one: Process) -> None:
    async with AsyncClient(one.rest) as client, Broker(one.urls, workspace_id=_new_id()) as broker:
        await broker.create_workspace()
        await broker.registry.register("early")

        async def first_two() -> list[str]:
            seen: list[str] = []
            async for event in client.events.follow(broker.workspace_id, from_event=1):
                seen.append(event.sandbox_id)
                if len(seen) == 2:
                    break
            return seen

        task = asyncio.create_task(first_two())
        await asyncio.sleep(0.3)
        await broker.registry.register("late")
        assert await asyncio.wait_for(task, 10) == ["early", "late"]


def _played(answers: list[Callable[[httpx.Request], httpx.Response]]) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def play(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answers[min(len(seen), len(answers)) - 1](request)

    return httpx.MockTransport(play), seen


def _problem(status: int, code: str, **more: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, json={"code": code, "detail": "text", "title": "t", **more}, headers={"X-Request-Id": "r1"})


def _breaks(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset", request=request)


_ACCEPTED = {"message_id": "m", "sequence": 1, "server_time": "2026-01-01T00:00:00Z", "duplicate": False}


def test_a_post_that_broke_is_sent_again_under_its_key() -> None:
    transport, seen = _played(
        [_breaks, _problem(503, "BROKER_UNAVAILABLE", retry_after_ms=10), lambda _: httpx.Response(201, json=_ACCEPTED)]
    )
    with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
        assert client.messages.send("w", "a", "b", 1).sequence == 1
    keys = {request.headers["Idempotency-Key"] for request in seen}
    assert (len(seen), len(keys)) == (3, 1)


def test_what_must_not_be_done_twice_is_not_sent_again() -> None:
    calls: list[Callable[[Client], object]] = [
        lambda client: client.api_keys.create("ci", ["developer"]),
        lambda client: client.sandboxes.exec("s", ["true"]),
    ]
    for call in calls:
        transport, seen = _played([_breaks])
        with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
            with pytest.raises(Unreachable) as lost:
                call(client)
        assert (len(seen), lost.value.code, lost.value.retryable) == (1, "CONNECTION_LOST", False)
        assert "Idempotency-Key" not in seen[0].headers


def test_a_refusal_is_not_sent_again_and_a_long_wait_is_the_callers() -> None:
    for status, code, more in ((404, "UNKNOWN_WORKSPACE", {}), (429, "TOO_MANY_REQUESTS", {"retry_after_ms": 60_000})):
        transport, seen = _played([_problem(status, code, **more)])
        with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
            with pytest.raises(ApiError) as refused:
                client.workspaces.get("w")
        assert (len(seen), refused.value.code, refused.value.request_id) == (1, code, "r1")


def test_what_is_no_problem_document_is_told_by_its_status() -> None:
    transport, seen = _played([lambda _: httpx.Response(503, text="<html>proxy</html>")])
    with httpx.Client(transport=transport) as http, Client("http://x", http=http, attempts=2) as client:
        with pytest.raises(Unavailable) as refused:
            client.workspaces.get("w")
    assert (refused.value.code, len(seen)) == ("HTTP_503", 2)


def test_the_paths_of_sandboxes() -> None:
    sandbox = {"id": "s/1", "workspace_id": "w", "name": "team", "state": "running"}
    transport, seen = _played([lambda request: httpx.Response(200, json={**sandbox, "sandboxes": [sandbox], "exit_code": 0})])
    with httpx.Client(transport=transport) as http, Client("http://x", token="secret", http=http) as client:
        made = client.sandboxes.create(
            "w", "team", agent_config={"primary_agent": {"name": "a"}}, resources={"memory_mb": 512}, image="i"
        )
        assert (made.id, made.model_extra) == ("s/1", {"state": "running", "sandboxes": [sandbox], "exit_code": 0})
        client.sandboxes.get("s/1")
        assert client.sandboxes.list(workspace_id="w").items[0].name == "team"
        client.sandboxes.update("s/1", name="other")
        client.sandboxes.get_status("s/1")
        client.sandboxes.get_stats("s/1")
        client.sandboxes.get_logs("s/1", tail=5)
        client.sandboxes.start("s/1")
        client.sandboxes.stop("s/1")
        client.sandboxes.restart("s/1")
        assert client.sandboxes.exec("s/1", ["ls", "-l"]).exit_code == 0
        client.sandboxes.delete("s/1")
    at = [f"{request.method} {request.url.raw_path.decode()}" for request in seen]
    base = "/api/v1/sandboxes/s%2F1"
    assert at == [
        *("POST /api/v1/sandboxes", f"GET {base}", "GET /api/v1/sandboxes?workspace_id=w", f"PATCH {base}", f"GET {base}/status"),
        *(f"GET {base}/stats", f"GET {base}/logs?tail=5", f"POST {base}/start", f"POST {base}/stop", f"POST {base}/restart"),
        *(f"POST {base}/exec", f"DELETE {base}"),
    ]
    assert json.loads(seen[0].content)["resources"] == {"memory_mb": 512}
    assert all(request.headers["Authorization"] == "Bearer secret" for request in seen)


def test_followed_logs_are_lines() -> None:
    stream = 'data: {"line": "one", "stream": "stderr"}\n\n: still there\n\ndata: two\n\n'
    transport, _ = _played([lambda _: httpx.Response(200, text=stream, headers={"Content-Type": "text/event-stream"})])
    with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
        lines = list(client.sandboxes.follow_logs("s"))
    assert [(line.text, line.stream) for line in lines] == [("one", "stderr"), ("two", "stdout")]


def test_a_wrong_address_is_told(tmp_path: Path) -> None:
    for url in ("", "localhost:8000", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="no address"):
            Client(url)
    with Client("http://127.0.0.1:9", attempts=1) as client, pytest.raises(Unreachable) as lost:
        client.workspaces.list()
    assert (lost.value.code, lost.value.retryable) == ("UNREACHABLE", True)
    with Client("http://127.0.0.1:9", token_file=tmp_path / "absent") as client, pytest.raises(FileNotFoundError):
        client.workspaces.list()


def test_a_client_serves_several_threads(one: Process) -> None:
    with Client(one.rest) as client:
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(len(client.workspaces.list(limit=1)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [1] * 8
