"""What all models have, and pages of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ItemT = TypeVar("ItemT")


def _none_if_empty(value: Any) -> Any:
    """Of a time that is not yet, which the control plane says with an empty text."""
    return None if value == "" else value


Time = Annotated[datetime | None, BeforeValidator(_none_if_empty)]
"""RFC 3339; None where it is not yet."""


class Model(BaseModel):
    """What all of them have."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class Page(Model, Generic[ItemT]):
    """Some of a listing. `next_cursor` gives the next page, None on the last one; `truncated` says that there is more: narrow it."""

    items: list[ItemT] = Field(default_factory=list)
    next_cursor: str | None = None
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[ItemT]:  # type: ignore[override]
        return iter(self.items)
