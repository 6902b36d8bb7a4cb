"""`client.workspaces`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aintandem._async.listing import Listing
from aintandem._async.transport import Transport, path
from aintandem.bodies import if_match
from aintandem.models import Page, Workspace, WorkspaceSettings

Settings = WorkspaceSettings | Mapping[str, Any]


class Workspaces:
    """The tenants: isolation, quota, retention and policy end at their edge."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/workspaces", "workspaces", Page[Workspace])

    async def create(self, name: str, *, id: str | None = None, description: str = "", settings: Settings | None = None) -> Workspace:  # noqa: A002
        """A new one; the control plane makes up an id where none is given. Raises Conflict with WORKSPACE_EXISTS or NAME_TAKEN."""
        body = {"name": name, "description": description, "settings": _plain(settings)}
        if id is not None:
            body["id"] = id
        return Workspace.model_validate(await self._transport.request("POST", "/workspaces", body=body))

    async def get(self, workspace_id: str) -> Workspace:
        """One of them. Raises NotFound."""
        return Workspace.model_validate(await self._transport.request("GET", path("workspaces", workspace_id)))

    async def list(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        sort: str | None = None,
        state: str | None = None,
        name_prefix: str | None = None,
    ) -> Page[Workspace]:
        """A page; `sort` is `name`, `create_time` or `update_time`, with `-` the other way."""
        return await self._listing.page(limit=limit, cursor=cursor, sort=sort, state=state, name_prefix=name_prefix)

    def iter_all(self, *, sort: str | None = None, state: str | None = None, name_prefix: str | None = None) -> AsyncIterator[Workspace]:
        """All of them, page by page."""
        return self._listing.items(sort=sort, state=state, name_prefix=name_prefix)

    async def update(
        self,
        workspace_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        settings: Settings | None = None,
        if_revision: int | None = None,
    ) -> Workspace:
        """Changes what is given; settings are merged. Raises Conflict with REVISION_CHANGED where it has another `if_revision`."""
        body = {"name": name, "description": description, "settings": None if settings is None else _plain(settings)}
        body = {key: value for key, value in body.items() if value is not None}
        headers = if_match(if_revision)
        found = await self._transport.request("PATCH", path("workspaces", workspace_id), body=body, headers=headers)
        return Workspace.model_validate(found)

    async def delete(self, workspace_id: str, *, force: bool = False) -> None:
        """Deletes it after a week, in which it can be restored; with `force` at once and for good."""
        await self._transport.request("DELETE", path("workspaces", workspace_id), query={"force": force or None})

    async def restore(self, workspace_id: str) -> Workspace:
        """Takes back a deletion."""
        return Workspace.model_validate(await self._transport.request("POST", path("workspaces", workspace_id, "restore")))


def _plain(settings: Settings | None) -> dict[str, Any]:
    if settings is None:
        return {}
    if isinstance(settings, WorkspaceSettings):
        return settings.model_dump(exclude_unset=True, mode="json")
    return dict(settings)
