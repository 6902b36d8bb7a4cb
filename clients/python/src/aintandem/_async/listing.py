"""Lists that the control plane gives out in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic

from aintandem._async.transport import Transport
from aintandem.models.base import ItemT, Page

_PAGE_SIZE = 100


class Listing(Generic[ItemT]):
    """One kind of list: where it is, the field that has its items, what a page of it is, and the field that leads to the next one."""

    def __init__(self, transport: Transport, where: str, field: str, page: type[Page[ItemT]], *, cursor: str = "next_cursor") -> None:
        self._transport = transport
        self._where = where
        self._field = field
        self._page = page
        self._cursor = cursor

    async def page(self, **query: Any) -> Page[ItemT]:
        """One page; what is None in the query is left out. Raises ApiError."""
        found = await self._transport.request("GET", self._where, query=query)
        following = found.get(self._cursor)
        return self._page(
            items=found[self._field],
            next_cursor=None if following is None else str(following),
            truncated=found.get("truncated", False),
        )

    async def items(self, **query: Any) -> AsyncIterator[ItemT]:
        """All that fit, page by page. Raises ApiError."""
        cursor = None
        while True:
            page = await self.page(**query, limit=_PAGE_SIZE, cursor=cursor)
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return
