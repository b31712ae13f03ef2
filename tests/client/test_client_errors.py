"""Every class of error against the fault upstream: the type, what to check, and no key anywhere."""

from __future__ import annotations

import time
from typing import Any

import pytest
from client_setup import Both, Script, at, closes_within

from faults import content
from faults.steps import FOREVER, RESET, Steps
from faults.upstream import FaultUpstream
from sluicegate.client import (
    AuthenticationError,
    ClientError,
    InvalidRequestError,
    ModelNotFoundError,
    ProtocolError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    StreamInterruptedError,
    UnreachableError,
)

SECRET = "sk-very-secret-0123456789"
# Model, the error, what its message says, and whether it may be tried again. The same for both ways to ask.
Case = tuple[str, type[ClientError], str, bool]
BEFORE: list[Case] = [
    ("u9-close", UnreachableError, "closed the connection", True),
    ("u13-ssh", ProtocolError, "not valid HTTP", False),
    ("u14-two-lengths", ProtocolError, "not valid HTTP", False),
    ("u18-redirect-301", ProtocolError, "redirect", False),
    ("u20-401", AuthenticationError, "OPENAI_COMPATIBLE_API_KEY", False),
    ("u20-403", AuthenticationError, "403", False),
    ("u21-404-json", ModelNotFoundError, "available_models", False),
    ("u21-404-html", ModelNotFoundError, "/v1", False),
    ("u22-429-seconds", RateLimitedError, "Try again in", True),
    ("u23-429-bare", RateLimitedError, "Retry middleware", True),
    ("u23-429-quota", RateLimitedError, "billing", False),
    ("u24-400-json", InvalidRequestError, "400", False),
    ("u24-500-html", ServerError, "500", True),
    ("u24-503-json", ServerError, "503", True),
    ("u25-html", ProtocolError, "/v1", False),
    ("u26-error-object", ServerError, "on fire", True),
    ("u29-204", ProtocolError, "empty", False),
    ("u39-unknown", ProtocolError, "encoding", False),
    ("u44-first", ProtocolError, "JSON", False),
]
# A stream that has begun: text first, then the error.
LATER = [
    ("u32-clean-eof", StreamInterruptedError, "before it was complete"),
    ("u33-rst-mid", StreamInterruptedError, "broke"),
    ("u31-half-chunk", StreamInterruptedError, "log of the server"),
    ("u40-later", ProtocolError, "UTF-8"),
    ("u43-big-later", ProtocolError, "more than"),
    ("u44-later", ProtocolError, "JSON"),
    ("u45-later", ServerError, "on fire"),
]


@pytest.mark.parametrize("case", BEFORE, ids=[case[0] for case in BEFORE])
@pytest.mark.parametrize("how", ["generate", "stream"])
def test_before_the_answer(both: Both, faulty: FaultUpstream, how: str, case: Case) -> None:
    model, kind, says, again = case
    error = both.error(how, "Hi", client=at(faulty, model, api_key=SECRET))
    assert type(error) is kind, error
    assert says in str(error)
    assert error.retryable is again
    assert SECRET not in f"{error!r} {error.__dict__}"
    assert "upstream" not in str(error), "the client's server is no upstream"


@pytest.mark.parametrize(("model", "kind", "says"), LATER, ids=[case[0] for case in LATER])
def test_in_the_middle_of_a_stream(
    both: Both, faulty: FaultUpstream, model: str, kind: type[ClientError], says: str
) -> None:
    error = both.error("stream", "Hi", client=at(faulty, model))
    assert type(error) is kind, error
    assert says in str(error)
    assert error.partial is not None
    assert error.partial.content
    assert content.TEXT.startswith(error.partial.content)


def test_the_chunks_before_an_error_are_given(both: Both, faulty: FaultUpstream) -> None:
    from sluicegate.client import Client

    with Client(**at(faulty, "u32-clean-eof")) as client, client.stream("Hi") as stream:
        texts = []
        with pytest.raises(StreamInterruptedError):
            texts.extend(chunk.content for chunk in stream)
        assert "".join(texts) == content.TEXT
        assert list(stream) == []


def test_nobody_listens(both: Both, faulty: FaultUpstream) -> None:
    error = both.error(
        "generate", "Hi", client={"base_url": f"http://127.0.0.1:{faulty.ports['refused']}/v1", "model": "m"}
    )
    assert type(error) is UnreachableError
    assert isinstance(error, ConnectionError)
    assert "Check that the server runs" in str(error)
    error = both.error("generate", "Hi", client={"base_url": "http://no-such-host.invalid/v1", "model": "m"})
    assert type(error) is UnreachableError
    assert "cannot be resolved" in str(error)
    error = both.error(
        "generate", "Hi", client={"base_url": f"http://0.0.0.0:{faulty.port}/v1", "model": "m"}
    )
    assert "127.0.0.1" in str(error)


def test_not_tls(both: Both, faulty: FaultUpstream) -> None:
    error = both.error(
        "generate",
        "Hi",
        client={"base_url": f"https://127.0.0.1:{faulty.port}/v1", "model": "m", "timeout": 0.5},
    )
    assert type(error) is UnreachableError
    assert "TLS" in str(error)


def test_no_key_where_one_is_wanted(both: Both, faulty: FaultUpstream) -> None:
    assert "none was sent" in str(both.error("generate", "Hi", client=at(faulty, "u20-401")))


def test_the_time_to_wait_is_told(both: Both, faulty: FaultUpstream) -> None:
    error = both.error("generate", "Hi", client=at(faulty, "u22-429-seconds"))
    assert isinstance(error, RateLimitedError)
    assert error.retry_after is not None
    assert error.retry_after > 0
    assert error.status == 429


@pytest.mark.parametrize("how", ["generate", "stream"])
@pytest.mark.parametrize("model", ["u8-silence", "u34-stall-first"])
def test_silence(both: Both, faulty: FaultUpstream, how: str, model: str) -> None:
    begun = time.monotonic()
    error = both.error(how, "Hi", client=at(faulty, model, timeout=0.3))
    assert type(error) is RequestTimeoutError
    assert "0.3 s" in str(error)
    assert "timeout" in str(error)
    assert time.monotonic() - begun < 5


def test_a_stream_that_stops(both: Both, faulty: FaultUpstream) -> None:
    error = both.error("stream", "Hi", client=at(faulty, "u34-stall-mid", timeout=0.3))
    assert type(error) is RequestTimeoutError
    assert error.partial is not None
    assert error.partial.content


def test_a_stream_may_take_longer_than_its_timeout(both: Both, script: Script) -> None:
    def slow(asked: content.Asked) -> Steps:
        yield content.chunked_head(asked)
        for event in content.events(asked):
            yield content.http_chunk(event)
            yield 0.15
        yield content.LAST_CHUNK

    _, answer = both.stream("Hi", client={**script.says(slow), "timeout": 0.6})
    assert answer.content == content.TEXT


def test_a_server_that_repeats_the_key(both: Both, script: Script) -> None:
    body = content.error_body(f"what is this key {SECRET}?", None, "invalid_request_error")
    client: dict[str, Any] = script.says(content.http("400 Bad Request", "application/json", body))
    error = both.error("generate", "Hi", client={**client, "api_key": SECRET})
    assert "what is this key ***" in str(error)
    # Also a key of somebody else.
    error = both.error("generate", "Hi", client={**client, "api_key": "other"})
    assert "sk-***" in str(error)


def test_the_field_that_is_wrong(both: Both, script: Script) -> None:
    body = content.dumps(
        {"error": {"message": "too hot", "type": "invalid_request_error", "param": "temperature"}}
    )
    client = script.says(content.http("400 Bad Request", "application/json", body))
    assert both.error("generate", "Hi", client=client).param == "temperature"


def test_after_an_error_the_connection_is_closed(both: Both, script: Script) -> None:
    def stuck(asked: content.Asked) -> Steps:
        yield content.chunked_head(asked) + content.http_chunk(content.text_events(asked)[0])
        yield FOREVER
        yield RESET

    both.error("stream", "Hi", client={**script.says(stuck), "timeout": 0.3})
    assert closes_within(script.connections, 1.0)
