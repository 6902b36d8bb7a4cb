"""A human says yes or no: a policy holds what an agent wants to do with money until somebody has decided.

The decision is made over the control plane's REST API, as a web page would; here the human is a function.

Run it against `make run`:  python clients/python/examples/human_approval.py [URL] [REST URL]
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import Any

from aintandem import AsyncClient
from aintandem_agent_sdk import ContainerAgent, Message

POLICY = {"policy": "deny_list", "rules": [{"from": "buyer", "to": "bank", "message_types": ["command"], "approval_required": True}]}


async def _human(plane: AsyncClient, workspace: str, decisions: int) -> None:
    """Approves what is below 100, and denies the rest."""
    decided = 0
    while decided < decisions:
        for approval in (await plane.approvals.list(workspace, state="waiting")).items:
            asked = (await plane.approvals.get(workspace, approval.id)).message
            assert asked is not None
            if asked.content["amount"] < 100:
                await plane.approvals.approve(workspace, approval.id, "fine with me")
            else:
                await plane.approvals.deny(workspace, approval.id, "too much")
            decided += 1
        await asyncio.sleep(0.1)


async def main(
    url: str = "http://127.0.0.1:8001", rest: str = "http://127.0.0.1:8000", workspace: str = ""
) -> tuple[list[Any], list[str]]:
    """Returns what the bank has paid, and how the requests have ended for the buyer."""
    workspace = workspace or f"approval-{secrets.token_hex(4)}"
    async with AsyncClient(rest) as plane:
        await plane.workspaces.create(f"Example {workspace}", id=workspace)
        buyer = ContainerAgent("buyer", url, {"name": "buyer"}, {"workspace_id": workspace})
        bank = ContainerAgent("bank", url, {"name": "bank"}, {"workspace_id": workspace})
        paid: list[Any] = []
        ended: list[str] = []
        both_ended = asyncio.Event()

        @bank.on_command
        async def pay(message: Message) -> None:
            paid.append(message.content["amount"])

        @buyer.on_approval
        async def hear(message: Message) -> None:
            ended.append(message.metadata.get("aintandem-error", "APPROVED"))
            if len(ended) == 2:
                both_ended.set()

        async with bank, buyer:
            await plane.policies.set(workspace, POLICY)
            human = asyncio.create_task(_human(plane, workspace, 2))
            for amount in (20, 5000):
                receipt = await buyer.send_message("bank", {"amount": amount}, type="command")
                assert receipt.approval_id, "the policy holds it"
            await asyncio.wait_for(asyncio.gather(human, both_ended.wait()), 20)
            while not paid:
                await asyncio.sleep(0.05)
        await plane.workspaces.delete(workspace, force=True)
    return paid, sorted(ended)


if __name__ == "__main__":
    paid, ended = asyncio.run(main(*sys.argv[1:]))
    print(f"paid: {paid}; the buyer heard: {', '.join(ended)}")
