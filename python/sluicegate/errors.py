"""Every error a client can see that does not come from the Rust core: status, code and what to do."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

import orjson

Header = tuple[bytes, bytes]

# OpenAI's error types by status; the same table as `default_kind` in rust/core/src/error.rs.
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "requests", 500: "server_error"}
_TYPES |= {502: "upstream_error", 503: "service_unavailable", 504: "timeout"}

NO_RETRY: Header = (b"x-should-retry", b"false")
RETRY: Header = (b"x-should-retry", b"true")
# The connection still has a body in it that nobody will read; HTTP/2 servers drop the header.
_CLOSE: Header = (b"connection", b"close")

# The SDKs' own rule retries these (and 5xx); every other 4xx is the same answer each time.
_RETRIED_4XX = frozenset({408, 409, 429})
TIMED_OUT = 408
TOO_MANY = 429
NOT_FOUND = 404
_FIRST_4XX = 400
_FIRST_5XX = 500


class Failure(Protocol):
    """The part of the core's `Failure` that becomes a response."""

    @property
    def cause(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def param(self) -> str | None: ...
    @property
    def retry_after_ms(self) -> int | None: ...
    @property
    def should_retry(self) -> bool | None: ...


class ClientGoneError(Exception):
    """The client left before the answer began: nothing is sent, the log says 499."""


class GatewayError(Exception):
    """An error and all its response needs. `message` is public: no secret, no address, no `str(exc)`."""

    def __init__(  # noqa: PLR0913 (the four keys of OpenAI's error object, its status and headers)
        self,
        status: int,
        code: str,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.type = type or _TYPES.get(status, "invalid_request_error")
        self.param = param
        self.headers = headers
        # Its log record is written; the envelope does not write a second one.
        self.settled = False

    def to_body(self) -> bytes:
        """The OpenAI error object; all four keys are always there."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


def _refusal(status: int, code: str, message: str, param: str | None = None) -> GatewayError:
    """A 4xx that the same request gets every time: the SDKs are told not to send it again."""
    return GatewayError(status, code, message, param=param, headers=(NO_RETRY,))


def bad_request(code: str, message: str, param: str | None = None) -> GatewayError:
    """A request that cannot be accepted as it is."""
    return _refusal(400, code, message, param)


def invalid_api_key(message: str) -> GatewayError:
    """No key, a malformed one, or one nobody knows."""
    error = _refusal(401, "invalid_api_key", message)
    error.headers = (NO_RETRY, (b"www-authenticate", b"Bearer"))
    return error


def refused_key(code: str, message: str) -> GatewayError:
    """A key that was good once: expired, revoked, or of a workspace that was deleted."""
    error = invalid_api_key(message)
    error.code = code
    return error


def wrong_kind_of_key() -> GatewayError:
    """An admin key where models are called."""
    return _refusal(
        403,
        "wrong_key_kind",
        "This is an admin key: it manages the gateway and cannot call models. Use a key of a workspace "
        "(sk-sg-…).",
    )


def unavailable(code: str, message: str) -> GatewayError:
    """The database does not answer, and what it would say is not known here. Waiting helps."""
    return GatewayError(503, code, message, headers=tuple(retry_headers(1000)))


def not_kept(kind: str, ref: str) -> GatewayError:
    """Nothing that this key has stored has that id; one of another key is the same."""
    return _refusal(
        404, "not_found", f"There is no {kind} with the id `{printable(ref)}` that this API key has stored."
    )


def model_not_found(message: str) -> GatewayError:
    """A model name that no upstream serves."""
    return _refusal(404, "model_not_found", message, "model")


def missing_scope(scope: str) -> GatewayError:
    """A key that may do other things than this."""
    message = f"This API key lacks the scope `{scope}`. Use another key, or have the scope added to this one."
    return _refusal(403, "missing_scope", message)


def missing_permission(permission: str, role: str) -> GatewayError:
    """An admin key that may do other things than this."""
    message = f"This needs the permission `{permission}`, which this key of the role `{role}` does not have."
    return _refusal(403, "permission_denied", f"{message} Use another key, or ask an administrator.")


def not_for_remote() -> GatewayError:
    """What may be done from the gateway's own machine only."""
    return _refusal(403, "loopback_only", "This can be done from the gateway's own machine only.")


def bad_token() -> GatewayError:
    """A token for the first admin that is unknown, used, too old, or not needed any more."""
    return _refusal(
        401,
        "invalid_bootstrap_token",
        "This token is unknown, used up or older than 15 minutes, or there is an administrator already. "
        "A start of the gateway without an administrator prints a new one.",
        "token",
    )


def object_not_found(message: str) -> GatewayError:
    """No such object for this caller; one of another workspace is the same."""
    return _refusal(404, "not_found", message)


def conflict(code: str, message: str, param: str | None = None) -> GatewayError:
    """Something that exists stands against it."""
    return _refusal(409, code, message, param)


def version_conflict(message: str) -> GatewayError:
    """`If-Match` names another version than the one that is there."""
    return _refusal(412, "version_conflict", message, "If-Match")


def idempotency_key_reused(message: str) -> GatewayError:
    """An Idempotency-Key that came with another request before."""
    return _refusal(422, "idempotency_key_reused", message, "Idempotency-Key")


def unknown_model(model: str, known: Iterable[str]) -> GatewayError:
    """A name that nobody serves. Says so if only the case differs from one of `known`, the caller's own."""
    shown, wanted = printable(model), model.casefold()
    same = next((name for name in known if name.casefold() == wanted), None)
    if same is not None and same != model:
        return model_not_found(
            f"The model `{shown}` does not exist, but `{printable(same)}` does: names are case-sensitive."
        )
    return model_not_found(
        f"The model `{shown}` does not exist or is not served here. GET /v1/models lists what there is."
    )


def model_not_allowed(model: str) -> GatewayError:
    """A model of the workspace that this key may not use."""
    message = (
        f"This API key may not use the model `{printable(model)}`. GET /v1/models lists those that it may."
    )
    return _refusal(403, "model_not_allowed", message, "model")


def assistant_unavailable(name: str) -> GatewayError:
    """An assistant of which no upstream is there any more."""
    return GatewayError(
        503,
        "assistant_unavailable",
        f"None of the upstreams of the assistant `{printable(name)}` is there: they are removed or switched "
        "off. Give it a model of another upstream.",
        param="model",
        headers=(NO_RETRY,),
    )


def quality_below_threshold(name: str, score: int | None, failed: Iterable[str]) -> GatewayError:
    """No answer was good enough for the assistant."""
    found = "has no score" if score is None else f"has the score {score}"
    why = ", ".join(failed)
    return GatewayError(
        422,
        "quality_below_threshold",
        f"The answer of the assistant `{printable(name)}` {found}{f' ({why})' if why else ''}, and it wants "
        "more. Ask again, or ask in another way.",
        headers=(NO_RETRY,),
    )


def upstream_lacks_model(name: str) -> GatewayError:
    """The assistant exists; the model behind it does not."""
    return GatewayError(
        502,
        "upstream_model_not_found",
        f"The upstream does not know the model of the assistant `{printable(name)}`. Correct the assistant's "
        "model, or load the model there.",
        param="model",
        headers=(NO_RETRY,),
    )


def unknown_path(message: str | None = None) -> GatewayError:
    """No such endpoint; paths are exact."""
    return _refusal(
        404,
        "unknown_url",
        message
        or "There is no such endpoint. Paths are exact: lower case, no trailing slash, no doubled slash. "
        "The base URL of a client ends in /v1.",
    )


def method_not_allowed(method: str, allowed: str) -> GatewayError:
    """A known path with the wrong method."""
    error = _refusal(405, "method_not_allowed", f"This endpoint takes {allowed}, not {printable(method)}.")
    error.headers = (NO_RETRY, (b"allow", allowed.encode()))
    return error


def unsupported_content_type(given: str | None) -> GatewayError:
    """A body that is not declared as JSON."""
    what = "no Content-Type" if given is None else f"Content-Type {printable(given)}"
    return _refusal(
        415,
        "unsupported_content_type",
        f"The request has {what}. Send JSON, with the header: Content-Type: application/json",
    )


def unsupported_encoding() -> GatewayError:
    """A compressed request body."""
    return _refusal(
        415,
        "unsupported_content_encoding",
        "The request body is compressed (Content-Encoding or Transfer-Encoding), which is not accepted. "
        "Send it as it is.",
    )


def broken_body() -> GatewayError:
    """A body that ends early or whose chunks are malformed; mostly nobody is left to read this."""
    error = _refusal(400, "invalid_json", "The body broke off: it ended early, or its chunks are malformed.")
    error.headers = (NO_RETRY, _CLOSE)
    return error


def body_too_large(limit: int) -> GatewayError:
    """More bytes than `max_body_bytes`."""
    message = f"The request body is larger than {limit} bytes (max_body_bytes). Send less or raise it."
    return GatewayError(413, "request_too_large", message, headers=(NO_RETRY, _CLOSE))


def body_too_slow(seconds: float, rate: int) -> GatewayError:
    """A body that does not arrive."""
    message = f"The request body is too slow: less than {rate} bytes/s during {seconds:g} s. Send it again."
    return GatewayError(TIMED_OUT, "request_timeout", message, headers=(_CLOSE,))


def rate_limited(retry_after_ms: int, message: str) -> GatewayError:
    """Nobody can be asked before `retry_after_ms` has passed."""
    return GatewayError(429, "rate_limit_exceeded", message, headers=tuple(retry_headers(retry_after_ms)))


def limit_reached(message: str, unit: str, retry_after_ms: int, headers: tuple[Header, ...]) -> GatewayError:
    """A limit of this gateway; who waits exactly so long gets in. `unit`: `requests` or `tokens`."""
    headers = (*headers, *retry_headers(retry_after_ms))
    return GatewayError(429, "rate_limit_exceeded", message, type=unit, headers=headers)


def above_limit(message: str, headers: tuple[Header, ...]) -> GatewayError:
    """A request that alone is more than a limit lets through at once: waiting does not help."""
    headers = (*headers, NO_RETRY)
    return GatewayError(429, "rate_limit_exceeded", message, type="tokens", headers=headers)


def request_above_limit(size: int, most: int, owner: str) -> GatewayError:
    """A body that is longer than `request_bytes` of somebody's limits."""
    message = f"The request body has {size} bytes; {owner} may send {most} (request_bytes). Send less."
    return _refusal(413, "request_too_large", message)


def quota_exceeded(message: str) -> GatewayError:
    """A budget is used up: waiting for a moment does not help."""
    message += " Ask whoever runs this gateway to raise it, or wait for the next period."
    return GatewayError(429, "insufficient_quota", message, type="insufficient_quota", headers=(NO_RETRY,))


def limits_full() -> GatewayError:
    """More limits are in use at a time than can be counted; nobody passes uncounted."""
    message = "The gateway counts as many limits as it can at the moment. Try again."
    return GatewayError(503, "limits_full", message, headers=tuple(retry_headers(1000)))


def records_blocked() -> GatewayError:
    """The policy is `strict`, and the disk takes no usage records."""
    message = "The gateway cannot write its usage records at the moment, so it takes no requests. Try again."
    return GatewayError(503, "usage_unavailable", message, headers=tuple(retry_headers(1000)))


def internal() -> GatewayError:
    """A fault of our own; the cause is in the log, never in the answer."""
    return GatewayError(
        500,
        "internal_error",
        "The gateway failed to handle this request. The error is logged with the request id.",
    )


def not_ready(message: str) -> GatewayError:
    """The worker cannot take requests now."""
    return GatewayError(503, "not_ready", message, headers=tuple(retry_headers(1000)))


def retry_headers(after_ms: int) -> list[Header]:
    """`Retry-After` in whole seconds, at least 1 as RFC and SDKs want it, and the exact `retry-after-ms`."""
    after_ms = max(after_ms, 1)
    seconds = -(-after_ms // 1000)
    return [(b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % after_ms)]


def from_failure(
    failure: Failure, *, retried: bool = False, retry_after_ms: int | None = None
) -> GatewayError:
    """A failed upstream call as the client sees it; `retry_after_ms` where somebody is free earlier.

    `retried`: the gateway has itself tried more than once or has no budget left to. Then a 5xx says
    `x-should-retry: false`: three tries of an SDK times three of ours would be nine calls.
    """
    status = failure.status
    headers: list[Header] = []
    after = failure.retry_after_ms if retry_after_ms is None else retry_after_ms
    if after is not None:
        headers += retry_headers(after)
    should = failure.should_retry
    if should is None:
        if status >= _FIRST_5XX:
            should = False if retried else None
        elif status >= _FIRST_4XX and status not in _RETRIED_4XX:
            should = False
    if should is not None:
        headers.append(RETRY if should else NO_RETRY)
    return GatewayError(
        status, failure.code, failure.message, type=failure.type, param=failure.param, headers=tuple(headers)
    )


def printable(text: str, limit: int = 100) -> str:
    """Text of a client, safe to show in a message: no control characters, cut at `limit`."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:limit])
    return f"{shown}…" if len(text) > limit else shown


@lru_cache(maxsize=1024)
def header_value(text: str) -> bytes:
    """Text as the value of a header: what HTTP does not carry becomes `?`."""
    # Remembered: the name of a model in each answer of an assistant took 2 us, a character at a time.
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).encode()
