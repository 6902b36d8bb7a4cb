"""What is set up in a workspace, and who takes part in it: alerts, providers, MCP servers and collaboration, of a real control plane."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from typing import get_args

import httpx
import pytest
from pydantic import SecretStr

from aintandem import AsyncClient, Client, Conflict, InvalidRequest, NotFound, models
from aintandem.bodies import plain
from aintandem.models import Condition, ShownSecret, Value, Webhook
from aintandem_agent_sdk import Client as Broker
from tests.brokers import Broker as Process


def _new_id() -> str:
    return f"w-{secrets.token_hex(6)}"


_WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def test_a_rule_fires_and_its_alert_is_acknowledged(one: Process) -> None:
    async with AsyncClient(one.rest) as client, Broker(one.urls, workspace_id=_new_id()) as broker:
        workspace = (await client.workspaces.create(broker.workspace_id, id=broker.workspace_id)).id
        await broker.registry.register("alice")
        told = Webhook(url="http://127.0.0.1:9/hook", secret=SecretStr(_WEBHOOK_SECRET))
        rule = await client.alerts.create_rule(workspace, "gone", Condition(event="disconnected"), severity="critical", webhook=told)
        assert (rule.condition.count, rule.condition.window_seconds, rule.quiet_seconds, rule.enabled) == (1, 60, 300, True)
        assert rule.webhook is not None
        assert (rule.webhook.url, rule.webhook.has_secret, rule.webhook.secret) == (told.url, True, None)
        with pytest.raises(Conflict) as taken:
            await client.alerts.create_rule(workspace, "gone", {"event": "failed"})
        assert taken.value.code == "NAME_TAKEN"
        with pytest.raises(InvalidRequest) as wrong:
            await client.alerts.create_rule(workspace, "other", {"event": "failed", "count": 0})
        assert [one.field for one in wrong.value.fields] == ["condition.count"]

        done = await client.collaboration.disconnect(workspace, "alice", reason="it was time")
        assert (done.sandbox_id, done.revoked_api_keys, done.unregistered) == ("alice", [], False)
        deadline = time.monotonic() + 20
        while not (fired := await client.alerts.list(workspace_id=workspace, rule_id=rule.id, state="open")).items:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        alert = fired.items[0]
        assert (alert.event, alert.sandbox_id, alert.severity, alert.rule_name, alert.count) == (
            "disconnected",
            "alice",
            "critical",
            "gone",
            1,
        )
        assert alert.delivery.state == "waiting"
        seen = await client.alerts.acknowledge(alert.id)
        assert (seen.state, seen.acknowledged_by != "", seen.acknowledge_time is not None) == ("acknowledged", True, True)
        with pytest.raises(Conflict):
            await client.alerts.acknowledge(alert.id, if_revision=seen.revision + 5)
        assert [one.id async for one in client.alerts.iter_all(workspace_id=workspace, state="acknowledged")] == [alert.id]
        with pytest.raises(NotFound) as absent:
            await client.alerts.acknowledge("absent")
        assert absent.value.code == "UNKNOWN_ALERT"


def test_rules_are_changed_in_parts(one: Process) -> None:
    with Client(one.rest) as client:
        workspace = client.workspaces.create(_new_id(), id=_new_id()).id
        told = {"url": "http://127.0.0.1:9/a", "secret": _WEBHOOK_SECRET}
        rule = client.alerts.create_rule(workspace, "r1", Condition(event="failed", sandbox_id="alice", count=3), webhook=told)
        rule = client.alerts.update_rule(rule.id, condition={"sandbox_id": None}, quiet_seconds=0, if_revision=rule.revision)
        assert (rule.condition.sandbox_id, rule.condition.count, rule.quiet_seconds) == (None, 3, 0)
        assert rule.webhook is not None
        rule.webhook.url = "http://127.0.0.1:9/b"
        rule = client.alerts.update_rule(rule.id, webhook=rule.webhook, severity="info", enabled=False)
        assert rule.webhook is not None
        assert (rule.webhook.url, rule.severity, rule.enabled) == ("http://127.0.0.1:9/b", "info", False)
        assert client.alerts.update_rule(rule.id, webhook=None).webhook is None
        with pytest.raises(Conflict) as late:
            client.alerts.update_rule(rule.id, name="r2", if_revision=rule.revision)
        assert late.value.code == "REVISION_CHANGED"
        client.alerts.create_rule(workspace, "other", {"event": "inbox_full"})
        page = client.alerts.list_rules(workspace_id=workspace, limit=1, sort="name")
        rest = client.alerts.list_rules(workspace_id=workspace, limit=1, sort="name", cursor=page.next_cursor)
        assert ([one.name for one in [*page, *rest]], rest.next_cursor) == (["other", "r1"], None)
        assert [one.id for one in client.alerts.iter_rules(workspace_id=workspace, name_prefix="r")] == [rule.id]
        with pytest.raises(Conflict):
            client.alerts.delete_rule(rule.id, if_revision=rule.revision)
        client.alerts.delete_rule(rule.id)
        with pytest.raises(NotFound) as gone:
            client.alerts.get_rule(rule.id)
        assert gone.value.code == "UNKNOWN_ALERT_RULE"


async def test_providers_keep_their_secrets(one: Process) -> None:
    key = "sk-0123456789abcdefwxyz"
    async with AsyncClient(one.rest) as client:
        workspace = (await client.workspaces.create(_new_id(), id=_new_id())).id
        made = await client.llm_providers.create(
            *(workspace, "main", "anthropic"),
            models=["m1", "m2"],
            default_model="m1",
            headers={"X-Team": "a", "X-Pin": SecretStr("1234"), "X-Gone": {"secret": "5678"}},
            api_key=SecretStr(key),
        )
        assert (made.base_url, made.has_api_key, made.api_key_last_four) == ("https://api.anthropic.com", True, "wxyz")
        assert made.headers == {"X-Team": "a", "X-Pin": ShownSecret(has_secret=True), "X-Gone": ShownSecret(has_secret=True)}
        assert key not in made.model_dump_json()
        made = await client.llm_providers.update(
            made.id, headers={**made.headers, "X-Gone": None}, default_model=None, if_revision=made.revision
        )
        assert (sorted(made.headers), made.default_model, made.has_api_key) == (["X-Pin", "X-Team"], "", True)
        assert not (await client.llm_providers.update(made.id, api_key=None)).has_api_key
        with pytest.raises(Conflict) as late:
            await client.llm_providers.update(made.id, api_key=key, if_revision=made.revision)
        assert late.value.code == "REVISION_CHANGED"
        with pytest.raises(InvalidRequest) as wrong:
            await client.llm_providers.create(workspace, "own", "custom")
        assert [one.field for one in wrong.value.fields] == ["base_url"]
        await client.llm_providers.create(workspace, "own", "custom", base_url="http://10.0.0.1/v1")
        assert len(await client.llm_providers.list(workspace_id=workspace, limit=1)) == 1
        assert [one.name async for one in client.llm_providers.iter_all(workspace_id=workspace, sort="-name")] == ["own", "main"]

        await client.workspaces.update(workspace, settings={"default_llm_provider": "main"})
        for refused in (client.llm_providers.delete(made.id), client.llm_providers.update(made.id, name="first")):
            with pytest.raises(Conflict) as default:
                await refused
            assert default.value.code == "LLM_PROVIDER_IS_DEFAULT"
        await client.llm_providers.delete(made.id, unset_default=True)
        assert (await client.workspaces.get(workspace)).settings.default_llm_provider is None
        with pytest.raises(NotFound) as gone:
            await client.llm_providers.get(made.id)
        assert gone.value.code == "UNKNOWN_LLM_PROVIDER"


def test_mcp_servers_change_their_transport(one: Process) -> None:
    with Client(one.rest) as client:
        workspace = client.workspaces.create(_new_id(), id=_new_id()).id
        env: dict[str, Value] = {"TOKEN": SecretStr("0123456789abcdefwxyz"), "LOG": "warn"}
        made = client.mcp_servers.create(workspace, "issues", "stdio", command="mcp-issues", args=["--read-only"], env=env)
        assert (made.command, made.args, made.env["LOG"], made.url) == ("mcp-issues", ["--read-only"], "warn", "")
        assert made.env["TOKEN"] == ShownSecret(has_secret=True, last_four="wxyz")
        made = client.mcp_servers.update(made.id, args=None, env={"LOG": None, "TOKEN": made.env["TOKEN"]}, if_revision=made.revision)
        assert (made.args, list(made.env)) == ([], ["TOKEN"])
        with pytest.raises(InvalidRequest) as wrong:
            client.mcp_servers.update(made.id, transport="http", command="x", url="https://mcp.example/")
        assert [one.field for one in wrong.value.fields] == ["command"]
        made = client.mcp_servers.update(made.id, transport="http", url="https://mcp.example/", headers={"X-Team": "a"})
        assert (made.transport, made.command, made.env, made.headers) == ("http", "", {}, {"X-Team": "a"})
        assert [one.id for one in client.mcp_servers.list(workspace_id=workspace)] == [made.id]
        assert [one.id for one in client.mcp_servers.iter_all(workspace_id=workspace, name_prefix="iss")] == [made.id]
        with pytest.raises(Conflict):
            client.mcp_servers.delete(made.id, if_revision=made.revision + 1)
        client.mcp_servers.delete(made.id, if_revision=made.revision)
        with pytest.raises(NotFound) as gone:
            client.mcp_servers.get(made.id)
        assert gone.value.code == "UNKNOWN_MCP_SERVER"


async def test_who_takes_part_and_who_no_longer_does(one: Process) -> None:
    async with AsyncClient(one.rest) as client, Broker(one.urls, workspace_id=_new_id()) as broker:
        workspace = (await client.workspaces.create(broker.workspace_id, id=broker.workspace_id)).id
        await broker.registry.register("alice")
        await broker.registry.register("bob")
        await client.messages.send(workspace, "alice", "bob", "waits")
        status = await client.collaboration.status(workspace)
        assert (status.sandboxes, status.online + status.offline, status.pending_messages, status.last_sequence) == (2, 2, 1, 1)
        found = {one.sandbox_id: one for one in await client.collaboration.sandboxes(workspace)}
        assert (found["bob"].pending_messages, found["bob"].pending_bytes > 0, found["alice"].dead_letters) == (1, True, 0)
        page = await client.collaboration.sandboxes(workspace, limit=1)
        assert (len(page), page.truncated) == (1, True)
        online = [one.online for one in await client.collaboration.sandboxes(workspace, online=True)]
        assert online == [True] * status.online
        done = await client.collaboration.disconnect(workspace, "bob", unregister=True)
        assert (done.revoked_api_keys, done.unregistered, done.abandoned_messages) == ([], True, 1)
        with pytest.raises(NotFound) as gone:
            await client.collaboration.disconnect(workspace, "bob")
        assert gone.value.code == "UNKNOWN_SANDBOX"


_OTHERWISE_CALLED = {
    "ApiKey": "ShownKey",
    "Approval": "ShownApproval",
    "AuditRecord": "ShownRecord",
    "CollaborationStatus": "Status",
    "ConnectedAgent": "AgentName",
    "DeadLetter": "ShownDeadLetter",
    "Disconnected": "DisconnectedSandbox",
    "Event": "ShownEvent",
    "LogLine": "ShownLine",
    "Message": "ShownMessage",
    "NewApiKey": "NewKeyMade",
    "Policy": "ShownPolicy",
    "Webhook": "ShownWebhook",
}


def test_models_and_calls_say_what_the_control_plane_says(one: Process) -> None:
    with Client(one.rest) as client:
        client.workspaces.list()  # It serves.
        schemas = httpx.get(f"{one.rest}/api/v1/openapi.json").json()["components"]["schemas"]
        kinds = {name: getattr(models, name) for name in models.__all__ if name not in ("Model", "Page")}
        kinds = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, models.Model)}
        assert len(kinds) > 35
        for name, kind in kinds.items():
            # A secret is only sent.
            fields = set(kind.model_fields) - ({"secret"} if name == "Webhook" else set())
            assert fields == set(schemas[_OTHERWISE_CALLED.get(name, name)]["properties"]), name
        for call, request in (
            (client.alerts.create_rule, "CreateAlertRule"),
            (client.alerts.update_rule, "UpdateAlertRule"),
            (client.llm_providers.create, "CreateLlmProvider"),
            (client.llm_providers.update, "UpdateLlmProvider"),
            (client.mcp_servers.create, "CreateMcpServer"),
            (client.mcp_servers.update, "UpdateMcpServer"),
            (client.collaboration.disconnect, "Disconnect"),
            (client.sandboxes.create, "CreateSandbox"),
            (client.sandboxes.update, "Spec"),
            (client.sandboxes.exec, "ExecCommand"),
        ):
            fields = set(schemas[request]["properties"])
            own = {"rule_id", "provider_id", "server_id", "sandbox_id", "if_revision", "timeout"} - fields
            assert set(inspect.signature(call).parameters) - own == fields, request
        for literal, schema in (
            (models.AlertEvent, "AlertEvent"),
            (models.AlertState, "AlertState"),
            (models.Severity, "Severity"),
            (models.ProviderKind, "ProviderKind"),
            (models.McpTransport, "Transport"),
        ):
            assert list(get_args(literal)) == schemas[schema]["enum"]


def test_a_body_shows_what_is_printed_nowhere() -> None:
    told = Webhook(url="https://a", secret=SecretStr("hidden"))
    assert plain(told) == {"url": "https://a", "secret": "hidden"}
    assert "hidden" not in f"{told!r}{told.model_dump_json()}"
