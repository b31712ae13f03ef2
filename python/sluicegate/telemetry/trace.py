"""OpenTelemetry traces with the GenAI attributes: a span for each request, and one below it for each call.

An extra: without the variables of OpenTelemetry nothing of it is imported. Prompts, answers, keys and texts
of errors are never in a span.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from sluicegate.clock import monotonic, wall_ns

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

Forward = Sequence[tuple[str, str]]

_EXPORTERS = ("otlp", "console", "none")
_PROTOCOL = "http/protobuf"
_FIRST_5XX = 500
_OPERATIONS = {"completions": "text_completion", "responses": "chat"}
_ROUTES = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
}
_PROPAGATED = ("traceparent", "tracestate")
# A collector that takes nothing must not hold up the end of a worker.
CLOSE_SECONDS = 2.0


class TraceError(Exception):
    """Traces were asked for, and cannot be made. The text says what to do."""


class Request(Protocol):
    """What a span tells of a request; `usage.settle.Entry` is one."""

    request_id: str
    operation: str
    workspace: str
    key: str
    assistant: str | None
    model: str | None
    upstream: str | None
    upstream_model: str | None
    stream: bool
    attempts: int

    def overhead_us(self, closing: float, outcome: Any) -> int:
        """The gateway's own part."""


class Ending(Protocol):
    """How it ended; `usage.settle.End` is one."""

    @property
    def status(self) -> int: ...
    @property
    def code(self) -> str | None: ...
    @property
    def used(self) -> Any: ...
    @property
    def outcome(self) -> Any: ...
    @property
    def micros(self) -> int: ...
    @property
    def closing(self) -> float: ...


def is_asked_for(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the standard variables ask for traces: an endpoint or an exporter, and nothing against it."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter != "none" if exporter else any(environ.get(name, "").strip() for name in endpoints)


def exporter_for(environ: Mapping[str, str] = os.environ) -> "Callable[[], SpanExporter] | None":
    """Makes what sends the spans that the variables ask for; None: they ask for none. Raises TraceError."""
    if not is_asked_for(environ):
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter not in _EXPORTERS:
        raise TraceError(f"OTEL_TRACES_EXPORTER: `{exporter}` is none of {', '.join(_EXPORTERS)}")
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if exporter == "otlp" and protocol not in (None, "", _PROTOCOL):
        raise TraceError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: `{protocol}` is not supported here; set {_PROTOCOL}, and the "
            "endpoint of your collector for it (usually port 4318)"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415
    except ImportError:
        raise TraceError(
            "OTEL_* variables ask for traces, and OpenTelemetry is not installed: "
            "pip install 'sluicegate[otel]', or set OTEL_SDK_DISABLED=true"
        ) from None
    return OTLPSpanExporter if exporter == "otlp" else ConsoleSpanExporter


def open_tracer(environ: Mapping[str, str] = os.environ) -> "Tracer | None":
    """The tracer that the variables ask for; None: none. Call it in the worker: it starts a thread.

    Raises TraceError.
    """
    exporter = exporter_for(environ)
    if exporter is None:
        return None
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    named = {} if environ.get("OTEL_SERVICE_NAME") else {"service.name": "sluicegate"}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter()))
    return Tracer(provider)


class Tracer:
    """Makes the spans of one worker."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        from sluicegate import __version__  # noqa: PLC0415

        self._provider = provider
        self._api = trace
        self._tracer = provider.get_tracer("sluicegate", __version__)
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def begin(self, began: float, forward: Forward) -> "Trace":
        """A request that came at `began`; `forward` has the client's trace context, if there is one."""
        given = {name: value for name, value in forward if name in _PROPAGATED}
        parent = self._propagator.extract(given) if given else None
        span = self._tracer.start_span(
            "request", parent, self._api.SpanKind.SERVER, start_time=_wall_of(began)
        )
        return Trace(self, span)

    def call(self, below: "Span", name: str, attributes: dict[str, Any]) -> "Span":
        """The span of one call to an upstream."""
        context = self._api.set_span_in_context(below)
        return self._tracer.start_span(name, context, self._api.SpanKind.CLIENT, attributes)

    def context_of(self, span: "Span") -> dict[str, str]:
        """The headers that tell an upstream of the span."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers, self._api.set_span_in_context(span))
        return headers

    def fail(self, span: "Span") -> None:
        """Its status is an error."""
        span.set_status(self._api.Status(self._api.StatusCode.ERROR))

    def close(self) -> None:
        """Send what waits, for `CLOSE_SECONDS` at most. Blocking: call it in a thread."""
        # A thread of its own, which is left behind: the SDK tries again for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


class Trace:
    """The spans of one request."""

    __slots__ = ("_call", "_request", "_tracer")

    def __init__(self, tracer: Tracer, span: "Span") -> None:
        self._tracer = tracer
        self._request = span
        self._call: Span | None = None

    @property
    def id(self) -> str:
        """For log lines: 32 hex digits."""
        return f"{self._request.get_span_context().trace_id:032x}"

    def asked(self, request: Request, origin: str, forward: Forward) -> list[tuple[str, str]]:
        """A call to an upstream begins: what is passed on to it of the client's headers."""
        operation = _OPERATIONS.get(request.operation, request.operation)
        address = urlsplit(origin)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            # What it speaks; which server it is, its name says.
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": request.upstream_model or "",
            "gen_ai.request.stream": request.stream,
            "server.address": address.hostname or "",
            "sluicegate.upstream": request.upstream or "",
        }
        if address.port is not None:
            attributes["server.port"] = address.port
        self._call = self._tracer.call(self._request, f"{operation} {request.upstream_model}", attributes)
        others = [pair for pair in forward if pair[0] not in _PROPAGATED]
        return [*others, *self._tracer.context_of(self._call).items()]

    def failed(self, cause: str) -> None:
        """The call ended without an answer."""
        if self._call is not None:
            self._call.set_attribute("error.type", cause)
            self._tracer.fail(self._call)
            self._call.end()
            self._call = None

    def ended(self, request: Request, end: Ending) -> None:
        """The request has ended."""
        if self._call is not None:
            self._answered(self._call, end)
            self._call = None
        span, route = self._request, _ROUTES.get(request.operation, "")
        span.update_name(f"POST {route}")
        found: dict[str, Any] = {
            "http.request.method": "POST",
            "http.route": route,
            "http.response.status_code": end.status,
            "gen_ai.request.model": request.model,
            "sluicegate.request_id": request.request_id,
            "sluicegate.workspace": request.workspace or None,
            "sluicegate.key": request.key or None,
            "sluicegate.assistant": request.assistant,
            "sluicegate.attempts": request.attempts,
            "sluicegate.cost_dollars": end.micros / 1e6,
            "sluicegate.overhead_seconds": request.overhead_us(end.closing, end.outcome) / 1e6,
            "error.type": end.code,
        }
        span.set_attributes({name: value for name, value in found.items() if value is not None})
        # What the client did wrong, or ended, is no error of the server.
        broken = end.code is not None and end.code != "client_closed" and end.outcome is not None
        if end.status >= _FIRST_5XX or broken:
            self._tracer.fail(span)
        span.end()

    def _answered(self, span: "Span", end: Ending) -> None:
        outcome, used = end.outcome, end.used
        found: dict[str, Any] = {
            "gen_ai.usage.input_tokens": used.prompt,
            "gen_ai.usage.output_tokens": used.completion,
            "gen_ai.usage.cache_read.input_tokens": used.cached or None,
            "gen_ai.usage.reasoning.output_tokens": used.reasoning or None,
            "error.type": end.code,
        }
        if outcome is not None:
            found["gen_ai.response.model"] = getattr(outcome, "upstream_model", None)
            found["gen_ai.response.finish_reasons"] = tuple(outcome.finish_reasons) or None
            first = outcome.first_event_us
            found["gen_ai.response.time_to_first_chunk"] = None if first is None else first / 1e6
        span.set_attributes({name: value for name, value in found.items() if value is not None})
        if end.code is not None and end.code != "client_closed":
            self._tracer.fail(span)
        span.end()


def _wall_of(reading: float) -> int:
    return wall_ns() - int((monotonic() - reading) * 1e9)
