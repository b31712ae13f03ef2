"""U1 to U47: whatever an upstream does, a client sees one of three things, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from faults import scenarios_odd
from faults.cases import Case, cases
from faults.client import KEY, LIMIT, PATHS, Answer, ask, body_for, request_bytes
from faults.content import LAST_CHUNK, TEXT, Asked, chunked_head, events, http_chunk
from faults.pace import LONGEST
from faults.rig import UPSTREAM_KEY, Rig, private_name
from faults.runner import Result, Runner
from faults.steps import Steps, World

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def runner(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Runner]:
    """All selected cases, started together."""
    runner = Runner(rig)
    for item in request.session.items:
        chosen = getattr(item, "callspec", None)
        if chosen is not None and isinstance(chosen.params.get("case"), Case):
            runner.submit(chosen.params["case"])
    yield runner
    runner.close()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in cases()])
def test_the_client_sees_what_the_table_says(case: Case, runner: Runner, rig: Rig) -> None:
    if case.model == "at-private" and private_name() is None:
        pytest.skip("no host name of this machine has a private address")
    result = runner.result(case, timeout=290)
    assert_public(result.answer, rig)
    match case.expect.kind:
        case "refused":
            assert_refused(case, result.answer)
        case "broken":
            assert_broken(case, result.answer)
        case "finished":
            assert_finished(case, result.answer)
    if case.expect.closed:
        assert result.closed, "the upstream connection is still open after a second"
    assert_attempts(case, result)
    assert_neighbour(result.neighbour, result.control, rig)


def assert_public(answer: Answer, rig: Rig) -> None:
    """On everything: a request id, whole framing, and nothing that is nobody's business."""
    assert answer.complete, f"the response breaks off: {answer}"
    assert answer.header("x-request-id"), answer.headers
    shown = answer.body.decode(errors="replace") + repr(answer.headers)
    for secret in (
        KEY,
        UPSTREAM_KEY,
        "127.0.0.1",
        "169.254.",
        *(f":{p}" for p in rig.upstream.ports.values()),
    ):
        assert secret not in shown, f"{secret} is shown: {shown[:2000]}"


def assert_refused(case: Case, answer: Answer) -> None:
    expect = case.expect
    assert answer.status in expect.statuses, answer
    assert (answer.header("content-type") or "").startswith("application/json")
    error = answer.error
    assert error["code"] in expect.codes, error
    assert isinstance(error["type"], str)
    assert expect.says in error["message"]
    assert "<" not in error["message"], "HTML of the upstream"
    assert error["param"] == expect.param
    if expect.should_retry is not None:
        assert answer.header("x-should-retry") == expect.should_retry
    retry_after = answer.header("retry-after")
    if expect.retry_after is not None:
        low, high = expect.retry_after
        assert retry_after is not None
        assert low <= int(retry_after) <= high
    elif retry_after is not None:
        assert 1 <= int(retry_after) <= 120


def assert_broken(case: Case, answer: Answer) -> None:
    assert answer.status == 200, answer
    assert answer.streamed, answer.headers
    assert "[DONE]" not in answer.body.decode(), "a broken stream must not look finished"
    *before, last = answer.chunks
    assert set(last) == {"error"}, last
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["error"]["code"] in case.expect.codes, last
    assert case.expect.says in last["error"]["message"]
    assert not any("error" in chunk for chunk in before), "one error event, not more"
    reasons = [choice.get("finish_reason") for chunk in before for choice in chunk["choices"]]
    assert not any(reasons), "an invented finish_reason"
    if case.expect.text is not None:
        assert text_of(answer) == case.expect.text, "what had arrived before the fault is delivered"


def text_of(answer: Answer) -> str:
    """The text of a broken stream: its error event has no choices."""
    return answer.text


def assert_finished(case: Case, answer: Answer) -> None:
    assert answer.status == 200, answer
    if case.op == "embeddings":
        assert answer.json()["data"][0]["embedding"] == [0.6, 0.8]
        return
    if case.stream:
        assert answer.streamed, answer.headers
        assert answer.data.count("[DONE]") == 1
        assert answer.data[-1] == "[DONE]"
        assert not any("error" in chunk for chunk in answer.chunks)
    else:
        assert (answer.header("content-type") or "").startswith("application/json")
    if case.expect.text is not None:
        assert answer.text == case.expect.text


def assert_attempts(case: Case, result: Result) -> None:
    """A fault is not asked for twice; only a connection that was used before may be replaced once."""
    allowed = 2 if case.model in ("u9-close", "u10-rst") else 1
    assert result.connections <= allowed, f"{result.connections} upstream connections for one request"


def assert_neighbour(neighbour: Answer, control: Answer, rig: Rig) -> None:
    """Right, and not held up: beyond what the same request takes without the gateway."""
    assert neighbour.status == 200, neighbour
    assert neighbour.text == TEXT
    assert neighbour.data[-1] == "[DONE]"
    waited = rig.pace.seconds(neighbour.began, neighbour.began + neighbour.seconds)
    assert waited - control.seconds < 3, (
        f"the neighbour waited {waited:.1f} s, {neighbour.seconds:.1f} s by the wall; first byte after "
        f"{neighbour.arrivals[0][0]:.1f} s; past the gateway at most {control.seconds:.1f} s"
    )


# --- what needs more than one request, or a closer look ---------------------------------------------------


def run(rig: Rig, model: str, *, stream: bool = False, op: str = "chat", **fields: object) -> Answer:
    return asyncio.run(ask(rig.port, op, body_for(op, model, stream=stream, **fields)))


@pytest.mark.parametrize("model", ["u10-rst-reused", "u10-close-reused"])
def test_a_pooled_connection_that_died_costs_the_client_nothing(model: str, rig: Rig) -> None:
    nonce = f"{model}-pair"
    answers = [run(rig, model, user=nonce) for _ in range(4)]
    assert [a.status for a in answers] == [200] * 4, answers
    arrived = sum(c.nonces().count(nonce) for c in rig.connections(nonce))
    assert 4 <= arrived <= 8, "each request is tried once more at most"


def test_a_large_request_is_not_sent_a_second_time(rig: Rig) -> None:
    warm = run(rig, "u10-rst-reused", user="large-warm")
    assert warm.status == 200
    nonce = "large-not-replayed"
    answer = run(rig, "u10-rst-reused", user=nonce, metadata={"padding": "x" * 100_000})
    arrived = sum(c.nonces().count(nonce) for c in rig.connections(nonce))
    assert arrived == 1, "a body above 64 KiB is not replayed"
    if rig.connections(nonce)[0].requests[0].json["user"] != nonce:
        assert answer.status == 502, "it met a used connection"
        assert answer.error["code"] == "upstream_closed"


def test_no_request_is_lost_to_a_peer_that_closes_idle_connections(rig: Rig) -> None:
    async def race() -> list[Answer]:
        answers = []
        for turn in range(300):
            answers.append(await ask(rig.port, "chat", body_for("chat", "u16-closer", user=f"race-{turn}")))
            await asyncio.sleep((turn % 10) / 1000)
        return answers

    answers = asyncio.run(race())
    assert [a.status for a in answers] == [200] * 300, [a for a in answers if a.status != 200][:3]


def test_the_announced_keep_alive_time_is_obeyed(rig: Rig) -> None:
    nonce = "keep-alive-obeyed"
    assert run(rig, "u16b-keep-alive", user=nonce).status == 200
    time.sleep(1.3)
    used = rig.connections(nonce)[0]
    assert run(rig, "u16b-keep-alive", user=nonce).status == 200
    assert used.nonces().count(nonce) == 1, "the connection was used after the time that the server announced"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_a_server_that_closes_after_each_answer_costs_nothing(stream: bool, rig: Rig) -> None:
    answers = [run(rig, "u16b-silent-close", stream=stream) for _ in range(20)]
    assert [a.status for a in answers] == [200] * 20
    assert all(a.text == TEXT for a in answers)


@pytest.mark.parametrize(("model", "status"), [("u17-early-413", 413), ("u17-early-200", 200)])
def test_an_early_response_is_delivered(model: str, status: int, rig: Rig) -> None:
    """A refusal each time: its connection is reset 0.3 s later, and a large request cannot be sent twice."""
    for _ in range(3 if status == 413 else 1):
        answer = run(rig, model, metadata={"padding": "x" * 1_500_000})
        assert answer.status == status, answer
        if status == 413:
            assert answer.error["code"] == "too_large"


def test_redirects_are_never_followed(rig: Rig) -> None:
    for status in (301, 302, 303, 307, 308):
        for stream in (True, False):
            assert run(rig, f"u18-redirect-{status}", stream=stream).status == 502
    nonce = "loop-once"
    assert run(rig, "u19-redirect-loop", user=nonce).status == 502
    assert sum(c.nonces().count(nonce) for c in rig.connections(nonce)) == 1
    assert rig.upstream.records.all("canary") == [], "somebody followed"


def test_nothing_is_sent_in_the_clear_after_a_failed_handshake(rig: Rig) -> None:
    before = {c.number for c in rig.upstream.records.all()}
    for model in ("at-tls-expired", "at-tls-wrong-name", "at-tls-unknown-ca", "at-tls-system"):
        assert run(rig, model, user=f"clear-{model}").status == 502
    new = [c for c in rig.upstream.records.all() if c.number not in before]
    assert [c.requests for c in new if c.requests] == [], (
        "a request arrived over a connection nobody verified"
    )


def test_an_encoded_stream_is_passed_on_event_by_event(rig: Rig) -> None:
    """Each event is sent only when the client has the one before: held back, nothing would go on."""
    arrived = 0

    def in_step(asked: Asked, _: World) -> Steps:
        packer = zlib.compressobj(wbits=31)
        yield chunked_head(asked, "Content-Encoding: gzip")
        for number, part in enumerate(events(asked)):
            yield http_chunk(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH))
            while arrived <= number:
                yield 0.005
        yield http_chunk(packer.flush()) + LAST_CHUNK

    rig.upstream.add("given", in_step)
    body = json.dumps(body_for("chat", "given", stream=True, stream_options={"include_usage": True})).encode()
    with socket.create_connection(("127.0.0.1", rig.port), timeout=LIMIT) as client:
        client.sendall(request_bytes(PATHS["chat"], body))
        got = b""
        while b"\r\n0\r\n\r\n" not in got:
            part = client.recv(65536)
            assert part, got
            got += part
            arrived = got.count(b"\n\n")
    assert b'"error"' not in got
    assert arrived == 8, "five words, the finish, the usage, the marker"


def test_a_bomb_does_not_grow_the_gateway(rig: Rig) -> None:
    run(rig, "u39-gzip-bomb", stream=True)
    before = rig.worker_rss()
    for stream in (True, False) * 5:
        assert run(rig, "u39-gzip-bomb", stream=stream).status == 502
    grown = rig.worker_rss() - before
    assert grown <= 8 << 20, f"{grown >> 10} KiB"


def test_a_large_event_is_held_only_up_to_the_cap(rig: Rig) -> None:
    run(rig, "u43-no-newline", stream=True)
    before = rig.worker_rss()
    for _ in range(4):
        assert '"event_too_large"' in run(rig, "u43-no-newline", stream=True).body.decode()
    # The cap is 1 MiB; the table allows two of them at a time.
    assert rig.worker_rss() - before <= 4 << 20


def test_interleaved_choices_are_relayed_as_they_came(rig: Rig) -> None:
    assert_same_events(rig, "u47-interleaved", scenarios_odd.interleaved_events, n=3)


def test_odd_tool_call_indexes_are_relayed_as_they_came(rig: Rig) -> None:
    assert_same_events(rig, "u47-tools", scenarios_odd.tool_events)


def assert_same_events(rig: Rig, model: str, made: Callable[[Asked], list[bytes]], **fields: Any) -> None:
    answer = run(rig, model, stream=True, **fields)
    sent = b"".join(made(Asked("POST", "/v1/chat/completions", (), b"", json={"model": model})))
    assert answer.data == [part.removeprefix("data: ") for part in sent.decode().split("\n\n")[:-1]]


def test_interleaved_choices_are_aggregated_by_index(rig: Rig) -> None:
    choices = run(rig, "u47-interleaved", n=3).json()["choices"]
    said = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in choices]
    assert said == [(0, "a1a2", "stop"), (1, "b1b2", "stop"), (2, "c1c2", "length")]


def test_tool_calls_are_aggregated_by_index(rig: Rig) -> None:
    choice = run(rig, "u47-tools").json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    calls = [(c["id"], c["function"]) for c in choice["message"]["tool_calls"]]
    assert calls == [
        ("call_0", {"name": "weather", "arguments": '{"city":"Zürich"}'}),
        ("call_2", {"name": "time", "arguments": '{"zone":"UTC"}'}),
    ]


def test_odd_usage_reaches_nobody_as_a_crash(rig: Rig) -> None:
    """The numbers are passed on or left out, but the stream stays well formed."""
    for name in scenarios_odd.ODD_USAGE:
        answer = run(rig, f"u46-{name}", stream=True, stream_options={"include_usage": True})
        assert answer.data[-1] == "[DONE]"
        assert answer.text == TEXT


def test_a_key_that_the_upstream_repeats_is_not_shown(rig: Rig) -> None:
    answer = run(rig, "u20-401")
    assert UPSTREAM_KEY not in answer.body.decode()
    assert not re.search(r"sk-[A-Za-z0-9]", answer.body.decode())


def test_a_rate_limited_upstream_is_left_alone(rig: Rig) -> None:
    assert run(rig, "u22-429-seconds.again").status == 429
    nonce = "asked-too-early"
    again = run(rig, "u22-429-seconds.again", user=nonce)
    assert again.status == 429
    assert again.error["code"] == "rate_limit_exceeded"
    assert 1 <= int(again.header("retry-after") or 0) <= 7
    assert rig.connections(nonce) == [], "the upstream was asked before its time"


def test_an_upstream_that_knows_no_stream_options_is_asked_without(rig: Rig) -> None:
    answer = run(rig, "u24-400-stream-options", stream=True)
    assert answer.data[-1] == "[DONE]"
    assert answer.text == TEXT


def test_no_connection_is_left_in_use(rig: Rig) -> None:
    """Last: what is still open at the upstream is idle, waiting for a next request."""
    deadline = time.monotonic() + LONGEST
    stuck: list[object] = []
    while time.monotonic() < deadline:
        opened = [c for c in rig.upstream.records.all("main") if c.closed is None]
        stuck = [c.nonces()[-1:] for c in opened if c.requests and not c.idle]
        if not stuck:
            return
        time.sleep(0.05)
    assert not stuck, stuck
