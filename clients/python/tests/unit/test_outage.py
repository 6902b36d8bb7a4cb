from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest

from aintandem_agent_sdk import ConnectionLost, LeaseLost, NotAuthenticated, NotFound, Settings, Token
from aintandem_agent_sdk.calls import Caller
from aintandem_agent_sdk.outage import Outage

_LOST = ConnectionLost("lost")
_REFUSED = NotAuthenticated("revoked", code="KEY_REVOKED", status=grpc.StatusCode.UNAUTHENTICATED)
_GONE = NotFound("gone", code="UNKNOWN_SANDBOX", status=grpc.StatusCode.NOT_FOUND)


async def _outage(now: list[float], settings: Settings) -> Outage:
    return Outage(Caller(settings), "it", clock=lambda: now[0])


async def test_waits_grow_until_it_works_again() -> None:
    outage = await _outage([0.0], Settings())
    waits = [outage.next_try(_LOST) for _ in range(3)]
    assert [wait is not None and low <= wait <= 1.2 * low for wait, low in zip(waits, (0.02, 0.04, 0.08), strict=True)] == [True] * 3
    assert outage.tries == 3
    outage.is_over()
    again = outage.next_try(_LOST)
    assert again is not None
    assert again <= 0.024


async def test_what_no_retry_helps_against_ends_it() -> None:
    outage = await _outage([0.0], Settings(token=Token("by-value")))
    assert outage.next_try(_GONE) is None
    assert outage.next_try(_REFUSED) is None


async def test_what_was_repaired_is_tried_again_and_so_is_a_stream_that_ends_with_its_leases() -> None:
    now = [0.0]
    outage = await _outage(now, Settings(reconnect_limit=10.0))
    assert outage.next_try(_GONE, is_repaired=True) is not None
    assert outage.next_try(LeaseLost("gone")) is not None
    now[0] = 10.0
    assert outage.next_try(_GONE, is_repaired=True) is None, "the limit holds for these, too"


async def test_a_limit_ends_it() -> None:
    now = [0.0]
    outage = await _outage(now, Settings(reconnect_limit=10.0))
    assert outage.next_try(_LOST) is not None
    now[0] = 9.9
    assert outage.next_try(_LOST) is not None
    now[0] = 10.0
    assert outage.next_try(_LOST) is None


async def test_another_token_in_the_file_is_waited_for_and_that_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    path, now = tmp_path / "token", [0.0]
    path.write_text("one")
    outage = await _outage(now, Settings(token=Token.from_file(path)))
    # The broker was away for long: that is no reason to give whoever renews the token less time.
    assert outage.next_try(_LOST) is not None
    now[0] = 1000.0
    assert outage.next_try(_REFUSED) == 0.0
    assert not caplog.records
    for _ in range(9):
        now[0] += 1.0
        assert outage.next_try(_REFUSED) == 1.0
    assert len(caplog.records) == 1
    assert "waits up to 10 s for another token in its file: revoked [KEY_REVOKED]" in caplog.text
    now[0] += 1.0
    assert outage.next_try(_REFUSED) is None
