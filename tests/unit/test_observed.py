"""What is counted of each request, and what a client is told of its own: over a scripted core."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from prometheus_client import parser

from fakes.asgi import AUTH, JSON, KEY, Client, request
from fakes.engine import FakeFailure, FakeOutcome, FakeReply, failed, streaming
from fakes.gateway import TWO, FakeGateway, Made
from sluicegate import observability
from sluicegate.engine import Marks, Metrics
from sluicegate.observability import key_of
from sluicegate.settings import Secret, ServerConfig
from sluicegate.telemetry.logs import Log
from sluicegate.usage.settle import Entry
from sluicegate.usage.tell import End, Teller, Used

pytestmark = pytest.mark.asyncio
SECRET = "operators-only"
TIMED = (b"x-sluicegate-timing", b"1")
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
STREAM = b'{"model":"m","stream":true}'


async def figures(gateway: FakeGateway) -> dict[str, float]:
    """Every series that is not 0, as `name{labels}` without quotes."""
    headers = [(b"authorization", f"Bearer {SECRET}".encode())]
    answer = await request(gateway.app, "/metrics", b"", headers, "GET")
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    families = parser.text_string_to_metric_families(answer.body.decode())
    return {
        sample.name.removeprefix("sluicegate_")
        + "{"
        + ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        + "}": sample.value
        for family in families
        for sample in family.samples
        if sample.value
    }


def observed(make: Made, script: Any = None, *upstreams: Any, **options: Any) -> FakeGateway:
    return make(script, *upstreams, metrics_key=Secret(SECRET), **options)


async def test_an_answer_is_counted_in_every_family(make: Made) -> None:
    outcome = FakeOutcome(cached_tokens=2, reasoning_tokens=1)
    gateway = observed(make, FakeReply(outcome=outcome))
    assert (await request(gateway.app, body=BODY)).status == 200
    found = await figures(gateway)
    assert found["requests_total{operation=chat,status=2xx,workspace=default}"] == 1
    assert found["tokens_total{type=prompt,workspace=default}"] == 3
    assert found["tokens_total{type=completion,workspace=default}"] == 5
    assert found["tokens_total{type=cached,workspace=default}"] == 2
    assert found["tokens_total{type=reasoning,workspace=default}"] == 1
    assert found["upstream_requests_total{status=2xx,upstream=one}"] == 1
    assert found["model_tokens_total{model=m,type=completion}"] == 5
    assert found["time_to_first_token_seconds_sum{upstream=one}"] == 0.0015
    assert found["upstream_duration_seconds_sum{upstream=one}"] == 0.002
    for phase in ("authenticate", "read", "resolve", "admit", "prepare", "upstream", "relay", "settle"):
        assert found[f"request_phase_seconds_count{{phase={phase},stream=false}}"] == 1, phase
    assert found["request_overhead_seconds_count{operation=chat}"] == 1
    assert "errors_total" not in "".join(found)
    assert "open_requests{}" not in found


async def test_each_request_is_counted_once_however_it_ends(make: Made) -> None:
    ends = iter(
        [
            streaming(b"data: 1\n\n"),
            streaming(outcome=FakeOutcome(state="failed", failure=FakeFailure("upstream_broken", 502))),
            streaming(outcome=FakeOutcome(state="cancelled")),
            failed(FakeFailure("upstream_auth_error", 502, code="upstream_auth_error", retryable=False)),
        ]
    )
    gateway = observed(make, lambda _: next(ends), limits={"requests_per_minute": 4})
    for _ in range(3):
        await request(gateway.app, body=STREAM)
    statuses = [(await request(gateway.app, body=BODY)).status for _ in range(2)]
    assert statuses == [502, 429]
    assert (await request(gateway.app, headers=[AUTH])).status == 415
    assert (await request(gateway.app, headers=[JSON])).status == 401
    assert (await request(gateway.app, "/nowhere")).status == 404
    found = await figures(gateway)
    counted = {name: value for name, value in found.items() if name.startswith("requests_total")}
    assert counted == {
        "requests_total{operation=chat,status=2xx,workspace=default}": 2,
        "requests_total{operation=chat,status=4xx,workspace=default}": 3,
        "requests_total{operation=chat,status=5xx,workspace=default}": 1,
        "requests_total{operation=chat,status=4xx,workspace=}": 1,
        "requests_total{operation=other,status=4xx,workspace=}": 1,
    }
    assert {name: value for name, value in found.items() if name.startswith("errors_total")} == {
        "errors_total{code=upstream_broken}": 1,
        "errors_total{code=client_closed}": 1,
        "errors_total{code=upstream_auth_error}": 1,
        "errors_total{code=rate_limit_exceeded}": 1,
        "errors_total{code=unsupported_content_type}": 1,
        "errors_total{code=invalid_api_key}": 1,
        "errors_total{code=unknown_url}": 1,
    }
    assert found["limit_rejections_total{reason=rate,subject=key}"] == 1
    # A stream that broke off, and a call that was refused; not the one that its client left.
    assert found["upstream_failures_total{upstream=one}"] == 2
    # A model that nobody has answered for is no label.
    assert not any("model_requests" in name and "other" in name for name in found)


async def test_open_requests_are_those_that_are_open(make: Made) -> None:
    gateway = observed(make, lambda _: None)
    clients = [Client([body]) for body in (BODY, STREAM, STREAM)]
    tasks = [asyncio.create_task(request(gateway.app, client=client)) for client in clients]
    await asyncio.sleep(0.2)
    found = await figures(gateway)
    assert (found["open_requests{}"], found["open_streams{}"]) == (3, 2)
    for client in clients:
        client.leave()
    await asyncio.gather(*tasks, return_exceptions=True)
    found = await figures(gateway)
    assert "open_requests{}" not in found
    assert "open_streams{}" not in found
    assert found["errors_total{code=client_closed}"] == 3
    # They left while the upstream was waited for.
    assert found["request_phase_seconds_count{phase=upstream,stream=true}"] == 2
    assert "request_phase_seconds_count{phase=relay,stream=true}" not in found


async def test_further_tries_are_counted(make: Made) -> None:
    gateway = observed(
        make, lambda asked: failed() if "one" in asked.upstream.base_url else FakeReply(), *TWO
    )
    assert (await request(gateway.app, body=BODY)).status == 200
    found = await figures(gateway)
    assert found["upstream_retries_total{}"] == 1
    assert found["upstream_failures_total{upstream=one}"] == 1
    assert "upstream_failures_total{upstream=two}" not in found
    assert found["upstream_requests_total{status=2xx,upstream=two}"] == 1
    assert "upstream_requests_total{status=2xx,upstream=one}" not in found


@pytest.mark.parametrize(("status", "counted"), [(400, 0), (404, 0), (499, 0), (429, 1), (502, 1), (504, 1)])
async def test_what_the_client_did_wrong_is_no_failure_of_the_upstream(
    make: Made, status: int, counted: int
) -> None:
    failure = FakeFailure("upstream_rejected", status, retryable=False, counts_against_upstream=False)
    gateway = observed(make, failed(failure))
    await request(gateway.app, body=BODY)
    assert (await figures(gateway)).get("upstream_failures_total{upstream=one}", 0) == counted


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_the_phases_are_told_on_request(make: Made, body: bytes) -> None:
    gateway = observed(make, streaming(b"data: 1\n\n") if body is STREAM else FakeReply())
    plain = await request(gateway.app, body=body)
    assert "server-timing" not in plain.headers
    gateway = observed(make, streaming(b"data: 1\n\n") if body is STREAM else FakeReply())
    answer = await request(gateway.app, body=body, headers=[AUTH, JSON, TIMED])
    told = answer.headers["server-timing"]
    assert [entry.partition(";")[0] for entry in told.split(", ")] == [
        "authenticate",
        "read",
        "resolve",
        "admit",
        "prepare",
        "upstream",
    ]
    assert re.fullmatch(r"(\w+;dur=[0-9.]+(e-\d+)?(, |$))+", told)
    # Ours alone: an upstream need not know who asks for it.
    assert "headers" not in gateway.engine.asked[0].options


async def test_a_refusal_tells_its_phases_too(make: Made) -> None:
    gateway = observed(make, failed(FakeFailure(retryable=False)), limits={"requests_per_minute": 1})
    told = []
    for status in (502, 429, 415):
        kind = [] if status == 415 else [JSON]
        answer = await request(gateway.app, body=BODY, headers=[AUTH, *kind, TIMED])
        assert answer.status == status
        told.append([entry.partition(";")[0] for entry in answer.headers["server-timing"].split(", ")])
    assert told == [
        ["authenticate", "read", "resolve", "admit", "prepare", "upstream"],
        ["authenticate", "read", "resolve", "admit"],
        ["authenticate", "read"],
    ]
    plain = await request(gateway.app, body=BODY)
    assert plain.status == 429
    assert "server-timing" not in plain.headers


@pytest.mark.parametrize("value", [b"0", b"true", b"", b"1" * 5000])
async def test_another_value_asks_for_nothing(make: Made, value: bytes) -> None:
    answer = await request(make().app, headers=[AUTH, JSON, (b"x-sluicegate-timing", value)])
    assert "server-timing" not in answer.headers


async def test_waiting_for_body_and_upstream_is_no_overhead(make: Made) -> None:
    gateway = observed(make, lambda _: None)

    class Slow(Client):
        async def receive(self) -> dict[str, Any]:
            if self.received == 0:
                await asyncio.sleep(0.2)
            return await super().receive()

    task = asyncio.create_task(request(gateway.app, client=Slow([BODY])))
    await asyncio.sleep(0.5)
    gateway.engine.asked[0].call.future.set_result(failed(FakeFailure(retryable=False)))
    assert (await task).status == 502
    found = await figures(gateway)
    assert found["request_duration_seconds_sum{operation=chat,stream=false}"] > 0.45
    assert found["request_phase_seconds_sum{phase=read,stream=false}"] > 0.19
    assert found["request_phase_seconds_sum{phase=upstream,stream=false}"] > 0.2
    overhead = found["request_overhead_seconds_sum{operation=chat}"]
    rest = found["request_duration_seconds_sum{operation=chat,stream=false}"] - sum(
        found[f"request_phase_seconds_sum{{phase={phase},stream=false}}"] for phase in ("read", "upstream")
    )
    assert overhead == pytest.approx(rest, abs=1e-4)


async def test_overhead_of_an_answer_is_by_the_clock_of_the_core() -> None:
    marks = Marks(10.0, known=10.1, read=10.3, asked=11.0, answered=12.0, waited=1.5)
    entry = Entry("req", "chat", marks)
    outcome: Any = FakeOutcome(duration_us=900_000)
    # In all 3 s: 0.2 for the body, 0.5 for an upstream that failed, 0.9 for the one that answered.
    assert entry.overhead_us(13.0, outcome) == pytest.approx(1_400_000, abs=2)
    assert entry.overhead_us(13.0, None) == pytest.approx(1_300_000, abs=2)
    # A clock of the core that runs ahead is not less than nothing.
    assert entry.overhead_us(10.5, outcome) == 0


async def test_a_count_that_fails_harms_no_request(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def ended(self, *_: Any) -> None:
            raise OverflowError("canary")

    gateway = observed(make)
    log = Log(gateway.output)
    broken: Any = Broken()
    Teller(log, broken).tell(Entry("req_1", "chat", Marks(0.0)), End(200, None, Used(0, 0), None, 0, 1.0))
    log.close()
    assert '"telemetry_failed"' in gateway.output.getvalue()
    assert "canary" not in gateway.output.getvalue()


async def test_a_trace_that_fails_harms_no_request(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        """Fails in the beginning; then at the call and at the end."""

        id = "0" * 32
        begins = False

        def begin(self, *_: Any) -> Any:
            if self.begins:
                return self
            raise RuntimeError("canary")

        def asked(self, *_: Any) -> Any:
            raise RuntimeError("canary")

        ended = asked

        def close(self) -> None:
            """Nothing waits."""

    broken = Broken()
    monkeypatch.setattr(observability, "open_tracer", lambda: broken)
    gateway = observed(make)
    head = (b"openai-beta", b"x")
    for begins in (False, True):
        broken.begins = begins
        answer = await request(gateway.app, body=BODY, headers=[AUTH, JSON, head])
        assert answer.status == 200
        assert gateway.engine.asked[-1].options["headers"] == [("openai-beta", "x")]
    found = await figures(gateway)
    assert found["requests_total{operation=chat,status=2xx,workspace=default}"] == 2
    assert [line["event"] for line in gateway.lines] == ["telemetry_failed"] * 4
    assert "canary" not in gateway.output.getvalue()


async def test_metrics_can_be_left_out(make: Made) -> None:
    gateway = make(metrics=False)
    assert (await request(gateway.app, body=BODY)).status == 200
    assert (await request(gateway.app, "/metrics", b"", [AUTH], "GET")).status == 404


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [AUTH],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"operators-only")],
        [(b"x-api-key", b"x")],
    ],
)
async def test_metrics_are_for_operators(make: Made, headers: list[tuple[bytes, bytes]]) -> None:
    gateway = observed(make)
    answer = await request(gateway.app, "/metrics", b"", headers, "GET")
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert "metrics_key" in answer.error["message"]
    assert SECRET not in answer.body.decode()
    without = await request(make().app, "/metrics", b"", [AUTH], "GET")
    assert without.status == 401


async def test_methods_and_forms_of_the_key(make: Made) -> None:
    gateway = observed(make)
    key = (b"authorization", f"bearer {SECRET}".encode())
    assert (await request(gateway.app, "/metrics", b"", [key], "HEAD")).status == 200
    answer = await request(gateway.app, "/metrics", b"", [key], "POST")
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    accept = (b"accept", b"application/openmetrics-text; version=1.0.0")
    answer = await request(gateway.app, "/metrics", b"", [key, accept], "GET")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


async def test_no_secret_and_no_prompt_is_in_the_metrics(make: Made) -> None:
    gateway = observed(make)
    body = b'{"model":"m","messages":[{"role":"user","content":"canary-prompt"}],"user":"canary-user"}'
    await request(gateway.app, body=body)
    text = "".join(await figures(gateway))
    assert "canary" not in text
    assert KEY not in text
    assert "tester" not in text


async def test_models_that_clients_make_up_are_bounded_to_what_was_answered() -> None:
    metrics = Metrics()
    for number in range(300):
        teller = Teller(Log(), metrics)
        entry = Entry("r", "chat", Marks(0.0), upstream="u", upstream_model=f"made-up-{number}")
        teller.tell(entry, End(404, "model_not_found", Used(0, 0), None, 0, 1.0))
    assert not [sample for sample in metrics.read() if sample[0].startswith("model")]


async def test_the_log_says_whose_request_it_was(make: Made) -> None:
    gateway = observed(make, access_log=True)
    answer = await request(gateway.app, body=BODY)
    (line,) = gateway.lines
    assert line["event"] == "request"
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["workspace"], line["key"], line["model"], line["status"]) == ("default", "tester", "m", 200)
    assert 0 <= line["own_ms"] <= line["ms"]
    assert list(line["phases_ms"]) == [
        "authenticate",
        "read",
        "resolve",
        "admit",
        "prepare",
        "upstream",
        "relay",
    ]
    assert "trace_id" not in line


async def test_the_key_may_come_from_the_environment() -> None:
    given = {"SLUICEGATE_METRICS_KEY": " from-outside "}
    assert key_of(ServerConfig(), {}) is None
    assert key_of(ServerConfig(), given) == Secret("from-outside")
    assert key_of(ServerConfig(metrics_key=Secret("own")), given) == Secret("own")
    assert "from-outside" not in repr(key_of(ServerConfig(), given))
