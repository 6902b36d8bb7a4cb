"""The methods of the broker that this package calls, as data: path, and how request and answer are read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class _Wire(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802


RequestT = TypeVar("RequestT", bound=_Wire)
ResponseT = TypeVar("ResponseT", bound=_Wire)


@dataclass(frozen=True, eq=False)
class Method(Generic[RequestT, ResponseT]):
    """One RPC. Compared by identity, so that it can name what is kept for it."""

    path: str
    request: type[RequestT]
    response: type[ResponseT]

    @property
    def serialise(self) -> Callable[[RequestT], bytes]:
        """Of a request."""
        return self.request.SerializeToString

    @property
    def parse(self) -> Callable[[bytes], ResponseT]:
        """Of an answer."""
        parse: Any = self.response
        return parse.FromString  # type: ignore[no-any-return]


def method(service: str, name: str, request: type[RequestT], response: type[ResponseT]) -> Method[RequestT, ResponseT]:
    """`service` is the area and the name: `messaging.Publish` is `aintandem.messaging.v1.PublishService`."""
    area, _, stem = service.partition(".")
    return Method(f"/aintandem.{area}.v1.{stem}Service/{name}", request, response)
