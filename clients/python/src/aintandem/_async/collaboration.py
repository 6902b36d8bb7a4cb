"""`client.collaboration`: who takes part in a workspace, what waits for whom, and ending that a sandbox does."""

from __future__ import annotations

from aintandem._async.listing import Listing
from aintandem._async.transport import Transport, path
from aintandem.models import CollaborationStatus, ConnectedSandbox, Disconnected, Page


class Collaboration:
    """Who takes part, as the broker has it at the moment."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/collaboration/sandboxes", "sandboxes", Page[ConnectedSandbox])

    async def status(self, workspace_id: str) -> CollaborationStatus:
        """How it stands in a workspace: who is there, and how much waits. Raises NotFound with UNKNOWN_WORKSPACE."""
        found = await self._transport.request("GET", path("collaboration", "status"), query={"workspace_id": workspace_id})
        return CollaborationStatus.model_validate(found)

    async def sandboxes(self, workspace_id: str, *, online: bool | None = None, limit: int | None = None) -> Page[ConnectedSandbox]:
        """Those that are registered, by id, with what waits for each; `online` narrows them, `limit` is 1 to 1,000 (100 by default)."""
        return await self._listing.page(workspace_id=workspace_id, online=online, limit=limit)

    async def disconnect(self, workspace_id: str, sandbox_id: str, *, reason: str = "", unregister: bool = False) -> Disconnected:
        """Revokes the API keys and the tokens that are bound to a sandbox, whose streams end within a second.

        Its container goes on, and so does whoever acts for it with a key or token that is not bound to it. `reason` (up to 500
        characters) is for the log, and for rules that wait for `disconnected`. With `unregister` its inbox goes, too, with what waits.

        Raises NotFound with UNKNOWN_SANDBOX where there is neither a sandbox nor anything that is bound to one of this name.
        """
        body = {"workspace_id": workspace_id, "sandbox_id": sandbox_id, "reason": reason, "unregister": unregister}
        return Disconnected.model_validate(await self._transport.request("POST", path("collaboration", "disconnect"), body=body))
