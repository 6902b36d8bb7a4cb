"""TLS, with certificates that `tandem certs` has made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from aintandem_agent_sdk import Client, ContainerAgent, InvalidSettings, Message, Settings, Token, Unreachable, build
from tests.brokers import TANDEM_BROKER, Broker, Node, free_ports, tandem


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Broker]:
    """A closed node that speaks TLS, and whose clients may show certificates."""
    certs, key = tmp_path / "certs", tmp_path / "secret"
    key.write_text("0123456789abcdef0123456789abcdef")
    key.chmod(0o600)
    tandem("certs", "create", "--dir", str(certs), "--name", "broker", "--host", "127.0.0.1", "--host", "localhost")
    tandem("certs", "create", "--dir", str(certs), "--name", "build", "--host", "build.example")
    config = tmp_path / "broker.toml"
    config.write_text(
        f'[auth]\nkeys = ["k1=HS256:{key}"]\ncertificates = ["build.example=developer@default"]\n'
        f'[tls]\ncert_file = "{certs}/broker.pem"\nkey_file = "{certs}/broker-key.pem"\n'
        f'client_ca_file = "{certs}/ca.pem"\nclient_certs_optional = true\n'
    )
    port, metrics = free_ports(2)
    command = [str(TANDEM_BROKER), "--config", str(config), "--data-dir", str(tmp_path / "data")]
    command += ["--listen", f"127.0.0.1:{port}", "--metrics-listen", f"127.0.0.1:{metrics}", "--log", "error"]
    broker = Broker([Node(command, f"https://127.0.0.1:{port}", tmp_path / "log")], tmp_path / "gone", key_file=key)
    broker.nodes[0].start()
    yield broker
    broker.stop()


async def test_only_who_is_vouched_for_is_spoken_to(encrypted: Broker, tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    token = Token(encrypted.token("developer", workspace="default"))
    endpoints = tuple(encrypted.urls)
    trusting = Settings(endpoints=endpoints, token=token, ca_file=certs / "ca.pem", attempts=60)
    async with Client(trusting) as client:
        await client.registry.register("tester")
    async with Client(Settings(endpoints=endpoints, token=token, attempts=1, connect_timeout=2.0)) as client:
        with pytest.raises(Unreachable):
            await client.registry.get("tester")
    plain = Settings(endpoints=(endpoints[0].replace("https", "http"),), attempts=1, connect_timeout=2.0)
    async with Client(plain) as client:
        with pytest.raises(Unreachable):
            await client.registry.get("tester")
    async with Client(Settings(endpoints=endpoints, ca_file=tmp_path / "absent.pem")) as client:
        with pytest.raises(InvalidSettings, match="ca_file"):
            await client.registry.get("tester")


async def test_a_certificate_says_who_an_agent_is(encrypted: Broker, tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    config = {"ca_file": certs / "ca.pem", "cert_file": certs / "build.pem", "key_file": certs / "build-key.pem", "attempts": 60}
    got = asyncio.Event()
    agent = ContainerAgent("build", encrypted.urls, config=config)

    @agent.on_message
    async def take(message: Message) -> None:
        got.set()

    async with agent:
        await agent.client.registry.register("tester")
        await agent.client.publish(build("tester", "build", 1))
        await asyncio.wait_for(got.wait(), 10)
