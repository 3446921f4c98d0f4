"""OpenTelemetry for clients: a span and a measurement for each call, and the trace carried on to the server.

Off unless a client is made with `telemetry=OpenTelemetry()`; needs `pip install 'dispatch-sdk[otel]'`. Only the API of
OpenTelemetry is used: which spans and metrics are exported, and where to, is for the program to set up. Names follow
the semantic conventions for RPC (https://opentelemetry.io/docs/specs/semconv/rpc/).
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dispatch import __version__
from dispatch.operations import Operation
from dwp_core.errors import DispatchError, InvalidRequest
from dwp_core.methods import METHODS

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

_NAME = "dispatch"


class OpenTelemetry:
    """Spans and metrics of a client's calls.

    Each call is a span of kind "client" under the method's name, a failed one with its error. `rpc.client.duration`
    counts seconds by method and outcome. Requests carry `traceparent` (https://www.w3.org/TR/trace-context/) as a
    member of their data, so that the server can go on with the trace.

    Args:
        tracer_provider: where spans go; None takes the global one.
        meter_provider: where measurements go; None takes the global one.

    Raises:
        InvalidRequest: OpenTelemetry is not installed.

    Example:
        >>> from dispatch import Dispatch
        >>> client = Dispatch(url="ws://127.0.0.1:8080/dwp", telemetry=OpenTelemetry())
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, propagate, trace
        except ImportError:
            raise InvalidRequest("telemetry needs OpenTelemetry: pip install 'dispatch-sdk[otel]'") from None
        self._trace = trace
        self._inject = propagate.inject
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        self._duration = meter.create_histogram(
            "rpc.client.duration", unit="s", description="How long calls take, from the call to its result."
        )

    @contextmanager
    def call(self, operation: Operation[Any], where: str) -> Generator[Operation[Any]]:
        """One call, from its beginning to its end; the operation as it is to be sent.

        Args:
            where: the server's address, without secrets.
        """
        method = operation.method or "ping"
        attributes = {"rpc.system": "dwp", "rpc.method": method, "server.address": where}
        begun = time.perf_counter()
        kind = self._trace.SpanKind.CLIENT
        with self._tracer.start_as_current_span(method, kind=kind, attributes=attributes) as span:
            outcome = "cancelled"
            try:
                yield self._carrying_trace(operation)
                outcome = "ok"
            except Exception as error:
                outcome = type(error).__name__
                _add_code(span, error)
                raise
            finally:
                elapsed = time.perf_counter() - begun
                self._duration.record(elapsed, {"rpc.method": method, "outcome": outcome})

    def _carrying_trace(self, operation: Operation[Any]) -> Operation[Any]:
        """With the context of the trace among its data, if those are the members of a method that we know."""
        carrier: dict[str, str] = {}
        self._inject(carrier)
        if not carrier or operation.method not in METHODS or operation.data[:1] not in (b"", b"{"):
            return operation
        members = json.dumps(carrier, separators=(",", ":")).encode()[1:]
        empty = operation.data in (b"", b"{}")
        return replace(operation, data=(b"{" if empty else operation.data[:-1] + b",") + members)


def _add_code(span: Span, error: Exception) -> None:
    if isinstance(error, DispatchError):
        span.set_attribute("rpc.dwp.error_code", error.code)
