"""Topics, the named streams of a workspace, and who follows them."""

from __future__ import annotations

from collections.abc import Sequence

from aintandem_agent_sdk._proto.aintandem.messaging.v1 import topic_service_pb2 as wire
from aintandem_agent_sdk.calls import Caller
from aintandem_agent_sdk.rpc import method

_CREATE = method("messaging.Topic", "CreateTopic", wire.CreateTopicRequest, wire.CreateTopicResponse)
_LIST = method("messaging.Topic", "ListTopics", wire.ListTopicsRequest, wire.ListTopicsResponse)
_DELETE = method("messaging.Topic", "DeleteTopic", wire.DeleteTopicRequest, wire.DeleteTopicResponse)
_FOLLOW = method("messaging.Topic", "FollowTopics", wire.FollowTopicsRequest, wire.FollowTopicsResponse)
_UNFOLLOW = method("messaging.Topic", "UnfollowTopics", wire.UnfollowTopicsRequest, wire.UnfollowTopicsResponse)
_FOLLOWS = method("messaging.Topic", "ListFollows", wire.ListFollowsRequest, wire.ListFollowsResponse)


def matches(pattern: str, name: str) -> bool:
    """Whether a topic is one of a pattern: `*` stands for one part between dots, `>` at the end for one or more."""
    wanted, parts = pattern.split("."), name.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(parts) <= len(wanted):
            return False
        parts = parts[: len(wanted)]
    return len(wanted) == len(parts) and all(want in ("*", part) for want, part in zip(wanted, parts, strict=True))


class Topics:
    """Of one workspace."""

    def __init__(self, caller: Caller, workspace_id: str) -> None:
        self._caller = caller
        self._workspace_id = workspace_id

    async def create(self, name: str) -> bool:
        """Creates a topic; False when it had been there."""
        request = wire.CreateTopicRequest(workspace_id=self._workspace_id, name=name)
        return (await self._caller.unary(_CREATE, request, workspace_id=self._workspace_id)).created

    async def list(self) -> Sequence[str]:
        """The names of all topics."""
        names: list[str] = []
        token = ""
        while True:
            request = wire.ListTopicsRequest(workspace_id=self._workspace_id, page_size=1000, page_token=token)
            answer = await self._caller.unary(_LIST, request, workspace_id=self._workspace_id)
            names += [topic.name for topic in answer.topics]
            token = answer.next_page_token
            if not token:
                return names

    async def delete(self, name: str) -> None:
        """Deletes a topic with what waits in it; the messages stay in the history."""
        request = wire.DeleteTopicRequest(workspace_id=self._workspace_id, name=name)
        await self._caller.unary(_DELETE, request, workspace_id=self._workspace_id)

    async def follow(self, sandbox_id: str, pattern: str, *, from_sequence: int | None = None) -> bool:
        """Lets a sandbox get what is published to the topics that match, from the next message or a sequence on; False when it did."""
        request = wire.FollowTopicsRequest(workspace_id=self._workspace_id, sandbox_id=sandbox_id, pattern=pattern)
        if from_sequence is not None:
            request.from_sequence = from_sequence
        return (await self._caller.unary(_FOLLOW, request, workspace_id=self._workspace_id)).created

    async def unfollow(self, sandbox_id: str, pattern: str) -> None:
        """Ends it; what waits there and no other pattern covers is given up."""
        request = wire.UnfollowTopicsRequest(workspace_id=self._workspace_id, sandbox_id=sandbox_id, pattern=pattern)
        await self._caller.unary(_UNFOLLOW, request, workspace_id=self._workspace_id)

    async def follows(self, sandbox_id: str) -> Sequence[str]:
        """The patterns that a sandbox follows."""
        request = wire.ListFollowsRequest(workspace_id=self._workspace_id, sandbox_id=sandbox_id)
        answer = await self._caller.unary(_FOLLOWS, request, workspace_id=self._workspace_id)
        return [follow.pattern for follow in answer.follows]
