"""The headers of a request, read in one scan."""

from collections.abc import Iterable

from msgspec import Struct

from sluicegate import errors

JSON = b"application/json"
# What a client may tell an upstream. Everything else stays here: keys, cookies, x-stainless-* and the rest.
# Nor openai-organization and -project: they belong to the client's key, and the upstream sees the gateway's.
_FORWARDED = {b"traceparent", b"tracestate", b"openai-beta"}
_TIMING = b"x-sluicegate-timing"
_RARE = {*_FORWARDED, _TIMING}
_MAX_FORWARDED = 1024
_OTHER_KEYS = {b"x-api-key", b"api-key"}
# One look for all of them: the official clients send a dozen headers that are none of ours.
_READ = {
    b"authorization",
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"transfer-encoding",
    b"x-client-request-id",
    *_OTHER_KEYS,
    *_RARE,
}


class Head(Struct, gc=False):
    """What the gateway reads of a request's headers."""

    authorization: bytes | None = None
    other_keys: tuple[bytes, ...] = ()
    content_type: bytes | None = None
    content_length: int | None = None
    content_encoding: bytes | None = None
    has_body: bool = False
    client_request_id: bytes | None = None
    forward: tuple[tuple[str, str], ...] = ()
    # The client wants to know where the time went.
    timed: bool = False


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Scan the header list once. Names are lower case, as ASGI promises.

    Raises 400 for a header that must be unique and is not: two readers could each take another one.
    """
    head = Head()
    for name, value in [header for header in headers if header[0] in _READ]:
        if name == b"authorization":
            if head.authorization is not None and head.authorization != value:
                raise _twice("Authorization")
            head.authorization = value
        elif name == b"content-type":
            if head.content_type is not None and head.content_type != value:
                raise _twice("Content-Type")
            head.content_type = value
        elif name == b"content-length":
            # The server has checked it; a value it let through that is no number is not ours to guess.
            head.content_length = int(value) if value.isdigit() else None
            head.has_body = value != b"0"
        elif name == b"content-encoding":
            head.content_encoding = value
        elif name in _OTHER_KEYS:
            head.other_keys = (*head.other_keys, value)
        elif name in _RARE:
            _note(head, name, value)
        elif name == b"x-client-request-id":
            head.client_request_id = value
        elif name == b"transfer-encoding":
            head.has_body = True
            if value.strip().lower() != b"chunked":
                raise errors.unsupported_encoding()
    return head


def _note(head: Head, name: bytes, value: bytes) -> None:
    """Keep a header for the upstream if every byte of it is harmless there."""
    if name == _TIMING:
        head.timed = value.strip() == b"1"
        return
    text = value.decode("latin-1")
    if len(value) <= _MAX_FORWARDED and text.isascii() and text.isprintable():
        head.forward = (*head.forward, (name.decode(), text))


def require_json(head: Head) -> None:
    """415 unless the body is declared as JSON in UTF-8 and not compressed."""
    given, encoding = head.content_type, head.content_encoding
    if given != JSON:
        _check_media_type(given)
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise errors.unsupported_encoding()


def _check_media_type(given: bytes | None) -> None:
    if given is None:
        raise errors.unsupported_content_type(None)
    media_type, *parameters = given.lower().split(b";")
    charsets = [p.strip() for p in parameters if p.strip().startswith(b"charset=")]
    utf8 = all(c[8:].strip(b"\"' ") in (b"utf-8", b"utf8") for c in charsets)
    if media_type.strip() != JSON or not utf8:
        raise errors.unsupported_content_type(given.decode("latin-1"))


def require_method(method: str, allowed: str) -> None:
    """405 with `Allow` unless `method` is among the comma-separated `allowed`."""
    if method not in allowed.split(", "):
        raise errors.method_not_allowed(method, allowed)


def _twice(name: str) -> errors.GatewayError:
    return errors.bad_request("duplicate_header", f"The request has two different {name} headers. Send one.")
