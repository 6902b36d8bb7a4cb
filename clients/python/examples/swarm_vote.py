"""A swarm that votes: a question goes to a topic that all members follow, and each tells its vote to who has asked.

Run it against `make run`:  python clients/python/examples/swarm_vote.py [URL]
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from aintandem_agent_sdk import ContainerAgent, Message

MEMBERS = {"careful": "wait", "eager": "release", "balanced": "release", "tired": "wait", "bold": "release"}


def _member(name: str, opinion: str, url: str, workspace: str) -> ContainerAgent:
    member = ContainerAgent(name, url, {"name": name, "role": "voter"}, {"workspace_id": workspace, "unregister_on_stop": True})

    @member.on_topic("votes.*")
    async def vote(message: Message) -> None:
        content = {"question": message.content["question"], "vote": opinion}
        # The same id however often the question is delivered: one member, one vote.
        await member.send_message(message.sender, content, message_id=f"vote-{message.id}-{name}")

    return member


async def main(url: str = "http://127.0.0.1:8001", workspace: str = "default") -> tuple[str, Counter[str]]:
    """Returns what was decided, and the votes."""
    chair = ContainerAgent("chair", url, {"name": "chair", "role": "chair"}, {"workspace_id": workspace, "unregister_on_stop": True})
    votes: dict[str, str] = {}
    all_voted = asyncio.Event()

    @chair.on_notification
    async def count(message: Message) -> None:
        votes[message.sender] = message.content["vote"]
        if len(votes) == len(MEMBERS):
            all_voted.set()

    members = [_member(name, opinion, url, workspace) for name, opinion in MEMBERS.items()]
    async with chair:
        await asyncio.gather(*(member.start() for member in members))
        try:
            await chair.publish_to("votes.release", {"question": "Shall we release on Friday?"})
            await asyncio.wait_for(all_voted.wait(), 20)
        finally:
            await asyncio.gather(*(member.stop() for member in members))
    counted = Counter(votes.values())
    return counted.most_common(1)[0][0], counted


if __name__ == "__main__":
    decision, counted = asyncio.run(main(*sys.argv[1:]))
    print(f"decided: {decision} ({', '.join(f'{vote} {count}' for vote, count in counted.items())})")
