"""C16, C17 and C20: bytes that two HTTP readers could take in two ways, and paths that look like others."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from faults.client import KEY, LIMIT, PATHS, Answer, ask, body_for, exchange, request_bytes
from faults.content import TEXT
from faults.rig import MAX_BODY, Rig

AUTH = f"Authorization: Bearer {KEY}"
GOOD = json.dumps(body_for("chat", "ok")).encode()


def inner(nonce: str) -> bytes:
    """A complete, authorized request: if it is ever answered, it was smuggled."""
    return request_bytes(PATHS["chat"], json.dumps(body_for("chat", "ok", user=nonce)).encode())


def raw(headers: list[str], body: bytes = b"", first: str = "POST /v1/chat/completions HTTP/1.1") -> bytes:
    """A request exactly as written."""
    lines = [first, "Host: gateway.test", AUTH, "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


CHUNKED_GOOD = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)


def vectors(nonce: str) -> dict[str, bytes]:
    """Requests whose end is unclear; behind each stands another request."""
    hidden = inner(nonce)
    length, te = f"Content-Length: {len(GOOD)}", "Transfer-Encoding: chunked"
    zero = b"0\r\n\r\n"
    return {
        "cl-te": raw([f"Content-Length: {len(zero + hidden)}", te], zero + hidden),
        "te-cl": raw([te, "Content-Length: 4"], CHUNKED_GOOD + hidden),
        "te-te-unknown": raw([te, "Transfer-Encoding: cow"], CHUNKED_GOOD + hidden),
        "te-list-last-identity": raw(["Transfer-Encoding: chunked, identity", length], GOOD + hidden),
        "te-unknown": raw(["Transfer-Encoding: xchunked", length], GOOD + hidden),
        "te-quoted": raw(['Transfer-Encoding: "chunked"', length], GOOD + hidden),
        "te-vertical-tab": raw(["Transfer-Encoding: \x0bchunked", length], GOOD + hidden),
        "te-space-before-colon": raw(["Transfer-Encoding : chunked", length], GOOD + hidden),
        "te-http-1.0": raw([te, length], GOOD + hidden, "POST /v1/chat/completions HTTP/1.0"),
        "cl-cl": raw([length, f"Content-Length: {len(GOOD) + len(hidden)}"], GOOD + hidden),
        "cl-list": raw([f"Content-Length: {len(GOOD)}, {len(GOOD) + len(hidden)}"], GOOD + hidden),
        "cl-plus": raw([f"Content-Length: +{len(GOOD)}"], GOOD + hidden),
        "cl-minus": raw(["Content-Length: -1"], GOOD + hidden),
        "cl-hex": raw([f"Content-Length: {len(GOOD):#x}"], GOOD + hidden),
        "cl-inner-space": raw([f"Content-Length: {len(GOOD)} 0"], GOOD + hidden),
        "cl-overflow": raw(["Content-Length: 18446744073709551617"], GOOD + hidden),
        "cl-empty": raw(["Content-Length: "], GOOD + hidden),
        "cl-space-before-colon": raw([f"Content-Length : {len(GOOD)}"], GOOD + hidden),
        "obs-fold": raw([length, "X-Folded: a", " Transfer-Encoding: chunked"], GOOD + hidden),
        "bare-cr": raw([f"X-A: b\rTransfer-Encoding: chunked\r\n{length}"], GOOD + hidden),
        "nul-in-header": raw([length, "X-A: b\x00c"], GOOD + hidden),
        "header-without-colon": raw([length, "Nonsense"], GOOD + hidden),
        "header-name-space": raw([length, "X A: b"], GOOD + hidden),
        "chunk-size-overflow": raw([te], b"10000000000000000b\r\n" + GOOD + hidden),
        "chunk-size-negative": raw([te], b"-1\r\n" + GOOD + hidden),
        "chunk-size-text": raw([te], b"zz\r\n" + GOOD + hidden),
        "chunk-size-hex-prefix": raw([te], b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD) + hidden),
        "chunk-no-crlf": raw([te], b"%x\r\n%sXX0\r\n\r\n" % (len(GOOD), GOOD) + hidden),
        "chunk-extension-flood": raw([te], b"%x;%s\r\n" % (len(GOOD), b"a" * 100_000) + GOOD + hidden),
        "http-0.9": b"GET /v1/models\r\n" + hidden,
        "http-2-line": raw([length], GOOD + hidden, "POST /v1/chat/completions HTTP/2.0"),
        "http-9-line": raw([length], GOOD + hidden, "POST /v1/chat/completions HTTP/9.9"),
        "space-in-target": raw([length], GOOD + hidden, "POST /v1/chat/completions x HTTP/1.1"),
        "declared-too-large": raw([f"Content-Length: {MAX_BODY + 1}"], hidden),
        "compressed": raw([f"Content-Length: {len(hidden) + 1000}", "Content-Encoding: gzip"], hidden),
        "wrong-method": raw(
            [f"Content-Length: {len(hidden) + 1000}"], hidden, "DELETE /v1/chat/completions HTTP/1.1"
        ),
        "wrong-path": raw([f"Content-Length: {len(hidden) + 1000}"], hidden, "POST /nowhere HTTP/1.1"),
        "wrong-key": raw([f"Content-Length: {len(hidden) + 1000}"], hidden).replace(
            AUTH.encode(), b"Authorization: Bearer sk-nobody"
        ),
        "head-with-body": raw([f"Content-Length: {len(hidden) + 1000}"], hidden, "HEAD /v1/models HTTP/1.1"),
    }  # fmt: skip


@pytest.mark.parametrize("name", vectors(""))
def test_no_request_is_smuggled(name: str, rig: Rig) -> None:
    nonce = f"smuggled-{name}"
    responses = asyncio.run(talk(rig, vectors(nonce)[name]))
    assert rig.connections(nonce) == [], f"the inner request was answered; responses: {responses!r}"
    assert responses.count(b"HTTP/1.1 200") <= 1, responses
    assert asyncio.run(ask(rig.port, "chat", body_for("chat", "ok-neighbour"))).text == TEXT


# Not here: te-cl, which HTTP allows to be read as chunked if the connection is closed after it.
MUST_BE_REFUSED = (
    "cl-te", "te-te-unknown", "te-list-last-identity", "te-unknown", "te-quoted", "te-vertical-tab",
    "te-space-before-colon", "te-http-1.0", "cl-cl", "cl-list", "cl-plus", "cl-minus", "cl-hex",
    "cl-inner-space", "cl-overflow", "cl-space-before-colon", "obs-fold", "bare-cr", "nul-in-header",
    "header-without-colon", "header-name-space", "chunk-size-overflow", "chunk-size-negative",
    "chunk-size-text", "chunk-size-hex-prefix", "chunk-no-crlf", "http-9-line",
)  # fmt: skip


@pytest.mark.parametrize("name", MUST_BE_REFUSED)
def test_an_ambiguous_request_is_refused(name: str, rig: Rig) -> None:
    before = sum(len(c.requests) for c in rig.upstream.records.all("main"))
    responses = asyncio.run(talk(rig, vectors(f"refused-{name}")[name]))
    # Either a 4xx or a close without a word; never an answer.
    assert responses == b"" or responses.startswith(b"HTTP/1.1 4"), responses[:300]
    assert sum(len(c.requests) for c in rig.upstream.records.all("main")) == before


async def talk(rig: Rig, data: bytes, answers: int = 0) -> bytes:
    """Send it, and take all that comes within half a second, until it closes, or until so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    got = b""
    try:
        writer.write(data)
        async with asyncio.timeout(LIMIT if answers else 0.5):
            while part := await reader.read(65536):
                got += part
                if answers and got.count(b"HTTP/1.1 200") == answers:
                    break
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return got


def test_two_requests_in_order_on_one_connection(rig: Rig) -> None:
    """Pipelining as such is allowed."""
    answers = asyncio.run(talk(rig, inner("pipelined-1") + inner("pipelined-2"), answers=2))
    assert answers.count(b"HTTP/1.1 200") == 2
    assert len(rig.connections("pipelined-2")) == 1


HOP_BY_HOP = (
    "Connection: keep-alive, X-Secret-Hop",
    "X-Secret-Hop: 1",
    "Keep-Alive: timeout=99",
    "Proxy-Authorization: Basic eA==",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Trailer: X-T",
    "Upgrade: h2c",
    "X-Forwarded-For: 10.0.0.1",
    "X-Forwarded-Host: evil.test",
    "X-Real-IP: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "Cookie: session=1",
    "X-Stainless-Lang: python",
    "X-Request-Id: chosen-by-the-client",
    "Accept-Encoding: gzip",
    "Expect: nothing-special",
)


def test_only_allowed_headers_reach_the_upstream(rig: Rig) -> None:
    nonce = "header-list"
    body = body_for("chat", "ok", user=nonce)
    answer = asyncio.run(ask(rig.port, "chat", body, headers=(*HOP_BY_HOP, "traceparent: 00-a-b-01")))
    assert answer.status == 200, answer
    (connection,) = rig.connections(nonce)
    request = next(r for r in connection.requests if r.json.get("user") == nonce)
    got = dict(request.headers)
    assert set(got) <= {
        "host", "authorization", "content-type", "content-length", "accept", "accept-encoding", "user-agent",
        "x-request-id", "traceparent",
    }  # fmt: skip
    assert got["host"] == f"127.0.0.1:{rig.upstream.port}"
    assert got["accept-encoding"] == "identity"
    assert got["x-request-id"] == answer.header("x-request-id") != "chosen-by-the-client"
    assert KEY not in repr(got)


HOSTS = ("evil.test/", "a@b", "gateway.test?x", "gateway.test#", "[::1", "", "127.0.0.1:99999", "x\ty")
TARGETS = (
    "http://evil.test/v1/chat/completions",
    "http://user@evil.test/v1/chat/completions",
    "http://evil.test@gateway.test/v1/chat/completions",
)


@pytest.mark.parametrize("host", HOSTS)
def test_the_host_header_decides_nothing(host: str, rig: Rig) -> None:
    for key, verdict in ((KEY, 200), ("sk-nobody", 401)):
        data = request_bytes(PATHS["chat"], GOOD, key=key).replace(b"gateway.test", host.encode())
        answer = asyncio.run(exchange(rig.port, data))
        assert answer.status in (verdict, 400), answer


@pytest.mark.parametrize("target", TARGETS)
def test_an_absolute_target_goes_nowhere_else(target: str, rig: Rig) -> None:
    for key, verdict in ((KEY, 200), ("sk-nobody", 401)):
        data = request_bytes(target, GOOD, key=key)
        answer = asyncio.run(exchange(rig.port, data))
        assert answer.status in (verdict, 400, 404), answer
        assert answer.status != 200 or answer.text == TEXT


PATH_TRICKS = (
    "/V1/chat/completions", "/v1/Chat/completions", "//v1/chat/completions", "/v1//chat/completions",
    "/v1/chat/completions/", "/v1/%63hat/completions", "/v1/chat%2fcompletions", "/v1/chat/%2e/completions",
    "/v1/x/../chat/completions", "/v1/./chat/completions", "/v1/chat/completions;x",
    "/v1/chat/completions%00", "/v1/chat/completions%20", "/v1\\chat\\completions", "/v1",
    "/chat/completions",
)  # fmt: skip


@pytest.mark.parametrize("path", PATH_TRICKS)
def test_a_path_that_only_looks_right_is_404(path: str, rig: Rig) -> None:
    answer = asyncio.run(exchange(rig.port, request_bytes(path, GOOD)))
    assert answer.status in (400, 404), answer
    if answer.status == 404:
        assert_shape(answer, "unknown_url")


@pytest.mark.parametrize("path", [p for p in PATH_TRICKS if p.lower().lstrip("/").startswith("v1")])
def test_without_a_key_every_spelling_is_401(path: str, rig: Rig) -> None:
    """The same verdict as for the right path: nobody learns which paths exist."""
    answer = asyncio.run(exchange(rig.port, request_bytes(path, GOOD, key="sk-nobody")))
    assert answer.status in (400, 401), answer


@pytest.mark.parametrize("op", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "FROB"])
def test_a_wrong_method_is_405(method: str, op: str, rig: Rig) -> None:
    data = request_bytes(PATHS[op], b"").replace(b"POST", method.encode(), 1)
    answer = asyncio.run(exchange(rig.port, data))
    if (op, method) == ("chat", "GET"):
        # Stored chats are listed there; without a database there are none.
        assert_shape(answer, "storage_not_configured")
        return
    assert_shape(answer, "method_not_allowed")
    assert answer.status == 405
    assert answer.header("allow") == ("GET, POST" if op == "chat" else "POST")


def test_connect_opens_no_tunnel(rig: Rig) -> None:
    port = rig.upstream.ports["canary"]
    got = asyncio.run(talk(rig, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n{AUTH}\r\n\r\n".encode()))
    assert not got.startswith(b"HTTP/1.1 2")
    time.sleep(0.1)
    assert rig.upstream.records.all("canary") == []


def test_an_upgrade_is_not_taken(rig: Rig) -> None:
    headers = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: eA==",
    )
    answer = asyncio.run(ask(rig.port, "chat", body_for("chat", "ok"), headers=headers))
    assert answer.status in (200, 400, 426), answer


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
             "application/json; charset=utf-16", "application/jsonp", ""],
)  # fmt: skip
def test_a_wrong_content_type_is_415(kind: str | None, rig: Rig) -> None:
    line = b"" if kind is None else f"Content-Type: {kind}\r\n".encode()
    data = request_bytes(PATHS["chat"], GOOD).replace(b"Content-Type: application/json\r\n", line)
    answer = asyncio.run(exchange(rig.port, data))
    assert answer.status == 415, answer
    assert_shape(answer, "unsupported_content_type")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF8"]
)
def test_a_right_content_type_in_another_spelling_is_taken(kind: str, rig: Rig) -> None:
    data = request_bytes(PATHS["chat"], GOOD).replace(b"application/json", kind.encode())
    assert asyncio.run(exchange(rig.port, data)).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        ("Authorization: Bearer sk-nobody", AUTH),
        (AUTH, "x-api-key: sk-other-key-1234"),
        (AUTH, "api-key: sk-other-key-1234"),
    ],
    ids=["two-bearers", "x-api-key", "api-key"],
)
def test_two_different_credentials_are_refused(lines: tuple[str, str], rig: Rig) -> None:
    data = request_bytes(PATHS["chat"], GOOD).replace(AUTH.encode(), "\r\n".join(lines).encode())
    answer = asyncio.run(exchange(rig.port, data))
    assert answer.status in (400, 401), answer
    assert_shape(answer, None)


BAD_KEYS = (
    "",
    "x",
    "Bearer",
    "Basic eA==",
    "Bearer ",
    f"Bearer {KEY}x",
    f"Bearer {KEY[:-1]}",
    "Bearer \xe9\xff",
)


@pytest.mark.parametrize("value", BAD_KEYS)
def test_a_bad_key_is_401(value: str, rig: Rig) -> None:
    data = request_bytes(PATHS["chat"], GOOD).replace(
        AUTH.encode(), f"Authorization: {value}".encode("latin-1")
    )
    answer = asyncio.run(exchange(rig.port, data))
    assert answer.status == 401, answer
    assert_shape(answer, "invalid_api_key")
    assert KEY[:-1] not in answer.body.decode()


def assert_shape(answer: Answer, code: str | None) -> None:
    """OpenAI's error object and a request id."""
    assert answer.error["code"] == code or code is None, answer
    assert answer.header("x-request-id")
