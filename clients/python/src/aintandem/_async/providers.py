"""`client.llm_providers` and `client.mcp_servers`: where agents reach language models, and which tools they have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from pydantic import SecretStr

from aintandem._async.listing import Listing
from aintandem._async.transport import Transport, path
from aintandem.bodies import KEEP, Change, Keep, changed_values, changes, given, if_match, values
from aintandem.models import LlmProvider, McpServer, McpTransport, Page, ProviderKind, Value


class LlmProviders:
    """Where the agents of a workspace reach language models; up to 50 in each. Keys are kept sealed and never shown."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/llm-providers", "llm_providers", Page[LlmProvider])

    async def create(
        self,
        workspace_id: str,
        name: str,
        kind: ProviderKind,
        *,
        base_url: str | None = None,
        default_model: str = "",
        models: Sequence[str] = (),
        headers: Mapping[str, Value] | None = None,
        api_key: str | SecretStr | None = None,
    ) -> LlmProvider:
        """Sets one up. `settings.default_llm_provider` of the workspace may name it then.

        `name` has 1 to 100 characters and is the only one of its workspace. `base_url` is that of its kind where none is given;
        `azure_openai` and `custom` need one. `models` are at most 200 names of up to 200 characters, none for all that it has;
        `default_model` is one of them. `headers` are sent with each request; `SecretStr` ones are never shown, as `api_key`, which has
        1 to 16,384 bytes.

        Raises Conflict with NAME_TAKEN, TOO_MANY_RESOURCES, or SECRETS_NOT_CONFIGURED where the control plane cannot keep secrets.
        """
        body = given(
            workspace_id=workspace_id,
            name=name,
            kind=kind,
            base_url=base_url,
            default_model=default_model,
            models=list(models),
            headers=values(headers or {}),
            api_key=api_key,
        )
        return LlmProvider.model_validate(await self._transport.request("POST", "/llm-providers", body=body))

    async def get(self, provider_id: str) -> LlmProvider:
        """One of them. Raises NotFound with UNKNOWN_LLM_PROVIDER."""
        return LlmProvider.model_validate(await self._transport.request("GET", path("llm-providers", provider_id)))

    async def list(
        self,
        *,
        workspace_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        sort: str | None = None,
        name_prefix: str | None = None,
    ) -> Page[LlmProvider]:
        """A page, of all workspaces that the caller may see where none is named.

        `limit` is 1 to 500 (50 by default); `sort` is `name`, `create_time` or `update_time`, with `-` the other way.
        """
        return await self._listing.page(workspace_id=workspace_id, limit=limit, cursor=cursor, sort=sort, name_prefix=name_prefix)

    def iter_all(
        self, *, workspace_id: str | None = None, sort: str | None = None, name_prefix: str | None = None
    ) -> AsyncIterator[LlmProvider]:
        """All that fit, page by page."""
        return self._listing.items(workspace_id=workspace_id, sort=sort, name_prefix=name_prefix)

    async def update(
        self,
        provider_id: str,
        *,
        name: str | Keep = KEEP,
        kind: ProviderKind | Keep = KEEP,
        base_url: Change[str] = KEEP,
        default_model: Change[str] = KEEP,
        models: Change[Sequence[str]] = KEEP,
        headers: Change[Mapping[str, Value | None]] = KEEP,
        api_key: Change[str | SecretStr] = KEEP,
        if_revision: int | None = None,
    ) -> LlmProvider:
        """Changes what is given, and sets back what is None; of `headers` those alone that are named: None takes one away.

        Sandboxes that run keep what they were given. Raises Conflict with REVISION_CHANGED where it has another `if_revision`, with
        NAME_TAKEN, or with LLM_PROVIDER_IS_DEFAULT for another name of the one that its workspace uses by default.
        """
        body = changes(
            name=name,
            kind=kind,
            base_url=base_url,
            default_model=default_model,
            models=models,
            headers=changed_values(headers),
            api_key=api_key,
        )
        where, tag = path("llm-providers", provider_id), if_match(if_revision)
        return LlmProvider.model_validate(await self._transport.request("PATCH", where, body=body, headers=tag))

    async def delete(self, provider_id: str, *, unset_default: bool = False, if_revision: int | None = None) -> None:
        """Deletes one; the default of its workspace only with `unset_default`, and then that has none.

        Raises Conflict with LLM_PROVIDER_IS_DEFAULT, or with REVISION_CHANGED where it has another `if_revision`.
        """
        where, query = path("llm-providers", provider_id), {"unset_default": unset_default or None}
        await self._transport.request("DELETE", where, query=query, headers=if_match(if_revision))


class McpServers:
    """Tools for the agents of a workspace; up to 100 in each. Secrets among variables and headers are kept sealed and never shown."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/mcp-servers", "mcp_servers", Page[McpServer])

    async def create(
        self,
        workspace_id: str,
        name: str,
        transport: McpTransport,
        *,
        command: str | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, Value] | None = None,
        url: str | None = None,
        headers: Mapping[str, Value] | None = None,
    ) -> McpServer:
        """Sets one up. Sandboxes name it in `mcp_servers`.

        `name` has 1 to 100 characters and is the only one of its workspace. A server of `stdio` has a `command` (up to 4,096 bytes), up
        to 100 `args` and an `env`; one of `http` has a `url` (up to 2,048 bytes) and `headers`. `SecretStr` ones are never shown.

        Raises InvalidRequest where it has what only the other transport has; Conflict with NAME_TAKEN, TOO_MANY_RESOURCES, or
        SECRETS_NOT_CONFIGURED where the control plane cannot keep secrets.
        """
        body = given(
            workspace_id=workspace_id,
            name=name,
            transport=transport,
            command=command,
            args=args,
            env=None if env is None else values(env),
            url=url,
            headers=None if headers is None else values(headers),
        )
        return McpServer.model_validate(await self._transport.request("POST", "/mcp-servers", body=body))

    async def get(self, server_id: str) -> McpServer:
        """One of them. Raises NotFound with UNKNOWN_MCP_SERVER."""
        return McpServer.model_validate(await self._transport.request("GET", path("mcp-servers", server_id)))

    async def list(
        self,
        *,
        workspace_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        sort: str | None = None,
        name_prefix: str | None = None,
    ) -> Page[McpServer]:
        """A page, of all workspaces that the caller may see where none is named.

        `limit` is 1 to 500 (50 by default); `sort` is `name`, `create_time` or `update_time`, with `-` the other way.
        """
        return await self._listing.page(workspace_id=workspace_id, limit=limit, cursor=cursor, sort=sort, name_prefix=name_prefix)

    def iter_all(
        self, *, workspace_id: str | None = None, sort: str | None = None, name_prefix: str | None = None
    ) -> AsyncIterator[McpServer]:
        """All that fit, page by page."""
        return self._listing.items(workspace_id=workspace_id, sort=sort, name_prefix=name_prefix)

    async def update(
        self,
        server_id: str,
        *,
        name: str | Keep = KEEP,
        transport: McpTransport | Keep = KEEP,
        command: Change[str] = KEEP,
        args: Change[Sequence[str]] = KEEP,
        env: Change[Mapping[str, Value | None]] = KEEP,
        url: Change[str] = KEEP,
        headers: Change[Mapping[str, Value | None]] = KEEP,
        if_revision: int | None = None,
    ) -> McpServer:
        """Changes what is given, and sets back what is None; of `env` and `headers` those alone that are named: None takes one away.

        Another `transport` takes with it what only the one before had. Sandboxes that run keep what they were given.

        Raises Conflict with REVISION_CHANGED where it has another `if_revision`, or with NAME_TAKEN.
        """
        body = changes(
            name=name,
            transport=transport,
            command=command,
            args=args,
            env=changed_values(env),
            url=url,
            headers=changed_values(headers),
        )
        where, tag = path("mcp-servers", server_id), if_match(if_revision)
        return McpServer.model_validate(await self._transport.request("PATCH", where, body=body, headers=tag))

    async def delete(self, server_id: str, *, if_revision: int | None = None) -> None:
        """Deletes one; sandboxes that run keep what they were given."""
        await self._transport.request("DELETE", path("mcp-servers", server_id), headers=if_match(if_revision))
