"""Every error of the client: what happened, and what to check. No message or repr holds a key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sluicegate.client.answer import Answer
    from sluicegate.engine import Failure

_FIRST_5XX: Final = 500
_FIRST_4XX: Final = 400
# What a server says about a refused request is quoted up to here.
_QUOTED: Final = 1000


class ClientError(Exception):
    """Any failure of a call.

    `code` is a stable word for the cause; `status` the HTTP status where there was one; `retryable` whether
    the same call may succeed later; `retry_after` what the server asked to wait, in seconds; `partial` what
    had come of a streamed answer.
    """

    retryable: bool = False

    def __init__(self, message: str, *, code: str = "client_error", status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.param: str | None = None
        self.retry_after: float | None = None
        self.partial: Answer[Any] | None = None


class SettingsError(ClientError, ValueError):
    """The client cannot be made: no base URL, or a value that cannot be used."""


class ClosedError(ClientError):
    """The client was closed before or during the call."""


class RequestTimeoutError(ClientError, TimeoutError):
    """One of the clocks ran out."""

    retryable = True


class UnreachableError(ClientError, ConnectionError):
    """No connection, or none that lived until the answer."""

    retryable = True


class AuthenticationError(ClientError):
    """401 or 403: the key is missing, wrong, or may not do this."""


class RateLimitedError(ClientError):
    """429. `retry_after` says how long to wait, where the server does; a used-up quota is not `retryable`."""

    retryable = True


class ModelNotFoundError(ClientError):
    """404: no such model, or no such path below the base URL."""


class InvalidRequestError(ClientError):
    """The server refused the request as it is (4xx); `param` names the field where it says which."""


class ServerError(ClientError):
    """The server failed (5xx, or an error inside its answer)."""

    retryable = True


class ProtocolError(ClientError):
    """The answer is not one of the OpenAI API: not HTTP, not JSON, too large, or a redirect."""


class StreamInterruptedError(ClientError):
    """An answer ended before it was complete; of a stream, `partial` holds what had come."""

    retryable = True


class OutputError(ClientError):
    """The answer is not of the type that was asked for; `partial` holds the answer."""


class StepLimitError(ClientError):
    """The model still calls tools after `max_steps` requests; `partial` holds the last answer and all
    steps.
    """


class ToolDefinitionError(ClientError, TypeError):
    """A function that cannot be offered as a tool."""


# By the core's cause: the error, and its message. Any other cause is a ProtocolError.
_CAUSES: Final[dict[str, tuple[type[ClientError], str]]] = {
    "upstream_connect_error": (
        UnreachableError,
        "Nothing answers at {origin}. Check that the server runs, and the base URL.",
    ),
    "upstream_dns_error": (
        UnreachableError,
        "The host of {origin} cannot be resolved. Check the base URL and your network.",
    ),
    "upstream_address_forbidden": (
        UnreachableError,
        "{origin} leads to a metadata service, a multicast or a reserved address. Check the base URL; a "
        "server on this machine has the address 127.0.0.1, not 0.0.0.0.",
    ),
    "upstream_closed": (
        UnreachableError,
        "{origin} closed the connection before it answered. Check the log of the server.",
    ),
    "upstream_tls_error": (UnreachableError, "{said}"),
    "upstream_timeout": (RequestTimeoutError, "{said} Raise `timeout`, or check the load of the server."),
    "model_not_found": (
        ModelNotFoundError,
        "{origin} does not know the model {model!r}, or the path: {said} Check the name (available_models() "
        "lists them), and that the base URL ends where /chat/completions begins, usually in /v1.",
    ),
    "upstream_truncated": (
        StreamInterruptedError,
        "{said} Check the log of the server, and proxies between.",
    ),
    "upstream_reset": (
        StreamInterruptedError,
        "{said} Check the log of the server, and proxies between.",
    ),
    "client_closed": (ClosedError, "The client was closed during the call."),
    "server_shutdown": (ClosedError, "The client was closed during the call."),
}


class Teller:
    """Turns what the core reports into the errors above, in the words of one client."""

    def __init__(self, origin: str, key: str | None) -> None:
        self._origin = origin
        self._key = key

    def error(self, failure: Failure, model: str) -> ClientError:
        """The error of a failed call."""
        error = self._of(failure, model)
        error.param = failure.param
        if failure.retry_after_ms is not None:
            error.retry_after = failure.retry_after_ms / 1000
        return error

    def _of(self, failure: Failure, model: str) -> ClientError:
        if failure.status == 429:  # noqa: PLR2004
            return self._limited(failure)
        if failure.cause == "upstream_error":
            return self._refused(failure)
        if failure.cause == "upstream_auth_error":
            return self._refused_key(failure)
        kind, text = _CAUSES.get(failure.cause, (ProtocolError, "{said}"))
        status = 404 if kind is ModelNotFoundError else None
        message = text.format(origin=self._origin, said=self._said(failure), model=model)
        return kind(message, code=failure.cause, status=status)

    def _refused(self, failure: Failure) -> ClientError:
        status, said = failure.status, self._said(failure)
        if _FIRST_4XX <= status < _FIRST_5XX:
            message = f"{self._origin} refused the request ({status}): {said}"
            return InvalidRequestError(message, code=failure.code, status=status)
        message = f"{self._origin} failed ({status}): {said} Try again later, or check its log."
        return ServerError(message, code=failure.code, status=status)

    def _refused_key(self, failure: Failure) -> ClientError:
        status = 403 if "(403)" in failure.message else 401
        if self._key is None:
            what = "wants an API key, and none was sent. Set OPENAI_COMPATIBLE_API_KEY or pass api_key"
        else:
            what = "refused the API key. Check OPENAI_COMPATIBLE_API_KEY or api_key, and what the key may do"
        return AuthenticationError(f"{self._origin} {what} ({status}).", code="authentication", status=status)

    def _limited(self, failure: Failure) -> ClientError:
        quota = failure.cause == "insufficient_quota" or failure.code == "insufficient_quota"
        after = failure.retry_after_ms
        if quota:
            what = "Waiting does not help: check plan and billing."
        elif after is None:
            what = "Wait before you try again, or use the Retry middleware."
        else:
            what = f"Try again in {after / 1000:g} s, or use the Retry middleware."
        error = RateLimitedError(
            f"{self._origin} is at its limit (429): {self._said(failure)} {what}",
            code=failure.code,
            status=429,
        )
        if quota:
            error.retryable = False
        return error

    def _said(self, failure: Failure) -> str:
        """The failure's message, without the key should the server repeat it, named as the client names
        things.
        """
        text = failure.message
        if self._key:
            text = text.replace(self._key, "***")
        text = re.sub(r"sk-[\w-]{8,}", "sk-***", text)
        text = text.replace("The upstream's", f"{self._origin}'s").replace("The upstream", self._origin)
        text = text.replace("the upstream", self._origin)
        text = re.sub(r" ?\((?:connect|first_event|idle|total)_timeout\)", "", text)
        text = text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"
        return text if text.endswith((".", "…", "!", "?")) else f"{text}."
