"""What requests of both clients are made of: bodies in plain JSON, secrets in the open, and what a change leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import SecretStr

from aintandem.models import Model, Value, Webhook

T = TypeVar("T")


class Keep(Enum):
    """That a field stays what it is, where None takes it away or sets it back to its default."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
Change: TypeAlias = T | Keep | None
"""What is to become of a field: a value, None for its default, `KEEP`."""


def plain(value: Any) -> Any:
    """As JSON has it, secrets in the open: the result is only for sending. Of models what is set or no default, of times RFC 3339."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Model):
        value = _said(value)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _said(model: Model) -> dict[str, Any]:
    """Also a default that was changed in place, as a list is with `append`."""
    fields = type(model).model_fields
    said = {name for name, field in fields.items() if getattr(model, name) != field.get_default(call_default_factory=True)}
    return {name: getattr(model, name) for name in sorted(said | model.model_fields_set)}


def changes(**fields: Any) -> dict[str, Any]:
    """The body of a change: what is `KEEP` is left out."""
    return {name: plain(value) for name, value in fields.items() if value is not KEEP}


def given(**fields: Any) -> dict[str, Any]:
    """The body of something new: what is None is left out."""
    return {name: plain(value) for name, value in fields.items() if value is not None}


def values(named: Mapping[str, Value | None]) -> dict[str, Any]:
    """Headers or variables, with secrets marked as such; None takes one away."""
    return {name: {"secret": value.get_secret_value()} if isinstance(value, SecretStr) else plain(value) for name, value in named.items()}


def changed_values(named: Change[Mapping[str, Value | None]]) -> dict[str, Any] | Keep | None:
    """The same of a change."""
    return named if named is None or isinstance(named, Keep) else values(named)


def webhook(wanted: Webhook | Mapping[str, Any]) -> dict[str, Any]:
    """One without what is only shown."""
    said: dict[str, Any] = plain(wanted)
    return {name: value for name, value in said.items() if name != "has_secret" and not (name == "secret" and value is None)}


def if_match(revision: int | None) -> dict[str, str]:
    """The header that ties a request to what was seen; none for None."""
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def when(time: datetime | str | None) -> str | None:
    """A time as RFC 3339 in UTC or with its offset. One without a zone is taken as the local one of this machine."""
    if not isinstance(time, datetime):
        return time
    return (time if time.tzinfo else time.astimezone()).isoformat()
