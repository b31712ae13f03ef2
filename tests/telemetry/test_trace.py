"""Traces: a real gateway that sends to a collector over a socket, and spans as they are made."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from trace_rig import KEY, Quiet, Upstream, ask, attributes, gateway, listening, traced

from fakes.engine import FakeOutcome
from processes import free_port
from sluicegate.clock import monotonic
from sluicegate.engine import Marks
from sluicegate.telemetry.trace import TraceError, Tracer, exporter_for, is_asked_for, open_tracer
from sluicegate.usage.settle import Entry
from sluicegate.usage.tell import End, Used

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"

pytestmark = pytest.mark.timeout(120)


def test_a_request_is_two_spans_at_the_collector(tmp_path: Path) -> None:
    variables = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"}
    with traced(tmp_path, OTEL_EXPORTER_OTLP_HEADERS="x-tenant=ops", **variables) as rig:
        server, collector, upstream, port = rig
        status, headers = ask(server.port, "shown", traceparent=HEADER, tracestate="vendor=1")
        assert status == 200
        spans = collector.wait(2)
    request, call = spans["POST /v1/chat/completions"], spans["chat m"]
    assert request.trace_id.hex() == call.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert call.parent_span_id == request.span_id
    # The upstream goes on below the call.
    (seen,) = upstream.headers
    assert seen["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert seen["tracestate"] == "vendor=1"
    found = attributes(request)
    assert found["http.request.method"] == "POST"
    assert found["http.route"] == "/v1/chat/completions"
    assert found["http.response.status_code"] == 200
    assert found["sluicegate.request_id"] == headers["x-request-id"]
    assert (found["sluicegate.workspace"], found["gen_ai.request.model"]) == ("default", "shown")
    assert 0 <= found["sluicegate.overhead_seconds"] < 5
    assert "error.type" not in found
    found = attributes(call)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "openai"
    assert (found["gen_ai.request.model"], found["gen_ai.response.model"]) == ("m", "real")
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (7, 3)
    assert found["gen_ai.usage.cache_read.input_tokens"] == 4
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", port)
    assert found["sluicegate.upstream"] == "up"
    now = time.time_ns()
    assert now - 120e9 < request.start_time_unix_nano <= call.start_time_unix_nano
    assert call.end_time_unix_nano <= request.end_time_unix_nano <= now
    (resource,) = collector.resources
    assert resource["service.name"] == "sluicegate"
    assert resource["deployment.environment"] == "test"
    assert {name.lower(): value for name, value in collector.headers[0].items()}["x-tenant"] == "ops"
    text = str(collector.spans)
    assert "canary" not in text
    assert KEY not in text


def test_streams_failovers_and_refusals(tmp_path: Path) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{sink}/v1/traces"}
    with traced(tmp_path, OTEL_SERVICE_NAME="mine", **variables) as (server, collector, upstream, _):
        assert ask(server.port, "Both", stream=True)[0] == 200
        spans = collector.wait(3)
        tries = [seen["traceparent"].split("-") for seen in upstream.headers]
        assert len({trace for _, trace, _, _ in tries}) == 1
        assert [span for _, _, span, _ in tries] == [
            spans["chat broken"].span_id.hex(),
            spans["chat m"].span_id.hex(),
        ]
        failed = attributes(spans["chat broken"])
        assert failed["error.type"] == "upstream_error"
        assert spans["chat broken"].status.code == 2
        streamed = attributes(spans["chat m"])
        assert streamed["gen_ai.request.stream"] is True
        assert streamed["gen_ai.usage.output_tokens"] == 2
        assert streamed["gen_ai.response.time_to_first_chunk"] > 0
        request = spans["POST /v1/chat/completions"]
        assert attributes(request)["sluicegate.attempts"] == 2
        assert attributes(request)["sluicegate.assistant"]
        assert request.status.code == 0
        collector.spans.clear()
        # A refusal is a span of its own; that of an unknown key too.
        assert ask(server.port, "nobody-has-it", authorization="Bearer wrong")[0] == 401
        (refused,) = collector.wait(1).values()
        assert attributes(refused)["error.type"] == "invalid_api_key"
        assert attributes(refused)["http.response.status_code"] == 401
        assert refused.status.code == 0
        collector.spans.clear()
        assert ask(server.port, "broken")[0] >= 500
        spans = collector.wait(2)
        assert spans["POST /v1/chat/completions"].status.code == 2
        assert "canary" not in str(spans)
    assert collector.resources[0]["service.name"] == "mine"


def test_a_sampler_that_drops_still_tells_the_upstream(tmp_path: Path) -> None:
    with traced(tmp_path, OTEL_TRACES_SAMPLER="always_off") as (server, collector, upstream, _):
        assert ask(server.port, traceparent=HEADER)[0] == 200
    (seen,) = upstream.headers
    _, trace, _, flags = seen["traceparent"].split("-")
    assert (trace, flags) == (TRACE, "00")
    assert collector.spans == []


@pytest.mark.parametrize("how", ["refuses", "is away", "is silent"])
def test_a_collector_that_takes_nothing_harms_no_request(tmp_path: Path, how: str) -> None:
    away = free_port()

    class Silent(Quiet):
        def do_POST(self) -> None:  # noqa: N802
            time.sleep(5)
            self.close_connection = True

    limits = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
    if how == "is away":
        limits["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{away}"
    kind = Silent if how == "is silent" else None
    with traced(tmp_path, kind, OTEL_BSP_SCHEDULE_DELAY="50", **limits) as (server, collector, _, _):
        collector.status = 503
        took = []
        for _ in range(200):
            began = time.monotonic()
            assert ask(server.port)[0] == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[180] < 1
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 15


def test_without_the_variables_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    upstream = Upstream()
    with listening(upstream.kind) as model, gateway(tmp_path, model.server_port) as server:
        assert ask(server.port, traceparent=HEADER)[0] == 200
    # As it came.
    assert upstream.headers[0]["traceparent"] == HEADER
    code = "import sys, sluicegate.app; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
    assert open_tracer({}) is None


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], asked: bool) -> None:
    assert is_asked_for(environment) is asked
    assert (exporter_for(environment) is not None) is asked


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "jaeger"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "http/protobuf",
        ),
    ],
)
def test_what_cannot_be_sent_is_told(environment: dict[str, str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        exporter_for(environment)


def test_a_wrong_variable_stops_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="OTEL_TRACES_EXPORTER: `jaeger`"),
        gateway(tmp_path, free_port(), OTEL_TRACES_EXPORTER="jaeger"),
    ):
        pass


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TraceError, match=r"pip install 'sluicegate\[otel\]'"):
        exporter_for({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})


@pytest.fixture
def spans() -> Iterator[tuple[Tracer, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield Tracer(provider), exporter
    provider.shutdown()


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("completions", "text_completion m"),
        ("embeddings", "embeddings m"),
        ("responses", "chat m"),
        ("chat", "chat m"),
    ],
)
def test_names_of_operations(spans: tuple[Tracer, InMemorySpanExporter], operation: str, name: str) -> None:
    tracer, exporter = spans
    trace = tracer.begin(monotonic() - 1.0, ())
    entry = Entry("req_1", operation, Marks(0.0), upstream="u", upstream_model="m")
    trace.asked(entry, "https://[::1]:8443", ())
    outcome: Any = FakeOutcome(finish_reasons=[])
    trace.ended(entry, End(200, None, Used(1, 2), outcome, 5, 0.0))
    call, request = exporter.get_finished_spans()
    assert (call.name, call.kind, request.kind) == (name, SpanKind.CLIENT, SpanKind.SERVER)
    assert request.name == f"POST /v1/{'chat/completions' if operation == 'chat' else operation}"
    assert call.attributes is not None
    assert (call.attributes["server.address"], call.attributes["server.port"]) == ("::1", 8443)
    assert "gen_ai.response.finish_reasons" not in call.attributes
    assert request.start_time is not None
    assert request.end_time is not None
    assert request.end_time - request.start_time == pytest.approx(1e9, rel=0.5)


def test_a_stream_that_broke_off_is_an_error_though_it_was_a_200(
    spans: tuple[Tracer, InMemorySpanExporter],
) -> None:
    tracer, exporter = spans
    entry = Entry("req_1", "chat", Marks(0.0), upstream="u", upstream_model="m")
    outcome: Any = FakeOutcome()
    for code in ("upstream_broken", "client_closed"):
        trace = tracer.begin(monotonic(), ())
        trace.asked(entry, "http://u", ())
        trace.ended(entry, End(200, code, Used(1, 2), outcome, 5, 0.0))
        call, request = exporter.get_finished_spans()
        wanted = StatusCode.ERROR if code == "upstream_broken" else StatusCode.UNSET
        assert call.status.status_code is request.status.status_code is wanted
        exporter.clear()


@pytest.mark.parametrize(
    "given", ["garbage", "00-0-0-01", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"]
)
def test_a_broken_traceparent_begins_a_new_trace(
    spans: tuple[Tracer, InMemorySpanExporter], given: str
) -> None:
    tracer, exporter = spans
    trace = tracer.begin(monotonic(), (("traceparent", given), ("openai-beta", "x")))
    entry = Entry("req_1", "chat", Marks(0.0), upstream="u", upstream_model="m")
    passed = dict(trace.asked(entry, "http://u", (("traceparent", given), ("openai-beta", "x"))))
    assert passed["openai-beta"] == "x"
    assert passed["traceparent"] != given
    trace.ended(entry, End(200, None, Used(1, 2), None, 5, 0.0))
    assert exporter.get_finished_spans()[-1].parent is None
