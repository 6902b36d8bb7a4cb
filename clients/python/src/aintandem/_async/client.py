"""The client of the control plane."""

from __future__ import annotations

import os
import ssl
from types import TracebackType

import httpx

from aintandem._async.access import ApiKeys, Approvals, Audit, Policies
from aintandem._async.alerts import Alerts
from aintandem._async.collaboration import Collaboration
from aintandem._async.messages import Agents, DeadLetters, Events, Messages
from aintandem._async.providers import LlmProviders, McpServers
from aintandem._async.sandboxes import Sandboxes
from aintandem._async.transport import Transport
from aintandem._async.workspaces import Workspaces
from aintandem.settings import DEFAULT_URL, Retry, TokenSource, checked_url


class AsyncClient:
    """One control plane. Close it, or use it as a context."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
        attempts: int = 4,
        ca_file: str | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """`token` or `token_file` says who calls; nobody is enough for `tandem dev`. `timeout` is for one try, in seconds.

        `http` is a connection of your own, for proxies and tests; it is not closed. Raises ValueError for an address that cannot be.
        """
        self._owns_http = http is None
        verify: bool | ssl.SSLContext = True if ca_file is None else _context(ca_file)
        self._http = http or httpx.AsyncClient(timeout=timeout, verify=verify)
        transport = Transport(self._http, checked_url(url), TokenSource(token, token_file), Retry(max(1, attempts)))
        self.workspaces = Workspaces(transport)
        self.sandboxes = Sandboxes(transport)
        self.agents = Agents(transport)
        self.messages = Messages(transport)
        self.policies = Policies(transport)
        self.approvals = Approvals(transport)
        self.dead_letters = DeadLetters(transport)
        self.api_keys = ApiKeys(transport)
        self.audit = Audit(transport)
        self.events = Events(transport)
        self.alerts = Alerts(transport)
        self.llm_providers = LlmProviders(transport)
        self.mcp_servers = McpServers(transport)
        self.collaboration = Collaboration(transport)

    async def aclose(self) -> None:
        """Ends its connections."""
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()


def _context(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
