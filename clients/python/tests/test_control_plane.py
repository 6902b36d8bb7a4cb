"""The control plane's client against a real control plane, and against one that is played where a real one is never so unlucky."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from aintandem import ApiError, AsyncClient, Client, Conflict, InvalidRequest, NotFound, Unavailable, Unreachable
from aintandem.models import AgentConfig, Resources, SandboxAgent
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


def _says(document: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(204) if document is None else httpx.Response(200, json=document)


def _breaks(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset", request=request)


_AT = "2026-11-22T10:00:00.123Z"
_SANDBOX = {
    "id": "s/1",
    "workspace_id": "w",
    "name": "team",
    "description": "",
    "agent_config": {"primary_agent": {"name": "a", "role": "lead", "capabilities": ["review"], "config": {"depth": 2}}},
    "resources": {"memory_mb": 512, "cpu_cores": 0.5, "pids": 256, "disk_mb": 1024, "tmp_mb": 64},
    "mcp_servers": ["files"],
    "environment": {"LEVEL": "info"},
    "labels": {},
    "image": "i",
    "restart_policy": {"condition": "on_failure"},
    "wake_on_message": False,
    "state": "running",
    "connection": {"broker": ["http://b:1"], "workspace_id": "w", "sandbox_id": "team", "websocket": "/ws/sandboxes/team?workspace_id=w"},
    "revision": 3,
    "create_time": _AT,
    "update_time": _AT,
    "new_in_a_later_version": 1,
}
_STATUS = {"id": "s/1", "state": "stopped", "stop_time": _AT, "stopped_because": "idle", "restarts": 1, "out_of_memory_kills": 0}
_STATS = {"cpu_seconds": 1.5, "memory_bytes": 1, "memory_limit_bytes": 2, "pids": 3, "received_bytes": 4, "sent_bytes": 5}
_LINE = {"time": "2026-11-22T10:00:00.123456789Z", "stream": "stderr", "text": "one"}
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
    executed = {"exit_code": 0, "stdout": "x", "stderr": "", "truncated": False}
    answers = [
        *(_SANDBOX, _SANDBOX, {"sandboxes": [_SANDBOX], "next_cursor": "c"}, _SANDBOX, _STATUS, _STATS, {"lines": [_LINE]}),
        *(_SANDBOX, _SANDBOX, _SANDBOX, executed, _SANDBOX, None),
    ]
    transport, seen = _played([_says(answer) for answer in answers])
    with httpx.Client(transport=transport) as http, Client("http://x", token="secret", http=http) as client:
        team = AgentConfig(primary_agent=SandboxAgent(name="a", role="lead"))
        made = client.sandboxes.create("w", "team", agent_config=team, resources=Resources(memory_mb=512), image="i")
        assert (made.id, made.state, made.model_extra) == ("s/1", "running", {"new_in_a_later_version": 1})
        lead = made.agent_config.primary_agent
        assert lead is not None
        assert (lead.capabilities, lead.config, made.resources.cpu_cores, made.handler) == (["review"], {"depth": 2}, 0.5, None)
        assert (made.restart_policy.condition, made.connection.sandbox_id, made.revision) == ("on_failure", "team", 3)
        client.sandboxes.get("s/1")
        found = client.sandboxes.list(workspace_id="w", state="running")
        assert (found.items[0].name, found.next_cursor) == ("team", "c")
        made.agent_config.sub_agents.append(SandboxAgent(name="b"))
        client.sandboxes.update("s/1", agent_config=made.agent_config, resources={"memory_mb": 64}, image=None, if_revision=3)
        assert client.sandboxes.get_status("s/1").stopped_because == "idle"
        assert client.sandboxes.get_stats("s/1").cpu_seconds == 1.5
        printed = client.sandboxes.get_logs("s/1", tail=5, since=datetime(2026, 11, 22, tzinfo=timezone.utc))
        assert [(one.text, one.stream, one.time is not None) for one in printed] == [("one", "stderr", True)]
        client.sandboxes.start("s/1")
        client.sandboxes.stop("s/1")
        client.sandboxes.restart("s/1")
        assert client.sandboxes.exec("s/1", ["ls", "-l"], timeout_seconds=5).exit_code == 0
        assert client.sandboxes.delete("s/1", if_revision=3) is not None
        assert client.sandboxes.delete("s/1") is None
    at = [f"{request.method} {request.url.raw_path.decode()}" for request in seen]
    base = "/api/v1/sandboxes/s%2F1"
    assert at == [
        *(
            "POST /api/v1/sandboxes",
            f"GET {base}",
            "GET /api/v1/sandboxes?workspace_id=w&state=running",
            f"PATCH {base}",
            f"GET {base}/status",
        ),
        *(
            f"GET {base}/stats",
            f"GET {base}/logs?tail=5&since=2026-11-22T00%3A00%3A00%2B00%3A00",
            f"POST {base}/start",
            f"POST {base}/stop",
            f"POST {base}/restart",
        ),
        *(f"POST {base}/exec", f"DELETE {base}", f"DELETE {base}"),
    ]
    assert json.loads(seen[0].content) == {
        "workspace_id": "w",
        "name": "team",
        "image": "i",
        "resources": {"memory_mb": 512},
        "agent_config": {"primary_agent": {"name": "a", "role": "lead"}},
    }
    changed = json.loads(seen[3].content)
    assert (changed["image"], changed["resources"], changed["agent_config"]["sub_agents"]) == (None, {"memory_mb": 64}, [{"name": "b"}])
    assert json.loads(seen[10].content) == {"command": ["ls", "-l"], "timeout_seconds": 5}
    assert [request.headers.get("If-Match") for request in seen] == [*[None] * 3, '"3"', *[None] * 7, '"3"', None]
    assert all(request.headers["Authorization"] == "Bearer secret" for request in seen)


_WORKSPACE = {"name": "n", "state": "active", "settings": {}, "revision": 1, "create_time": _AT, "update_time": _AT}


def _listing(request: httpx.Request) -> httpx.Response:
    """Two pages of workspaces: the second one is what follows `c/2`."""
    number = 2 if request.url.params.get("cursor") else 1
    more = {"next_cursor": "c/2"} if number == 1 else {}
    return httpx.Response(200, json={"workspaces": [{**_WORKSPACE, "id": f"w{number}"}], **more})


def test_all_pages_of_sandboxes_are_read() -> None:
    transport, seen = _played([_says({"sandboxes": [_SANDBOX], "next_cursor": "c"}), _says({"sandboxes": [_SANDBOX]})])
    with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
        assert [one.id for one in client.sandboxes.iter_all(workspace_id="w", state="running")] == ["s/1", "s/1"]
    assert [request.url.params.get("cursor") for request in seen] == [None, "c"]


async def test_all_pages_are_read() -> None:
    transport, seen = _played([_listing])
    with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
        assert [one.id for one in client.workspaces.iter_all(sort="name")] == ["w1", "w2"]
        page = client.workspaces.list(limit=1)
        assert ([one.id for one in page], page.next_cursor, page.truncated) == (["w1"], "c/2", False)
    async with httpx.AsyncClient(transport=transport) as other, AsyncClient("http://x", http=other) as asynchronous:
        assert [one.id async for one in asynchronous.workspaces.iter_all()] == ["w1", "w2"]
    first, second = [dict(request.url.params) for request in seen[:2]]
    assert first == {"limit": "100", "sort": "name"}
    assert second == {**first, "cursor": "c/2"}


def test_what_leads_to_the_next_page_is_called_otherwise() -> None:
    record = {"number": 1, "shard": 0, "kind": "k", "time": _AT, "by": "b", "about": "", "hash": "h"}
    answers = [
        {"events": [], "next_event": 7},
        {"records": [record], "next_record": 9},
        {"records": []},
        {"approvals": [], "truncated": True},
    ]
    transport, _ = _played([_says(answer) for answer in answers])
    with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
        assert client.events.list("w").next_cursor == "7"
        assert client.audit.list("w").next_cursor == "9"
        assert client.audit.list("w").next_cursor is None
        assert client.approvals.list("w").truncated


def test_followed_logs_are_lines() -> None:
    lines = "".join(f"event: line\ndata: {json.dumps({**_LINE, 'text': text})}\n\n: still there\n\n" for text in ("one", "two"))
    problem = 'event: problem\ndata: {"code": "DOCKER_UNAVAILABLE", "detail": "it is gone"}\n\n'
    transport, seen = _played([lambda _: httpx.Response(200, text=lines), lambda _: httpx.Response(200, text=lines + problem)])
    with httpx.Client(transport=transport) as http, Client("http://x", http=http) as client:
        assert [(line.text, line.stream) for line in client.sandboxes.follow_logs("s")] == [("one", "stderr"), ("two", "stderr")]
        with pytest.raises(ApiError) as broken:
            list(client.sandboxes.follow_logs("s", tail=1))
    assert (broken.value.code, broken.value.text) == ("DOCKER_UNAVAILABLE", "it is gone")
    assert seen[1].url.query == b"tail=1&follow=true"


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
