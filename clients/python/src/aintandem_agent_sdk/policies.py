"""Who may say what to whom, and what waits for a human."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aintandem_agent_sdk._proto.aintandem.approval.v1 import approval_service_pb2 as approval
from aintandem_agent_sdk._proto.aintandem.policy.v1 import policy_service_pb2 as policy
from aintandem_agent_sdk.calls import Caller
from aintandem_agent_sdk.messages import Message
from aintandem_agent_sdk.rpc import method

_SET = method("policy.Policy", "SetPolicy", policy.SetPolicyRequest, policy.SetPolicyResponse)
_GET = method("policy.Policy", "GetPolicy", policy.GetPolicyRequest, policy.GetPolicyResponse)
_REMOVE = method("policy.Policy", "RemovePolicy", policy.RemovePolicyRequest, policy.RemovePolicyResponse)
_LIST = method("approval.Approval", "ListApprovals", approval.ListApprovalsRequest, approval.ListApprovalsResponse)
_SHOW = method("approval.Approval", "GetApproval", approval.GetApprovalRequest, approval.GetApprovalResponse)
_APPROVE = method("approval.Approval", "ApproveMessage", approval.ApproveMessageRequest, approval.ApproveMessageResponse)
_DENY = method("approval.Approval", "DenyMessage", approval.DenyMessageRequest, approval.DenyMessageResponse)

ApprovalState = Literal["waiting", "approved", "denied", "expired", "refused"]


@dataclass(frozen=True)
class Policy:
    """`rules` is the JSON as it was set (docs/guides/policy.md), None where there is none. `revision` rises with every change."""

    revision: int
    rules: dict[str, Any] | None
    updated_by: str


class Policies:
    """The policy of one workspace."""

    def __init__(self, caller: Caller, workspace_id: str) -> None:
        self._caller = caller
        self._workspace_id = workspace_id

    async def set(self, rules: Mapping[str, Any], *, if_revision: int | None = None) -> Policy:
        """Sets it; what is committed behind the answer is judged by it. Raises Refused with POLICY_CHANGED for another revision."""
        request = policy.SetPolicyRequest(workspace_id=self._workspace_id, json=json.dumps(rules), if_revision=if_revision)
        return _policy((await self._caller.unary(_SET, request, workspace_id=self._workspace_id)).policy)

    async def get(self) -> Policy:
        """The one in force."""
        request = policy.GetPolicyRequest(workspace_id=self._workspace_id)
        return _policy((await self._caller.unary(_GET, request, workspace_id=self._workspace_id)).policy)

    async def remove(self, *, if_revision: int | None = None) -> Policy:
        """Takes it away."""
        request = policy.RemovePolicyRequest(workspace_id=self._workspace_id, if_revision=if_revision)
        return _policy((await self._caller.unary(_REMOVE, request, workspace_id=self._workspace_id)).policy)


@dataclass(frozen=True)
class Approval:
    """A message that a policy holds, or held."""

    id: int
    state: ApprovalState
    sender: str
    to: str
    """A sandbox, `topic:NAME`, `capability:NAME` or `broadcast`."""
    text: str
    """Why it ended, where no comment says so."""
    sequence: int
    """In the log once it is approved; else 0."""
    votes: tuple[tuple[str, bool, str], ...]
    """Who said what: subject, whether approved, comment."""
    message: Message | None = None
    """As it was sent; only of `get`, and until it is approved."""


class Approvals:
    """Of one workspace."""

    def __init__(self, caller: Caller, workspace_id: str) -> None:
        self._caller = caller
        self._workspace_id = workspace_id

    async def list(self, state: ApprovalState | None = None) -> Sequence[Approval]:
        """All, or those in a state, the newest first."""
        wanted = f"APPROVAL_STATE_{(state or 'unspecified').upper()}"
        found: list[Approval] = []
        token = ""
        while True:
            request = approval.ListApprovalsRequest(workspace_id=self._workspace_id, state=wanted, page_token=token)
            answer = await self._caller.unary(_LIST, request, workspace_id=self._workspace_id)
            found += [_approval(one) for one in answer.approvals]
            token = answer.next_page_token
            if not token:
                return found

    async def get(self, approval_id: int) -> Approval:
        """One of them, with its message."""
        request = approval.GetApprovalRequest(workspace_id=self._workspace_id, approval_id=approval_id)
        answer = await self._caller.unary(_SHOW, request, workspace_id=self._workspace_id)
        return _approval(answer.approval, Message(answer.message) if answer.HasField("message") else None)

    async def approve(self, approval_id: int, comment: str = "") -> Approval:
        """Lets it through. Raises Refused with APPROVAL_ENDED when somebody was quicker, Exhausted with INBOX_FULL to try later."""
        request = approval.ApproveMessageRequest(workspace_id=self._workspace_id, approval_id=approval_id, comment=comment)
        return _approval((await self._caller.unary(_APPROVE, request, workspace_id=self._workspace_id)).approval)

    async def deny(self, approval_id: int, comment: str = "") -> Approval:
        """Refuses it; one denial is enough. Raises as `approve`."""
        request = approval.DenyMessageRequest(workspace_id=self._workspace_id, approval_id=approval_id, comment=comment)
        return _approval((await self._caller.unary(_DENY, request, workspace_id=self._workspace_id)).approval)


def _policy(found: policy.Policy) -> Policy:
    return Policy(found.revision, json.loads(found.json) if found.json else None, found.updated_by)


def _approval(found: approval.Approval, message: Message | None = None) -> Approval:
    state: Any = approval.ApprovalState.Name(found.state).removeprefix("APPROVAL_STATE_").lower()
    votes = tuple((vote.by, vote.approved, vote.comment) for vote in found.votes)
    return Approval(found.approval_id, state, found.from_sandbox_id, found.to, found.text, found.sequence, votes, message)
