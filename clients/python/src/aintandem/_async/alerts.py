"""`client.alerts`: what has fired, and the rules that make it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aintandem._async.listing import Listing
from aintandem._async.transport import Transport, path
from aintandem.bodies import KEEP, Change, Keep, changes, given, if_match, webhook
from aintandem.models import Alert, AlertRule, AlertState, Condition, Page, Severity, Webhook


class Alerts:
    """Rules of workspaces, and the alerts that they have fired. A workspace has up to 50 rules and keeps the newest 1,000 alerts."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._rules = Listing(transport, "/alerts/rules", "rules", Page[AlertRule])
        self._alerts = Listing(transport, "/alerts", "alerts", Page[Alert])

    async def create_rule(
        self,
        workspace_id: str,
        name: str,
        condition: Condition | Mapping[str, Any],
        *,
        enabled: bool = True,
        severity: Severity = "warning",
        quiet_seconds: int = 300,
        webhook: Webhook | Mapping[str, Any] | None = None,
    ) -> AlertRule:
        """Sets one up; what happens from now on counts.

        `name` has 1 to 100 characters and is the only one of its workspace. For `quiet_seconds` (0 to 86,400) after it has fired, what
        fits is counted in the same alert. `webhook` has a `url` and a `secret`, which is never shown again.

        Raises Conflict with NAME_TAKEN, TOO_MANY_RESOURCES, or SECRETS_NOT_CONFIGURED where the control plane cannot keep secrets.
        """
        body = given(
            workspace_id=workspace_id,
            name=name,
            condition=condition,
            enabled=enabled,
            severity=severity,
            quiet_seconds=quiet_seconds,
            webhook=_told(webhook),
        )
        return AlertRule.model_validate(await self._transport.request("POST", "/alerts/rules", body=body))

    async def get_rule(self, rule_id: str) -> AlertRule:
        """One of them. Raises NotFound with UNKNOWN_ALERT_RULE."""
        return AlertRule.model_validate(await self._transport.request("GET", path("alerts", "rules", rule_id)))

    async def list_rules(
        self,
        *,
        workspace_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        sort: str | None = None,
        name_prefix: str | None = None,
    ) -> Page[AlertRule]:
        """A page, of all workspaces that the caller may see where none is named.

        `limit` is 1 to 500 (50 by default); `sort` is `name`, `create_time` or `update_time`, with `-` the other way.
        """
        return await self._rules.page(workspace_id=workspace_id, limit=limit, cursor=cursor, sort=sort, name_prefix=name_prefix)

    def iter_rules(
        self, *, workspace_id: str | None = None, sort: str | None = None, name_prefix: str | None = None
    ) -> AsyncIterator[AlertRule]:
        """All rules that fit, page by page."""
        return self._rules.items(workspace_id=workspace_id, sort=sort, name_prefix=name_prefix)

    async def update_rule(
        self,
        rule_id: str,
        *,
        name: str | Keep = KEEP,
        condition: Condition | Mapping[str, Any] | Keep = KEEP,
        enabled: bool | Keep = KEEP,
        severity: Severity | Keep = KEEP,
        quiet_seconds: int | Keep = KEEP,
        webhook: Change[Webhook | Mapping[str, Any]] = KEEP,
        if_revision: int | None = None,
    ) -> AlertRule:
        """Changes what is given, also parts of `condition` and `webhook`; None takes the webhook away.

        A rule with another condition, or one that is enabled again, begins with what happens from then on.

        Raises Conflict with REVISION_CHANGED where it has another `if_revision`, or with NAME_TAKEN.
        """
        body = changes(
            name=name,
            condition=condition,
            enabled=enabled,
            severity=severity,
            quiet_seconds=quiet_seconds,
            webhook=webhook if isinstance(webhook, Keep) else _told(webhook),
        )
        where, headers = path("alerts", "rules", rule_id), if_match(if_revision)
        return AlertRule.model_validate(await self._transport.request("PATCH", where, body=body, headers=headers))

    async def delete_rule(self, rule_id: str, *, if_revision: int | None = None) -> None:
        """Deletes one. What it has fired stays; what its webhook did not hear of is not told any more."""
        await self._transport.request("DELETE", path("alerts", "rules", rule_id), headers=if_match(if_revision))

    async def list(
        self,
        *,
        workspace_id: str | None = None,
        rule_id: str | None = None,
        state: AlertState | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        sort: str | None = None,
    ) -> Page[Alert]:
        """A page of what has fired, the newest first, of all workspaces that the caller may see where none is named.

        `limit` is 1 to 500 (50 by default); `sort` is `create_time` or `update_time`, with `-` (as by default) the newest first.
        """
        return await self._alerts.page(workspace_id=workspace_id, rule_id=rule_id, state=state, limit=limit, cursor=cursor, sort=sort)

    def iter_all(
        self, *, workspace_id: str | None = None, rule_id: str | None = None, state: AlertState | None = None, sort: str | None = None
    ) -> AsyncIterator[Alert]:
        """All alerts that fit, page by page."""
        return self._alerts.items(workspace_id=workspace_id, rule_id=rule_id, state=state, sort=sort)

    async def acknowledge(self, alert_id: str, *, if_revision: int | None = None) -> Alert:
        """Says that somebody has seen it; who says so second changes nothing.

        Raises NotFound with UNKNOWN_ALERT, or Conflict with REVISION_CHANGED where it has another `if_revision`.
        """
        where, headers = path("alerts", alert_id, "acknowledge"), if_match(if_revision)
        return Alert.model_validate(await self._transport.request("POST", where, headers=headers))


def _told(wanted: Webhook | Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if wanted is None else webhook(wanted)
