"""A collector and an upstream over sockets, and a gateway between them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from processes import Server, free_port
from processes import gateway as started

KEY = "sk-test-0123456789abcdef"
CHUNK = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"real","choices":'


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"]))

    def say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def listening(kind: type[Quiet]) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Collector:
    """Takes spans over OTLP, and remembers the headers that they came with."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.status = 200
        outer = self

        class Taking(Quiet):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                given = ExportTraceServiceRequest.FromString(self.read())
                outer.headers.append(dict(self.headers))
                if outer.status == 200:
                    for part in given.resource_spans:
                        outer.resources.append(
                            {a.key: a.value.string_value for a in part.resource.attributes}
                        )
                        outer.spans += [span for scope in part.scope_spans for span in scope.spans]
                self.say(outer.status, b"", "application/x-protobuf")

        self.kind = Taking

    def wait(self, count: int) -> dict[str, Any]:
        """So many spans, by name."""
        deadline = time.monotonic() + 30
        while len(self.spans) < count:
            assert time.monotonic() < deadline, [span.name for span in self.spans]
            time.sleep(0.05)
        assert len(self.spans) == count, [span.name for span in self.spans]
        return {span.name: span for span in self.spans}


class Upstream:
    """Chats, and remembers the headers of each call; a model `broken` is a 500."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        outer = self

        class Chatting(Quiet):
            def do_POST(self) -> None:
                asked = json.loads(self.read())
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                if asked["model"] == "broken":
                    self.say(500, b'{"error":{"message":"canary-of-the-upstream"}}')
                elif asked.get("stream"):
                    usage = '{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}'
                    events = [
                        f'{CHUNK}[{{"index":0,"delta":{{"content":"Hi"}},"finish_reason":null}}]}}',
                        f'{CHUNK}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}',
                        f'{CHUNK}[],"usage":{usage}}}',
                        "[DONE]",
                    ]
                    body = "".join(f"data: {event}\n\n" for event in events).encode()
                    self.say(200, body, "text/event-stream")
                else:
                    choice = {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": "Hi"},
                    }
                    usage_of = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
                    usage_of |= {"prompt_tokens_details": {"cached_tokens": 4}}  # type: ignore[dict-item]
                    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "real"}
                    self.say(200, json.dumps({**answer, "choices": [choice], "usage": usage_of}).encode())

        self.kind = Chatting


@contextmanager
def gateway(folder: Path, upstream: int, **environment: str) -> Iterator[Server]:
    settings = (
        f'[[upstreams]]\nname = "up"\nbase_url = "http://127.0.0.1:{upstream}/v1"\nmodels = ["m", "broken"]\n'
        'aliases = { "shown" = "m" }\n'
        '[[assistants]]\nname = "Both"\nmodel = ["up/broken", "up/m"]\n'
    )
    with started(settings, folder, keys=KEY, environment=environment) as server:
        yield server


class Traced(NamedTuple):
    """A gateway that sends its spans to a collector, and its upstream."""

    server: Server
    collector: Collector
    upstream: Upstream
    upstream_port: int


@contextmanager
def traced(folder: Path, kind: type[Quiet] | None = None, **environment: str) -> Iterator[Traced]:
    """`kind`: another collector. In values of the environment `{sink}` is its address."""
    collector, upstream = Collector(), Upstream()
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "{sink}", "OTEL_BSP_SCHEDULE_DELAY": "100", **environment}
    with listening(kind or collector.kind) as sink, listening(upstream.kind) as model:
        address = f"http://127.0.0.1:{sink.server_port}"
        variables = {name: value.replace("{sink}", address) for name, value in variables.items()}
        with gateway(folder, model.server_port, **variables) as server:
            yield Traced(server, collector, upstream, model.server_port)


def ask(port: int, model: str = "m", *, stream: bool = False, **headers: str) -> tuple[int, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    body = {"model": model, "messages": [{"role": "user", "content": "canary-prompt"}], "stream": stream}
    head = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.headers.items()}


def attributes(span: Any) -> dict[str, Any]:
    found = {}
    for attribute in span.attributes:
        value = attribute.value
        kind = value.WhichOneof("value")
        plain = getattr(value, kind)
        found[attribute.key] = [v.string_value for v in plain.values] if kind == "array_value" else plain
    return found
