from __future__ import annotations

from aintandem_agent_sdk import Settings
from aintandem_agent_sdk.nodes import Nodes


def test_a_leader_that_was_named_is_gone_straight_to_until_it_fails() -> None:
    nodes = Nodes(Settings(endpoints=("http://a:1", "http://b:1")))
    first = nodes.pick("w")
    nodes.note("w", [("aintandem-leader", "n2=c:1")])
    leader = nodes.pick("w")
    assert leader.endpoint == "http://c:1"
    assert nodes.pick("w") is leader
    assert nodes.pick("other") is first, "each workspace has a leader of its own"
    nodes.failed(leader)
    assert nodes.pick("w") is first
    nodes.note("w", [("aintandem-leader", "n3=[::1]:1")])
    assert nodes.pick("w").endpoint == "http://[::1]:1"


def test_a_leader_that_is_an_endpoint_shares_its_connection() -> None:
    nodes = Nodes(Settings(endpoints=("http://a:1", "http://b:1")))
    nodes.note("w", [("aintandem-leader", "n2=b:1")])
    leader = nodes.pick("w")
    nodes.failed(nodes.pick())
    nodes.failed(nodes.pick())
    assert leader in {nodes.pick(), _other(nodes)}


def _other(nodes: Nodes) -> object:
    nodes.failed(nodes.pick())
    return nodes.pick()


def test_a_node_that_fails_is_left_for_the_next_one() -> None:
    nodes = Nodes(Settings(endpoints=("http://a:1", "http://b:1", "http://c:1")))
    seen = []
    for _ in range(3):
        node = nodes.pick()
        seen.append(node.endpoint)
        nodes.failed(node)
    assert sorted(seen) == ["http://a:1", "http://b:1", "http://c:1"]
    alone = Nodes(Settings(endpoints=("http://a:1",)))
    alone.failed(alone.pick())
    assert alone.pick().endpoint == "http://a:1"


def test_hints_can_be_left_alone_and_are_bounded() -> None:
    nodes = Nodes(Settings(endpoints=("http://a:1",), follow_leader=False))
    nodes.note("w", [("aintandem-leader", "n2=c:1")])
    assert nodes.pick("w").endpoint == "http://a:1"
    nodes = Nodes(Settings(endpoints=("http://a:1",)))
    for wrong in ("", "n2", "n2="):
        nodes.note("w", [("aintandem-leader", wrong)])
    assert nodes.pick("w").endpoint == "http://a:1"
    for number in range(3000):
        nodes.note(f"w{number}", [("aintandem-leader", "n2=c:1")])
    assert len(nodes._leader_of) <= 1024
