"""The sandbox of an agent as it shall stand at the broker, with its labels and what it follows; and all of it again where it is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aintandem_agent_sdk import errors
from aintandem_agent_sdk.backoff import pause
from aintandem_agent_sdk.client import Client
from aintandem_agent_sdk.config import AgentConfig
from aintandem_agent_sdk.ids import new_id
from aintandem_agent_sdk.outage import Outage
from aintandem_agent_sdk.registry import Agent

_log = logging.getLogger(__name__)
# The label by which agents with one sandbox id notice each other.
_INSTANCE = "aintandem-instance"
# Whoever unregisters a sandbox again and again is not to be outrun: the pauses before it is back double up to the longest one, and
# begin anew after so many seconds of peace.
_LONGEST_PAUSE_S = 10.0
_PEACE_S = 60.0


def is_gone(error: errors.TandemError) -> bool:
    """Whether it says that the sandbox was unregistered, or that the broker was restored from a backup without it."""
    return error.code == "UNKNOWN_SANDBOX"


class Registration:
    """Of one agent; outlives its stop and next start, as what a sandbox follows does at the broker."""

    def __init__(self, sandbox_id: str, agent: Agent | None, config: AgentConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._sandbox_id = sandbox_id
        self._agents = [agent] if agent is not None else []
        self._retry = config.retry
        self._instance = new_id()
        self._labels = {**(config.labels or {}), _INSTANCE: self._instance}
        self._other = ""
        # The patterns, in the order in which they were asked for.
        self._followed: dict[str, None] = {}
        self._clock = clock
        self._times = 0
        self._last: float | None = None

    def follows(self, pattern: str) -> None:
        """The sandbox follows these topics from its next registration on."""
        self._followed[pattern] = None

    def unfollows(self, pattern: str) -> None:
        """It does so no more."""
        self._followed.pop(pattern, None)

    def is_unregistered(self) -> None:
        """The agent itself has ended it, with all that it followed."""
        self._followed.clear()

    async def register(self, client: Client) -> None:
        """Registers the sandbox and lets it follow its topics; nothing changes where it is so. Raises TandemError."""
        await client.registry.register(self._sandbox_id, agents=self._agents, labels=self._labels, retry=self._retry)
        for pattern in list(self._followed):
            await client.topics.follow(self._sandbox_id, pattern)

    async def register_again(self, client: Client) -> None:
        """The same after it `is_gone`, until the broker has all of it. Raises TandemError when no retry helps, such as KEY_REVOKED."""
        await asyncio.sleep(self._pause())
        outage = Outage(client._caller, f"the registration of {self._sandbox_id}")
        while True:
            try:
                await self.register(client)
                break
            except errors.TandemError as error:
                # Gone again between its registration and what it follows.
                wait = outage.next_try(error, is_repaired=is_gone(error))
                if wait is None:
                    raise
                await asyncio.sleep(wait)
        self._last = self._clock()
        _log.warning("%s: the sandbox was unregistered; it is registered again", self._sandbox_id)

    async def look_for_others(self, client: Client) -> None:
        """Says once that somebody else has registered this sandbox since."""
        try:
            instance = (await client.registry.get(self._sandbox_id)).labels.get(_INSTANCE, "")
        except errors.TandemError as error:
            _log.info("whether there is another agent of %s is unknown: %s", self._sandbox_id, error)
            return
        if instance in ("", self._instance, self._other):
            return
        self._other = instance
        _log.warning(
            "another agent has registered sandbox %s, too: they share its inbox, and each message goes to one of them. "
            "The registry shows the one that came last",
            self._sandbox_id,
        )

    def _pause(self) -> float:
        """Seconds before it is registered again: none the first time."""
        if self._last is None or self._clock() - self._last >= _PEACE_S:
            self._times = 0
            return 0.0
        self._times += 1
        return pause(None, self._times, last=_LONGEST_PAUSE_S)
