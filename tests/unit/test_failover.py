"""Failed calls: who else is asked, how often, and what the client is told in the end."""

from __future__ import annotations

import pytest

from fakes.asgi import request
from fakes.engine import Asked, FakeFailure, FakeReply, failed, limited, streaming
from fakes.gateway import TWO, Made
from sluicegate.settings import UpstreamConfig

pytestmark = pytest.mark.asyncio
STREAM = b'{"model":"m","stream":true}'


async def test_a_failure_is_shown_as_the_core_words_it(make: Made) -> None:
    failure = FakeFailure(
        "upstream_error", 400, "invalid_request_error", "context_length_exceeded", "Too long.", "messages"
    )
    failure.retryable = failure.counts_against_upstream = False
    answer = await request(make(failed(failure)).app)
    assert answer.status == 400
    assert answer.error == {
        "message": "Too long.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"]


async def test_the_next_upstream_answers_and_the_client_sees_nothing_of_it(make: Made) -> None:
    gateway = make(
        lambda a: failed() if a.upstream.base_url == "http://one/v1" else FakeReply(body=b"2"),
        *TWO,
        access_log=True,
    )
    answer = await request(gateway.app)
    assert (answer.status, answer.body) == (200, b"2")
    (line,) = gateway.lines
    assert (line["attempts"], line["upstream"], line["status"]) == (2, "two", 200)


async def test_a_stream_fails_over_as_well(make: Made) -> None:
    gateway = make(lambda a: failed() if a.upstream.base_url == "http://one/v1" else streaming(b"x"), *TWO)
    answer = await request(gateway.app, body=STREAM)
    assert (answer.status, answer.body) == (200, b"xdata: [DONE]\n\n")


async def test_what_is_not_retryable_is_not_tried_elsewhere(make: Made) -> None:
    gateway = make(failed(FakeFailure(status=400, retryable=False)), *TWO)
    assert (await request(gateway.app)).status == 400
    assert len(gateway.engine.asked) == 1


async def test_all_have_failed_so_the_sdk_need_not_try_again(make: Made) -> None:
    gateway = make(failed(), *TWO)
    answer = await request(gateway.app)
    assert answer.status == 502
    assert len(gateway.engine.asked) == 2
    assert answer.headers["x-should-retry"] == "false"
    alone = make(failed())
    assert "x-should-retry" not in (await request(alone.app)).headers


async def test_at_most_three_are_asked(make: Made) -> None:
    five = [UpstreamConfig(name=f"u{n}", base_url=f"http://u{n}", models=("m",)) for n in range(5)]
    gateway = make(failed(), *five)
    assert (await request(gateway.app)).status == 502
    assert len({a.upstream.base_url for a in gateway.engine.asked}) == 3


async def test_second_tries_are_a_share_of_the_requests(make: Made) -> None:
    gateway = make(failed(), *TWO)
    for _ in range(100):
        answer = await request(gateway.app)
        assert answer.headers["x-should-retry"] == "false"
    # 100 first tries, 20 % of them again, and ten to begin with; a little for the time that passed.
    assert 125 <= len(gateway.engine.asked) <= 140


async def test_all_attempts_share_the_time_of_the_first(make: Made) -> None:
    first = UpstreamConfig(name="one", base_url="http://one", models=("m",), total_timeout=7.0)
    gateway = make(failed(), first, TWO[1])
    await request(gateway.app)
    assert "total_timeout" not in gateway.engine.asked[0].options
    assert 6 < gateway.engine.asked[1].options["total_timeout"] <= 7


async def test_a_limit_is_passed_on_and_remembered(make: Made) -> None:
    gateway = make(failed(limited(20_000)))
    answer = await request(gateway.app)
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["retry-after"] in ("20", "21")
    again = await request(gateway.app)
    assert (again.status, again.headers["retry-after"]) == (429, "20")
    assert len(gateway.engine.asked) == 1


async def test_all_limited_gives_the_shortest_wait(make: Made) -> None:
    gateway = make(
        lambda a: failed(limited(30_000 if a.upstream.base_url == "http://one/v1" else 4_000)), *TWO
    )
    for _ in range(2):
        answer = await request(gateway.app)
        assert answer.status == 429
        assert answer.headers["retry-after"] in ("4", "5")
    assert len(gateway.engine.asked) == 2


async def test_stream_options_that_an_upstream_refuses_are_left_out_from_then_on(make: Made) -> None:
    def script(asked: Asked) -> FakeReply:
        if b"stream_options" in (asked.body or b""):
            return failed(FakeFailure(status=400, retryable=False, message="Unknown field: stream_options"))
        return streaming(b"x")

    gateway = make(script)
    for _ in range(2):
        assert (await request(gateway.app, body=STREAM)).status == 200
    assert [b"stream_options" in (a.body or b"") for a in gateway.engine.asked] == [True, False, False]
    # What comes all the same is still not shown.
    assert [a.options["hide_usage"] for a in gateway.engine.asked] == [True, True, True]
    asked = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    # What the client itself asks for is its own matter.
    assert (await request(gateway.app, body=asked)).status == 400


async def test_a_refusal_of_stream_options_is_learned_for_one_model_and_never_repeated(make: Made) -> None:
    refusal = FakeFailure(status=400, retryable=False, message="Unknown field: stream_options")
    gateway = make(failed(refusal), UpstreamConfig(name="o", base_url="http://o", models=("a", "b")))
    for model in (b"a", b"b", b"a"):
        answer = await request(gateway.app, body=b'{"model":"%s","stream":true}' % model)
        assert answer.status == 400
    injected = [b"stream_options" in (a.body or b"") for a in gateway.engine.asked]
    assert injected == [True, False, True, False, False]
