"""Errors: OpenAI's object, the status map, and what tells an SDK whether to try again."""

from __future__ import annotations

import json

import pytest

from fakes.engine import FakeFailure, limited
from sluicegate import errors
from sluicegate.errors import GatewayError

CASES = [
    (errors.bad_request("invalid_value", "m", "n"), 400, "invalid_request_error", "invalid_value"),
    (errors.invalid_api_key("m"), 401, "authentication_error", "invalid_api_key"),
    (errors.model_not_found("m"), 404, "invalid_request_error", "model_not_found"),
    (errors.unknown_path(), 404, "invalid_request_error", "unknown_url"),
    (errors.method_not_allowed("GET", "POST"), 405, "invalid_request_error", "method_not_allowed"),
    (errors.body_too_slow(10, 1024), 408, "invalid_request_error", "request_timeout"),
    (errors.body_too_large(9), 413, "invalid_request_error", "request_too_large"),
    (errors.unsupported_content_type(None), 415, "invalid_request_error", "unsupported_content_type"),
    (errors.unsupported_encoding(), 415, "invalid_request_error", "unsupported_content_encoding"),
    (errors.rate_limited(1, "m"), 429, "requests", "rate_limit_exceeded"),
    (errors.internal(), 500, "server_error", "internal_error"),
    (errors.not_ready("m"), 503, "service_unavailable", "not_ready"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), CASES, ids=str)
def test_each_error_has_the_openai_object(error: GatewayError, status: int, kind: str, code: str) -> None:
    body = json.loads(error.to_body())
    assert body == {"error": {"message": error.message, "type": kind, "param": error.param, "code": code}}
    assert error.status == status
    assert error.message


@pytest.mark.parametrize("error", [case[0] for case in CASES], ids=str)
def test_only_errors_that_stay_the_same_forbid_the_retry(error: GatewayError) -> None:
    retried_by_sdks = error.status in (408, 409, 429) or error.status >= 500
    assert (errors.NO_RETRY in error.headers) is not retried_by_sdks


@pytest.mark.parametrize(
    ("after_ms", "seconds", "exact"),
    [(-5, b"1", b"1"), (0, b"1", b"1"), (1, b"1", b"1"), (1000, b"1", b"1000"), (1001, b"2", b"1001")],
)
def test_retry_after_is_whole_seconds_and_at_least_one(after_ms: int, seconds: bytes, exact: bytes) -> None:
    assert errors.retry_headers(after_ms) == [(b"retry-after", seconds), (b"retry-after-ms", exact)]


@pytest.mark.parametrize(
    ("failure", "retried", "expected"),
    [
        (FakeFailure(status=502), False, None),
        (FakeFailure(status=502), True, b"false"),
        (FakeFailure(status=502, should_retry=True), True, b"true"),
        (FakeFailure(status=503, should_retry=False), False, b"false"),
        (FakeFailure(status=400), False, b"false"),
        (FakeFailure(status=400, should_retry=True), False, b"true"),
        (FakeFailure(status=404), False, b"false"),
        (FakeFailure(status=408), False, None),
        (FakeFailure(status=409), True, None),
        (limited(None), True, None),
    ],
)
def test_x_should_retry(failure: FakeFailure, retried: bool, expected: bytes | None) -> None:
    headers = dict(errors.from_failure(failure, retried=retried).headers)
    assert headers.get(b"x-should-retry") == expected


def test_a_failure_becomes_the_same_error() -> None:
    failure = FakeFailure("c", 418, "kind", "code", "words", "messages")
    error = errors.from_failure(failure)
    assert (error.status, error.type, error.code, error.message, error.param) == (
        418,
        "kind",
        "code",
        "words",
        "messages",
    )


def test_an_earlier_end_of_the_wait_wins() -> None:
    assert dict(errors.from_failure(limited(20_000)).headers)[b"retry-after"] == b"20"
    assert dict(errors.from_failure(limited(20_000), retry_after_ms=4_500).headers)[b"retry-after"] == b"5"


def test_text_of_clients_is_shown_without_control_characters() -> None:
    assert errors.printable("a\r\nb\x00c\x1b[31m") == "a??b?c?[31m"
    assert errors.printable("x" * 101) == "x" * 100 + "…"
    assert errors.header_value("gpt-é\r\n:x") == b"gpt-???:x"


def test_an_error_shows_neither_message_nor_cause() -> None:
    assert str(errors.bad_request("invalid_value", "the secret words")) == "400 invalid_value"
