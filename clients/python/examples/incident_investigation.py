"""An incident, and four specialists who look into it at once: logs, metrics, deployments and the network.

The lead asks each by capability, tells all what is known so far, and puts the findings together; a specialist that does not
answer in time is noted as missing instead of holding up the rest.

Run it against `make run`:  python clients/python/examples/incident_investigation.py [URL]
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aintandem_agent_sdk import Capability, ContainerAgent, Message, TandemError

SPECIALISTS: dict[str, dict[str, Any]] = {
    "logs": {"finding": "timeouts towards the database from 12:04 on", "confidence": 0.6},
    "metrics": {"finding": "connections to the database at their limit since 12:03", "confidence": 0.8},
    "deployments": {"finding": "version 41 of the shop was deployed at 12:02", "confidence": 0.9},
    "network": {"finding": "nothing unusual", "confidence": 0.3},
}


def _specialist(area: str, url: str, workspace: str, seen: list[str]) -> ContainerAgent:
    agent = {"name": f"{area}-specialist", "role": "specialist", "capabilities": [f"investigate:{area}"]}
    specialist = ContainerAgent(f"specialist-{area}", url, agent, {"workspace_id": workspace, "unregister_on_stop": True})

    @specialist.on_request
    async def investigate(message: Message) -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"area": area, "incident": message.content["incident"], **SPECIALISTS[area]}

    @specialist.on_notification
    async def listen(message: Message) -> None:
        seen.append(f"{area} knows: {message.content['conclusion']}")

    return specialist


async def main(url: str = "http://127.0.0.1:8001", workspace: str = "default") -> tuple[dict[str, Any], list[str]]:
    """Returns the report, and what the specialists were told in the end."""
    seen: list[str] = []
    lead = ContainerAgent("incident-lead", url, {"name": "lead", "role": "lead"}, {"workspace_id": workspace, "unregister_on_stop": True})
    team = [_specialist(area, url, workspace, seen) for area in SPECIALISTS]

    async def ask(area: str) -> dict[str, Any]:
        try:
            task = {"incident": "checkout is slow", "since": "12:04"}
            found: dict[str, Any] = await lead.collaborate_with(Capability(f"investigate:{area}"), task, timeout=10, priority=9)
        except TandemError as error:
            return {"area": area, "finding": f"no answer ({error.code})", "confidence": 0.0}
        return found

    async with lead:
        await asyncio.gather(*(one.start() for one in team))
        try:
            present = await lead.discover(role="specialist", online=True)
            findings = await asyncio.gather(*(ask(area) for area in SPECIALISTS), ask("astrology"))
            cause = max(findings, key=lambda finding: finding["confidence"])
            report = {"specialists": len(present), "cause": cause["finding"], "findings": findings}
            await lead.broadcast({"conclusion": cause["finding"]}, priority=9)
            while len(seen) < len(SPECIALISTS):
                await asyncio.sleep(0.05)
        finally:
            await asyncio.gather(*(one.stop() for one in team))
    return report, sorted(seen)


if __name__ == "__main__":
    report, told = asyncio.run(main(*sys.argv[1:]))
    print(f"{report['specialists']} specialists; the cause: {report['cause']}")
    for finding in report["findings"]:
        print(f"  {finding['area']:12} {finding['finding']}")
    print("\n".join(told))
