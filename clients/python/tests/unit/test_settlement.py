from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2

from aintandem_agent_sdk import LeaseLost, errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import subscribe_service_pb2 as wire
from aintandem_agent_sdk.settlement import Settlement, Verdict, clipped


async def test_neighbours_of_one_kind_travel_together_and_the_order_stays() -> None:
    settlement = Settlement()
    for number, verdict in [
        (1, Verdict("ack")),
        (2, Verdict("ack")),
        (3, Verdict("nack", reason="busy")),
        (4, Verdict("nack", reason="busy", dead_letter=True)),
        (5, Verdict("ack")),
    ]:
        settlement.add(number, verdict)
    sent = []
    while settlement.has_something():
        sent.append(settlement.take())
    kinds = [request.WhichOneof("kind") for request in sent]
    assert kinds == ["ack", "nack", "nack", "ack"]
    assert [(found.first, found.last) for found in sent[0].ack.ranges] == [(1, 1), (2, 2)]
    assert sent[2].nack.dead_letter


async def test_a_refusal_is_told_to_the_deliveries_that_it_names_alone() -> None:
    settlement = Settlement()
    outcomes = [settlement.add(number, Verdict("ack")) for number in (1, 2, 3)]
    settlement.take()
    status = status_pb2.Status(code=9, message="the ack deadline has passed")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="LEASE_LOST"))
    settlement.settled([wire.AckRefusal(range=wire.DeliveryRange(first=2, last=2), status=status)])
    assert [outcome.exception() is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].exception(), LeaseLost)
    assert settlement.is_settled()


async def test_a_break_reaches_what_has_no_outcome() -> None:
    settlement = Settlement()
    sent = settlement.add(1, Verdict("ack"))
    settlement.take()
    waiting = settlement.add(2, Verdict("extend"))
    settlement.fail(LeaseLost("gone"))
    assert isinstance(sent.exception(), LeaseLost)
    assert isinstance(waiting.exception(), LeaseLost)
    with pytest.raises(errors.ContractBroken):
        settlement.settled([])


def test_a_reason_is_cut_between_characters() -> None:
    assert clipped("short") == "short"
    cut = clipped("ä" * 1000)
    assert cut == "ä" * 512
    assert clipped("\ud800") == "?"
