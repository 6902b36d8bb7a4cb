from __future__ import annotations

import asyncio

import pytest
from google.rpc import error_details_pb2, status_pb2

from aintandem_agent_sdk import Receipt, TandemError, build, errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import publish_service_pb2 as wire
from aintandem_agent_sdk.outbox import Outbox


def _add(outbox: Outbox, content: str, message_id: str = "") -> asyncio.Future[Receipt]:
    receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    message = build("a", "b", content, message_id=message_id)
    outbox.add(message, message.ByteSize(), receipt)
    return receipt


def _refusal(code: str) -> status_pb2.Status:
    status = status_pb2.Status(code=8, message="no")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=code))
    return status


async def test_what_gathers_becomes_one_batch_within_its_limits() -> None:
    outbox = Outbox(batch_messages=3, batch_bytes=400)
    for number in range(7):
        _add(outbox, str(number))
    assert [(batch.position, len(batch.messages)) for batch in (outbox.take(), outbox.take(), outbox.take())] == [(1, 3), (4, 3), (7, 1)]
    assert not outbox.has_something()
    for _ in range(3):
        _add(outbox, "x" * 250)
    assert [len(outbox.take().messages) for _ in range(3)] == [1, 1, 1], "two are over the bytes of a batch"


async def test_after_a_break_the_same_messages_go_out_under_the_same_positions() -> None:
    outbox = Outbox(batch_messages=2, batch_bytes=1 << 20)
    receipts = [_add(outbox, str(number)) for number in range(5)]
    first, second = outbox.take(), outbox.take()
    outbox.answered(wire.PublishStreamResponse(request_id=first.request_id, first_sequence=10, accepted=2))
    outbox.broke()
    again = outbox.take()
    assert (again.position, again.messages) == (second.position, second.messages)
    assert outbox.take().position == 5
    repeated = [wire.PublishException(index=index, duplicate_of=12 + index) for index in range(2)]
    outbox.answered(wire.PublishStreamResponse(request_id=again.request_id, exceptions=repeated))
    assert [receipt.result().sequence for receipt in receipts[:4]] == [10, 11, 12, 13]
    assert [receipt.result().duplicate for receipt in receipts[:4]] == [False, False, True, True]
    assert not receipts[4].done()
    assert outbox.messages == 1


async def test_exceptions_are_told_to_whom_they_concern() -> None:
    outbox = Outbox(batch_messages=9, batch_bytes=1 << 20)
    receipts = [_add(outbox, str(number), f"m{number}") for number in range(3)]
    batch = outbox.take()
    exceptions = [wire.PublishException(index=0, refusal=_refusal("INBOX_FULL")), wire.PublishException(index=2, approval_id=7)]
    outbox.answered(wire.PublishStreamResponse(request_id=batch.request_id, first_sequence=5, accepted=1, exceptions=exceptions))
    with pytest.raises(errors.Exhausted) as refused:
        receipts[0].result()
    assert refused.value.code == "INBOX_FULL"
    assert receipts[1].result() == Receipt("m1", 6)
    assert receipts[2].result() == Receipt("m2", 0, approval_id=7)


async def test_an_answer_that_does_not_fit_is_told() -> None:
    outbox = Outbox(batch_messages=9, batch_bytes=1 << 20)
    _add(outbox, "x")
    batch = outbox.take()
    for request_id, accepted in ((batch.request_id + 1, 1), (batch.request_id, 2)):
        with pytest.raises(errors.ContractBroken):
            outbox.answered(wire.PublishStreamResponse(request_id=request_id, accepted=accepted))


async def test_a_failure_reaches_everybody_and_begins_a_new_producer() -> None:
    outbox = Outbox(batch_messages=1, batch_bytes=1 << 20)
    receipts = [_add(outbox, str(number)) for number in range(2)]
    outbox.take()
    before = outbox.producer_id
    outbox.fail(TandemError("gone", code="UNKNOWN_WORKSPACE"))
    assert [type(receipt.exception()) for receipt in receipts] == [TandemError, TandemError]
    assert (outbox.messages, outbox.bytes) == (0, 0)
    _add(outbox, "x")
    assert outbox.producer_id != before
    assert outbox.take().position == 1
