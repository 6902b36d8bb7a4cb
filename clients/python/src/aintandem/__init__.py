"""The client of AInTandem's control plane: workspaces and sandboxes, and what the broker does, over REST.

`Client` blocks, `AsyncClient` is for asyncio; both have the same resources: `workspaces`, `sandboxes`, `agents`, `messages`,
`policies`, `approvals`, `dead_letters`, `api_keys`, `audit`, `events`, `alerts`, `llm_providers`, `mcp_servers`, `collaboration`.
What fails raises `ApiError` with a stable code. `aintandem.models` has what is answered, and what some requests are made of.
"""

from aintandem import models
from aintandem._async.client import AsyncClient
from aintandem._sync.client import Client
from aintandem.errors import (
    ApiError,
    Conflict,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    TooMany,
    Unavailable,
    Unreachable,
)

__version__ = "0.1.0"
__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "Conflict",
    "InvalidRequest",
    "NotAuthenticated",
    "NotFound",
    "NotPermitted",
    "TooMany",
    "Unavailable",
    "Unreachable",
    "__version__",
    "models",
]
