"""The agent layer of AInTandem: `ContainerAgent`, and below it a `Client` of the broker.

Read first: `ContainerAgent` (agent.py), `Client` (client.py), `TandemError` (errors.py). Names are imported when they are first used,
because an agent that is idle should cost little memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aintandem_agent_sdk.agent import ContainerAgent as ContainerAgent
    from aintandem_agent_sdk.client import Client as Client
    from aintandem_agent_sdk.config import AgentConfig as AgentConfig
    from aintandem_agent_sdk.errors import (
        Closed as Closed,
    )
    from aintandem_agent_sdk.errors import (
        ConnectionLost as ConnectionLost,
    )
    from aintandem_agent_sdk.errors import (
        Exhausted as Exhausted,
    )
    from aintandem_agent_sdk.errors import (
        Invalid as Invalid,
    )
    from aintandem_agent_sdk.errors import (
        InvalidEndpoint as InvalidEndpoint,
    )
    from aintandem_agent_sdk.errors import (
        InvalidSettings as InvalidSettings,
    )
    from aintandem_agent_sdk.errors import (
        LeaseLost as LeaseLost,
    )
    from aintandem_agent_sdk.errors import (
        NotAuthenticated as NotAuthenticated,
    )
    from aintandem_agent_sdk.errors import (
        NotFound as NotFound,
    )
    from aintandem_agent_sdk.errors import (
        NotPermitted as NotPermitted,
    )
    from aintandem_agent_sdk.errors import (
        NotSerialisable as NotSerialisable,
    )
    from aintandem_agent_sdk.errors import (
        Refused as Refused,
    )
    from aintandem_agent_sdk.errors import (
        TandemError as TandemError,
    )
    from aintandem_agent_sdk.errors import (
        TimedOut as TimedOut,
    )
    from aintandem_agent_sdk.errors import (
        Unavailable as Unavailable,
    )
    from aintandem_agent_sdk.errors import (
        Undeliverable as Undeliverable,
    )
    from aintandem_agent_sdk.errors import (
        Unreachable as Unreachable,
    )
    from aintandem_agent_sdk.handlers import Reject as Reject
    from aintandem_agent_sdk.handlers import RetryLater as RetryLater
    from aintandem_agent_sdk.messages import (
        BROADCAST as BROADCAST,
    )
    from aintandem_agent_sdk.messages import (
        Capability as Capability,
    )
    from aintandem_agent_sdk.messages import (
        Message as Message,
    )
    from aintandem_agent_sdk.messages import (
        Topic as Topic,
    )
    from aintandem_agent_sdk.messages import (
        build as build,
    )
    from aintandem_agent_sdk.outbox import Receipt as Receipt
    from aintandem_agent_sdk.publisher import Publisher as Publisher
    from aintandem_agent_sdk.registry import Agent as Agent
    from aintandem_agent_sdk.registry import RetryPolicy as RetryPolicy
    from aintandem_agent_sdk.settings import Settings as Settings
    from aintandem_agent_sdk.subscription import Delivery as Delivery
    from aintandem_agent_sdk.subscription import Subscription as Subscription
    from aintandem_agent_sdk.token import Token as Token

_WHERE = {
    "agent": ["ContainerAgent"],
    "client": ["Client"],
    "config": ["AgentConfig"],
    "errors": [
        *["Closed", "ConnectionLost", "Exhausted", "Invalid", "InvalidEndpoint", "InvalidSettings", "LeaseLost"],
        *["NotAuthenticated", "NotFound", "NotPermitted", "NotSerialisable", "Refused", "TandemError", "TimedOut"],
        *["Unavailable", "Undeliverable", "Unreachable"],
    ],
    "handlers": ["Reject", "RetryLater"],
    "messages": ["BROADCAST", "Capability", "Message", "Topic", "build"],
    "outbox": ["Receipt"],
    "publisher": ["Publisher"],
    "registry": ["Agent", "RetryPolicy"],
    "settings": ["Settings"],
    "subscription": ["Delivery", "Subscription"],
    "token": ["Token"],
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}
__all__ = [*sorted(_MODULE_OF), "__version__"]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found
