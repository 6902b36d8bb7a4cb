from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from aintandem_agent_sdk import errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import message_pb2
from aintandem_agent_sdk.calls import is_worth_a_retry


def _status(code: int, reason: str = "", delay_s: float | None = None, field: str = "") -> status_pb2.Status:
    status = status_pb2.Status(code=code, message="what was wrong")
    if reason:
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, metadata={"leader_node_id": "2"}))
    if delay_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(delay_s * 1e9))
        status.details.add().Pack(retry)
    if field:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=field, description="too long")
        status.details.add().Pack(bad)
    return status


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable", "retry_after", "by_itself"),
    [
        (_status(8, "INBOX_FULL", 1.0), errors.Exhausted, "INBOX_FULL", True, 1.0, False),
        (_status(8, "OVERLOADED", 0.1), errors.Exhausted, "OVERLOADED", True, 0.1, True),
        (_status(8, "TOO_MANY_SANDBOXES"), errors.Exhausted, "TOO_MANY_SANDBOXES", False, None, False),
        (_status(14, "NOT_LEADER", 0.02), errors.Unavailable, "NOT_LEADER", True, 0.02, True),
        (_status(14, "NODE_STOPPED"), errors.Unavailable, "NODE_STOPPED", True, None, False),
        (_status(16, "TOKEN_EXPIRED"), errors.NotAuthenticated, "TOKEN_EXPIRED", False, None, False),
        (_status(7, "POLICY_DENIED"), errors.NotPermitted, "POLICY_DENIED", False, None, False),
        (_status(5, "UNKNOWN_SANDBOX"), errors.NotFound, "UNKNOWN_SANDBOX", False, None, False),
        (_status(9, "LEASE_LOST"), errors.LeaseLost, "LEASE_LOST", False, None, False),
        (_status(9, "POLICY_CHANGED"), errors.Refused, "POLICY_CHANGED", False, None, False),
        (_status(3), errors.Invalid, "INVALID_ARGUMENT", False, None, False),
    ],
)
def test_a_refusal_says_what_it_is_and_whether_a_retry_helps(
    status: status_pb2.Status, kind: type, code: str, retryable: bool, retry_after: float | None, by_itself: bool
) -> None:
    error = errors.refusal_from_status(status)
    assert type(error) is kind
    assert (error.code, error.retryable) == (code, retryable)
    assert error.retry_after == (pytest.approx(retry_after) if retry_after else None)
    assert is_worth_a_retry(error) is by_itself
    assert str(error) == f"what was wrong [{code}]"


def test_the_fields_at_fault_are_named() -> None:
    error = errors.refusal_from_status(_status(3, "INVALID_FIELD", field="message.priority"))
    assert isinstance(error, errors.Invalid)
    assert error.fields == (errors.FieldViolation("message.priority", "too long"),)
    assert error.metadata == {"leader_node_id": "2"}


def _rpc(code: grpc.StatusCode, trailing: tuple[tuple[str, bytes], ...] = ()) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details="said", debug_error_string="")


def test_what_happened_on_the_way_is_no_refusal() -> None:
    assert isinstance(errors.from_rpc(_rpc(grpc.StatusCode.UNAVAILABLE), "x", None), errors.ConnectionLost)
    late = errors.from_rpc(_rpc(grpc.StatusCode.DEADLINE_EXCEEDED), "http://x", 2.5)
    assert isinstance(late, errors.TimedOut)
    assert str(late) == "http://x did not answer within 2.5 s [TIMEOUT]"
    said = _rpc(grpc.StatusCode.UNAVAILABLE, (("grpc-status-details-bin", _status(14, "SHUTTING_DOWN", 0.1).SerializeToString()),))
    assert errors.from_rpc(said, "x", None).code == "SHUTTING_DOWN"
    bare = errors.from_rpc(_rpc(grpc.StatusCode.UNIMPLEMENTED), "x", None)
    assert (bare.code, bare.retryable) == ("UNIMPLEMENTED", False)


def test_only_the_header_makes_a_response_an_error() -> None:
    message = message_pb2.Message(content=b'{"error":"REJECTED","text":"never","sequence":41}')
    assert errors.undeliverable_from(message) is None
    message.metadata["aintandem-error"] = "REJECTED"
    found = errors.undeliverable_from(message)
    assert found is not None
    assert (found.code, found.sequence, "never" in found.text) == ("REJECTED", 41, True)
    for content in (b"[1]", b"no json", b""):
        message.content = content
        other = errors.undeliverable_from(message)
        assert other is not None
        assert content.decode() in other.text
