from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from aintandem_agent_sdk import (
    Capability,
    Client,
    Invalid,
    InvalidEndpoint,
    InvalidSettings,
    Message,
    NotSerialisable,
    Publisher,
    Settings,
    Token,
    Topic,
    build,
    errors,
)
from aintandem_agent_sdk.ids import new_id
from aintandem_agent_sdk.messages import check_size
from aintandem_agent_sdk.topics import matches


@pytest.mark.parametrize(
    ("content", "content_type", "raw", "media", "back"),
    [
        ({"a": [1, None]}, None, b'{"a":[1,null]}', "application/json", {"a": [1, None]}),
        ("text", None, b'"text"', "application/json", "text"),
        ("text", "text/plain", b"text", "text/plain", "text"),
        (b"\x00\xff", None, b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ("ä", None, '"ä"'.encode(), "application/json", "ä"),
    ],
)
def test_content_comes_back_as_it_went(content: object, content_type: str | None, raw: bytes, media: str, back: object) -> None:
    message = Message(build("a", "b", content, content_type=content_type))
    assert (message.raw, message.content_type, message.content) == (raw, media, back)


def test_what_json_cannot_say_is_told_by_its_type() -> None:
    circle: list[object] = []
    circle.append(circle)
    for content in ({1, 2}, object(), math.nan, circle, {"at": datetime.now()}, "\ud800"):
        with pytest.raises(NotSerialisable, match=type(content).__name__) as refused:
            build("a", "b", content)
        assert (refused.value.code, refused.value.retryable) == ("CONTENT_NOT_SERIALIZABLE", False)


async def test_what_no_request_has_room_for_is_refused_before_anything_is_sent() -> None:
    fits = build("a", "b", b"x" * 8_000)
    check_size(fits, fits.ByteSize() + 1_024)
    # Nobody listens there: what is told is told without asking anybody.
    async with Client("http://127.0.0.1:1", max_message_bytes=fits.ByteSize() + 1_023) as client:
        publisher = Publisher(client._caller, "w")
        for refused in (client.publish(fits), client.request(fits), publisher.send(fits)):
            with pytest.raises(Invalid, match="this client sends at most") as large:
                await refused
            assert (large.value.code, large.value.retryable) == ("MESSAGE_TOO_LARGE", False)
        assert publisher._outbox.messages == 0, "it has no number"
        await publisher.close()


def test_what_is_no_json_is_told_when_it_is_read() -> None:
    message = Message(build("a", "b", b"{", content_type="application/json"))
    with pytest.raises(errors.NotReadable):
        _ = message.content


def test_a_message_has_what_it_was_given() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    wire = build("a", Capability("rust", wait=True), 1, type="request", priority=0, ttl=1.5, not_before=when, metadata={"k": "v"})
    assert (wire.ttl.seconds, wire.ttl.nanos) == (1, 500_000_000)
    assert wire.not_before.ToDatetime() == datetime(2026, 1, 2, 2, 4, 5)
    assert wire.destination.capability.wait
    assert wire.HasField("priority")
    assert (Message(wire).priority, Message(wire).type, Message(build("a", "b", 1)).priority) == (0, "request", 5)
    assert Message(build("a", Topic("t.x"), 1)).topic == "t.x"
    with pytest.raises(ValueError, match="order"):
        build("a", "b", 1, type="order")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no target"):
        build("a", 5, 1)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8001", "ftp://x", "http://", "http://a b", "http://x:99999", "http://x/path", "http://u@x", "http://[::1"]
)
def test_wrong_endpoints_are_named(url: str) -> None:
    with pytest.raises(InvalidEndpoint) as refused:
        Settings(endpoints=(url,))
    assert repr(url) in str(refused.value)


def test_settings_that_cannot_be_are_told() -> None:
    for fields in ({"endpoints": ()}, {"attempts": 0}, {"cert_file": Path("x")}, {"endpoints": ("http://a", "https://b")}):
        with pytest.raises(InvalidSettings):
            Settings(**fields)
    assert Settings(endpoints=("http://[::1]:8001",)).endpoints


def test_a_token_is_read_again_and_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("aintandem_agent_sdk.token.time.monotonic", lambda: now[0])
    path = tmp_path / "token"
    path.write_text(" first\n")
    token = Token.from_file(path)
    assert token.read() == "first"
    path.write_text("second!")
    assert token.read() == "first", "for a second"
    now[0] += 1.0
    assert token.read() == "second!"
    path.unlink()
    now[0] += 1.0
    assert token.read() == "second!", "the last one goes out"
    assert "secret" not in repr(Token("secret"))
    with pytest.raises(InvalidSettings):
        Token("two\nlines")


def test_ids_are_of_version_7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(one) == 36 and one[14] == "7" and one[19] in "89ab" for one in ids)
    assert [one[:8] for one in ids] == sorted(one[:8] for one in ids)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a.b.c", False),
    ],
)
def test_patterns_of_topics(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits
