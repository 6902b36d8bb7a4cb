"""Publishes and handled messages in a second, and the memory of an idle agent, against one node.

    python -m bench.throughput [--url URL] [--seconds 5] [--size 256]        (in clients/python)

Without `--url` it starts `tandem dev` on free ports (TANDEM_BIN names the command). One JSON document a line. Broker and load share
the machine: what else runs there makes the figures smaller, so the load of the last minute is printed with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from typing import Any

from aintandem_agent_sdk import Client, ContainerAgent, Message, build

_IDLE = """
import asyncio, sys
from aintandem_agent_sdk import ContainerAgent
agent = ContainerAgent("idle", sys.argv[1], "idle", {"workspace_id": sys.argv[2], "heartbeat_interval": 1.0})
@agent.on_request
async def answer(message):
    return message.content
async def main():
    async with agent:
        await asyncio.sleep(float(sys.argv[3]))
        print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
asyncio.run(main())
"""


async def publishes(client: Client, size: int, seconds: float) -> dict[str, Any]:
    """One publisher, batched by itself, from one thread."""
    await client.registry.register("source")
    await client.registry.register("sink")
    content = b"x" * size
    began = time.perf_counter()
    sent = 0
    async with await client.publisher() as publisher:
        while time.perf_counter() - began < seconds:
            for _ in range(200):
                await publisher.send(build("source", "sink", content))
            sent += 200
        await publisher.flush()
    took = time.perf_counter() - began
    return {"what": "publish", "messages": sent, "seconds": round(took, 2), "per_second": round(sent / took)}


async def singles(client: Client, size: int, seconds: float) -> dict[str, Any]:
    """Single publishes, each awaited, 64 at a time: what handlers do that send."""
    content = b"x" * size
    began = time.perf_counter()
    sent = 0

    async def one_by_one() -> None:
        nonlocal sent
        while time.perf_counter() - began < seconds:
            await client.publish(build("source", "sink", content))
            sent += 1

    await asyncio.gather(*(one_by_one() for _ in range(64)))
    took = time.perf_counter() - began
    return {"what": "send_message, 64 at a time", "messages": sent, "seconds": round(took, 2), "per_second": round(sent / took)}


async def handled(client: Client, urls: list[str], size: int, count: int) -> dict[str, Any]:
    """An inbox that is full, emptied by an agent with a handler; each message handled and acknowledged on its own."""
    await client.registry.register("busy")
    async with await client.publisher() as publisher:
        for _ in range(count):
            await publisher.send(build("source", "busy", b"x" * size))
    agent = ContainerAgent("busy", urls, config={"workspace_id": client.workspace_id, "concurrency": 256})
    seen = 0

    @agent.on_message
    async def take(_: Message) -> None:
        nonlocal seen
        seen += 1

    began = time.perf_counter()
    async with agent:
        while seen < count or (await client.registry.get("busy")).pending:
            await asyncio.sleep(0.02)
        took = time.perf_counter() - began
    assert seen == count, f"{seen} handled, {count} sent"
    return {"what": "handled and acknowledged", "messages": count, "seconds": round(took, 2), "per_second": round(count / took)}


async def idle(client: Client, url: str, seconds: float) -> dict[str, Any]:
    """Resident memory of a process with an agent that waits."""
    command = [sys.executable, "-c", _IDLE, url, client.workspace_id, str(seconds)]
    found = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return {"what": "idle agent", "rss_mb": round(int(found.stdout) / 1024, 1)}


async def measure(urls: list[str], size: int, seconds: float) -> None:
    """All of them, in a workspace that is deleted afterwards."""
    async with Client(urls, workspace_id=f"bench-{secrets.token_hex(6)}") as client:
        await client.create_workspace()
        for found in (
            await publishes(client, size, seconds),
            await singles(client, size, seconds),
            await handled(client, urls, size, int(seconds * 6000)),
            await idle(client, urls[0], seconds),
        ):
            print(json.dumps({**found, "bytes": size, "load_1_min": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}), flush=True)
        await client.delete_workspace()


def main() -> None:
    """Reads the arguments; starts a broker where none is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    if arguments.url:
        asyncio.run(measure(arguments.url, arguments.size, arguments.seconds))
        return
    from tests.brokers import start_one

    broker = start_one()
    try:
        asyncio.run(measure(broker.urls, arguments.size, arguments.seconds))
    finally:
        broker.stop()


if __name__ == "__main__":
    main()
