"""`client.policies`, `client.approvals`, `client.api_keys` and `client.audit`: who may, and who did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aintandem._async.listing import Listing
from aintandem._async.transport import Transport, path
from aintandem.bodies import if_match
from aintandem.models import ApiKey, Approval, AuditRecord, NewApiKey, Page, Policy


class Policies:
    """Who may say what to whom in a workspace."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, workspace_id: str) -> Policy:
        """The one in force."""
        return Policy.model_validate(await self._transport.request("GET", "/policies", query={"workspace_id": workspace_id}))

    async def set(self, workspace_id: str, policy: Mapping[str, Any], *, if_revision: int | None = None) -> Policy:
        """Sets it (docs/guides/policy.md). Raises Conflict with REVISION_CHANGED where somebody was quicker."""
        headers = if_match(if_revision)
        query = {"workspace_id": workspace_id}
        return Policy.model_validate(await self._transport.request("PUT", "/policies", query=query, body=dict(policy), headers=headers))

    async def delete(self, workspace_id: str, *, if_revision: int | None = None) -> Policy:
        """Takes it away."""
        headers = if_match(if_revision)
        query = {"workspace_id": workspace_id}
        return Policy.model_validate(await self._transport.request("DELETE", "/policies", query=query, headers=headers))


class Approvals:
    """What waits for a human."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/approvals", "approvals", Page[Approval])

    async def list(self, workspace_id: str, *, state: str | None = None, limit: int | None = None) -> Page[Approval]:
        """The newest first; `state` is `waiting`, `approved`, `denied`, `expired` or `refused`."""
        return await self._listing.page(workspace_id=workspace_id, state=state, limit=limit)

    async def get(self, workspace_id: str, approval_id: int) -> Approval:
        """One, with its message while it waits."""
        found = await self._transport.request("GET", path("approvals", approval_id), query={"workspace_id": workspace_id})
        return Approval.model_validate(found)

    async def approve(self, workspace_id: str, approval_id: int, comment: str = "") -> Approval:
        """Lets it through. Raises ApiError with APPROVAL_ENDED where somebody was quicker."""
        return await self._decide(workspace_id, approval_id, "approve", comment)

    async def deny(self, workspace_id: str, approval_id: int, comment: str = "") -> Approval:
        """Refuses it; one denial is enough."""
        return await self._decide(workspace_id, approval_id, "deny", comment)

    async def _decide(self, workspace_id: str, approval_id: int, verb: str, comment: str) -> Approval:
        where, query = path("approvals", approval_id, verb), {"workspace_id": workspace_id}
        return Approval.model_validate(await self._transport.request("POST", where, query=query, body={"comment": comment}))


class ApiKeys:
    """Keys for programs that cannot get a new token every hour."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/api-keys", "api_keys", Page[ApiKey])

    async def create(
        self,
        subject: str,
        roles: Sequence[str],
        *,
        workspace_id: str | None = None,
        sandbox_id: str | None = None,
        expires_in_seconds: int | None = None,
    ) -> NewApiKey:
        """Makes one. Its secret is in this answer and nowhere else, so the call is not repeated when its answer is lost."""
        body = {
            "subject": subject,
            "roles": list(roles),
            "workspace_id": workspace_id,
            "sandbox_id": sandbox_id,
            "expires_in_seconds": expires_in_seconds,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return NewApiKey.model_validate(await self._transport.request("POST", "/api-keys", body=body, key=False))

    async def list(self, *, workspace_id: str | None = None, limit: int | None = None) -> Page[ApiKey]:
        """Those there are, revoked and expired ones too for 30 days."""
        return await self._listing.page(workspace_id=workspace_id, limit=limit)

    async def revoke(self, key_id: str) -> ApiKey:
        """Ends one for good; what was opened with it ends within a second."""
        return ApiKey.model_validate(await self._transport.request("DELETE", path("api-keys", key_id)))


class Audit:
    """Who did what: a chain of hashes."""

    def __init__(self, transport: Transport) -> None:
        self._listing = Listing(transport, "/audit", "records", Page[AuditRecord], cursor="next_record")

    async def list(
        self,
        workspace_id: str | None = None,
        *,
        shard: int | None = None,
        from_record: int | None = None,
        limit: int | None = None,
        **filters: Any,
    ) -> Page[AuditRecord]:
        """A page of a workspace or a shard; `filters` are `kind`, `by`, `about`, `start_time` and `end_time`."""
        return await self._listing.page(workspace_id=workspace_id, shard=shard, from_record=from_record, limit=limit, **filters)
