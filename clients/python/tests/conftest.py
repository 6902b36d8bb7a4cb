"""Brokers that several tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers import TANDEM, Broker, start_closed, start_one, start_three


def pytest_sessionstart() -> None:
    if not TANDEM.exists():
        raise pytest.UsageError(f"{TANDEM} is not there; run `make build`, or set TANDEM_BIN")


@pytest.fixture(scope="session")
def one() -> Iterator[Broker]:
    """One node."""
    broker = start_one(http=True)
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def three() -> Iterator[Broker]:
    """Three nodes."""
    broker = start_three()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def closed() -> Iterator[Broker]:
    """One node that wants tokens."""
    broker = start_closed()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def closed_three() -> Iterator[Broker]:
    """Three nodes that want tokens."""
    broker = start_closed(count=3)
    yield broker
    broker.stop()
