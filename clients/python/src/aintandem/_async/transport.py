"""Requests of the control plane: token, retry, idempotency keys, problems, server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from aintandem.errors import ApiError, from_problem
from aintandem.settings import Retry, TokenSource, new_key, unanswered

_log = logging.getLogger("aintandem")
_API = "/api/v1"


def path(*parts: str | int) -> str:
    """Of a resource, with each part escaped: an id may have slashes in it."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


class Transport:
    """Makes requests for all resources of a client."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: TokenSource, retry: Retry) -> None:
        self._http = http
        self._url = url
        self._token = token
        self._retry = retry

    async def request(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        key: bool = True,
        timeout: float | None = None,
    ) -> Any:
        """The JSON of the answer, None where it has none. Tried again where that may help and does nothing twice.

        A POST carries an idempotency key unless `key` is false; then it is not repeated after it was sent. Raises ApiError.
        """
        sent = {**(headers or {})}
        if method == "POST" and key:
            sent.setdefault("Idempotency-Key", new_key())
        may_repeat = method != "POST" or key
        attempt = 1
        while True:
            try:
                return await self._once(method, where, query, body, sent, may_repeat, timeout)
            except ApiError as error:
                wait = self._retry.wait(error, attempt) if may_repeat or error.code == "UNREACHABLE" else None
                if wait is None:
                    raise
                _log.debug("%s %s: %s; trying again in %.2f s", method, where, error, wait)
                await asyncio.sleep(wait)
                attempt += 1

    async def _once(
        self,
        method: str,
        where: str,
        query: Mapping[str, Any] | None,
        body: Any,
        headers: Mapping[str, str],
        may_repeat: bool,
        timeout: float | None,
    ) -> Any:
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        if body is not None:
            options["content"] = json.dumps(body, allow_nan=False)
        try:
            answer = await self._http.request(
                method, self._url + _API + where, params=_said(query), headers=self._headers(headers, body), **options
            )
        except httpx.TransportError as error:
            raise unanswered(error, self._url, may_repeat=may_repeat) from error
        if answer.is_error:
            raise from_problem(answer.status_code, answer.headers, _document(answer))
        return _document(answer) if answer.content else None

    async def events(
        self, where: str, *, query: Mapping[str, Any] | None = None, last_id: str = ""
    ) -> AsyncIterator[tuple[str, str, str]]:
        """Server-sent events of one connection: name, id and data of each. Ends with it; raises ApiError."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        timeout = httpx.Timeout(30.0, read=60.0)  # The control plane sends a sign of life every 15 s.
        try:
            async with self._http.stream(
                "GET", self._url + _API + where, params=_said(query), headers=self._headers(headers, None), timeout=timeout
            ) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise from_problem(answer.status_code, answer.headers, _document(answer))
                name, identity = "message", ""
                data: list[str] = []
                async for line in answer.aiter_lines():
                    field, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if line == "":
                        if data:
                            yield name, identity, "\n".join(data)
                        name, data = "message", []
                    elif field == "data":
                        data.append(value)
                    elif field == "event":
                        name = value
                    elif field == "id":
                        identity = value
        except httpx.TransportError as error:
            raise unanswered(error, self._url, may_repeat=True) from error

    def _headers(self, more: Mapping[str, str], body: Any) -> dict[str, str]:
        found = dict(more)
        token = self._token.read()
        if token:
            found["Authorization"] = f"Bearer {token}"
        if body is not None:
            found["Content-Type"] = "application/json"
        return found


def told_problem(data: str) -> ApiError:
    """What an event `problem` says, with which a stream ends that broke off."""
    said = json.loads(data)
    return ApiError(str(said.get("detail", "")), code=str(said.get("code", "INTERNAL")))


def _said(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """Without what was left out, and true as HTTP has it."""
    found: dict[str, Any] = {}
    for name, value in (query or {}).items():
        if value is not None:
            found[name] = str(value).lower() if isinstance(value, bool) else value
    return found


def _document(answer: httpx.Response) -> Any:
    try:
        return json.loads(answer.content)
    except ValueError:
        return None
