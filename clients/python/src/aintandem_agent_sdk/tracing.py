"""W3C trace context, from OpenTelemetry where it is installed, and else handed on from the message that is being handled."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_handled: ContextVar[str] = ContextVar("aintandem_traceparent", default="")
_is_installed: bool | None = None


def _has_opentelemetry() -> bool:
    global _is_installed
    if _is_installed is None:
        try:
            _is_installed = importlib.util.find_spec("opentelemetry.propagate") is not None
        except ModuleNotFoundError:
            _is_installed = False
    return _is_installed


def current() -> str:
    """The `traceparent` for what is sent now; empty when there is no trace."""
    if _has_opentelemetry():
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        if found := carrier.get("traceparent"):
            return found
    return _handled.get()


@contextmanager
def handling(traceparent: str, name: str) -> Iterator[None]:
    """While a message is handled: its trace goes on in what is sent meanwhile, and with OpenTelemetry in a span called `name`."""
    mark = _handled.set(traceparent)
    try:
        if _has_opentelemetry():
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
            with trace.get_tracer("aintandem").start_as_current_span(name, context=context, kind=trace.SpanKind.CONSUMER):
                yield
        else:
            yield
    finally:
        _handled.reset(mark)
