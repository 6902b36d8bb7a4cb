"""What the control plane answers when it refuses, as exceptions with a stable code (docs/errors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Not a verdict: the same request may be answered otherwise later.
_PASSING = {"BUSY", "IDEMPOTENCY_KEY_IN_USE", "OUTCOME_UNKNOWN", "REQUEST_TOO_SLOW"}


class FieldProblem:
    """A field that is at fault: where it is, and what is wrong with it."""

    def __init__(self, field: str, detail: str) -> None:
        self.field = field
        self.detail = detail

    def __repr__(self) -> str:
        return f"{self.field}: {self.detail}"


class ApiError(Exception):
    """A call that failed. `code` is stable, `retryable` says whether the same call may succeed later."""

    def __init__(
        self,
        text: str,
        *,
        code: str,
        status: int = 0,
        retryable: bool = False,
        retry_after: float | None = None,
        fields: tuple[FieldProblem, ...] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.status = status
        """Of HTTP; 0 where no answer came."""
        self.retryable = retryable
        self.retry_after = retry_after
        """Seconds that the control plane asks to wait; None where it does not say."""
        self.fields = fields
        self.request_id = request_id
        """By it the logs of the control plane and the audit of the broker can be searched."""

    def __str__(self) -> str:
        at = f" ({', '.join(map(repr, self.fields))})" if self.fields else ""
        return f"{self.text}{at} [{self.code}, request {self.request_id or 'unsent'}]"


class InvalidRequest(ApiError):
    """The request is wrong; `fields` names what."""


class NotAuthenticated(ApiError):
    """The token is missing, wrong, expired or revoked."""


class NotPermitted(ApiError):
    """Roles, bindings or a policy forbid it."""


class NotFound(ApiError):
    """It is not there."""


class Conflict(ApiError):
    """It is taken, busy, or was changed by somebody else meanwhile."""


class TooMany(ApiError):
    """A limit is reached; `retry_after` says when to try again, if waiting helps."""


class Unavailable(ApiError):
    """The control plane, or what is behind it, cannot answer now."""


class Unreachable(ApiError):
    """No answer came. `code` is UNREACHABLE where nothing was sent, else CONNECTION_LOST or TIMEOUT."""


_KINDS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    403: NotPermitted,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: TooMany,
    503: Unavailable,
    504: Unavailable,
}


def from_problem(status: int, headers: Mapping[str, str], document: Any) -> ApiError:
    """Reads a problem document; where there is none, somebody stands in between, and the status is all that is known."""
    document = document if isinstance(document, dict) else {}
    code = str(document.get("code") or f"HTTP_{status}")
    retry_after = _retry_after(headers, document)
    fields = tuple(
        FieldProblem(str(one.get("field", "")), str(one.get("detail", "")))
        for one in document.get("errors") or []
        if isinstance(one, dict)
    )
    kind = _KINDS.get(status, ApiError)
    return kind(
        str(document.get("detail") or document.get("title") or f"the control plane answered with status {status}"),
        code=code,
        status=status,
        retryable=retry_after is not None or status in (502, 503) or code in _PASSING,
        retry_after=retry_after,
        fields=fields,
        request_id=headers.get("x-request-id", ""),
    )


def _retry_after(headers: Mapping[str, str], document: dict[str, Any]) -> float | None:
    milliseconds = document.get("retry_after_ms")
    if isinstance(milliseconds, (int, float)):
        return milliseconds / 1000
    try:
        return float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
