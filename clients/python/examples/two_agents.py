"""Two agents that talk: one asks, the other answers, and both tell what they hear.

Run it against `make run`:  python clients/python/examples/two_agents.py [URL]
"""

from __future__ import annotations

import asyncio
import sys

from aintandem_agent_sdk import ContainerAgent, Message


async def main(url: str = "http://127.0.0.1:8001", workspace: str = "default") -> list[str]:
    """Returns what was said, in order."""
    said: list[str] = []
    config = {"workspace_id": workspace, "unregister_on_stop": True}
    alice = ContainerAgent("alice", url, {"name": "alice", "role": "author"}, config)
    bob = ContainerAgent("bob", url, {"name": "bob", "role": "reviewer", "capabilities": ["review"]}, config)
    heard = asyncio.Event()

    @bob.on_request
    async def review(message: Message) -> dict[str, str]:
        said.append(f"{message.sender} asks: {message.content['text']}")
        return {"verdict": "looks good", "of": message.content["text"]}

    @alice.on_notification
    async def listen(message: Message) -> None:
        said.append(f"{message.sender} tells: {message.content}")
        heard.set()

    async with alice, bob:
        answer = await alice.collaborate_with("bob", {"text": "fix the build"}, timeout=10)
        said.append(f"bob answers: {answer['verdict']}")
        await bob.send_message("alice", "I am going home")
        await asyncio.wait_for(heard.wait(), 10)
    return said


if __name__ == "__main__":
    print("\n".join(asyncio.run(main(*sys.argv[1:]))))
