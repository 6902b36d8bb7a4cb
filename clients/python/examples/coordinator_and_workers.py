"""A coordinator that hands out tasks by capability, and workers that share them.

Each task is a request to whoever can do it and has the least to do. A worker that fails is asked again by the broker; its
message is never lost.

Run it against `make run`:  python clients/python/examples/coordinator_and_workers.py [URL]
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from aintandem_agent_sdk import Capability, ContainerAgent, Message, RetryLater, RetryPolicy

WORKERS = 3
TASKS = 12


def _worker(name: str, url: str, workspace: str) -> ContainerAgent:
    config = {"workspace_id": workspace, "unregister_on_stop": True, "concurrency": 2, "retry": RetryPolicy(5, 0.05, 0.2)}
    worker = ContainerAgent(name, url, {"name": name, "role": "worker", "capabilities": ["squares"]}, config)

    @worker.on_request
    async def square(message: Message) -> dict[str, object]:
        number = message.content["number"]
        if number % 5 == 0 and message.attempt == 1:
            raise RetryLater("the disk was busy", delay=0.05)  # As it happens in real life.
        await asyncio.sleep(0.02)
        return {"number": number, "square": number * number, "by": name}

    return worker


async def main(url: str = "http://127.0.0.1:8001", workspace: str = "default") -> tuple[list[int], Counter[str]]:
    """Returns the squares, and how many each worker has made."""
    workers = [_worker(f"worker-{number}", url, workspace) for number in range(1, WORKERS + 1)]
    coordinator = ContainerAgent("coordinator", url, {"name": "coordinator"}, {"workspace_id": workspace, "unregister_on_stop": True})
    async with coordinator:
        await asyncio.gather(*(worker.start() for worker in workers))
        try:
            tasks = [
                coordinator.collaborate_with(Capability("squares"), {"number": number}, timeout=30) for number in range(1, TASKS + 1)
            ]
            results = await asyncio.gather(*tasks)
        finally:
            await asyncio.gather(*(worker.stop() for worker in workers))
    return [result["square"] for result in results], Counter(result["by"] for result in results)


if __name__ == "__main__":
    squares, by = asyncio.run(main(*sys.argv[1:]))
    print(squares)
    print(", ".join(f"{name}: {count}" for name, count in sorted(by.items())))
