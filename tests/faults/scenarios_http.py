"""Scenarios U8 to U29: connections, heads, statuses, and bodies of the wrong kind."""

from __future__ import annotations

import time
from email.utils import formatdate

from faults.content import (
    Asked,
    answer,
    chunked_head,
    content_type,
    dumps,
    error_body,
    event,
    events,
    http,
    http_chunk,
    http_head,
    ok,
    whole,
)
from faults.steps import CLOSE, FOREVER, RESET, Steps, World, fault

JSON = "application/json"


@fault("ok", "ok-neighbour", "at-tls-good")
def works(asked: Asked, _: World) -> Steps:
    """The right answer."""
    yield ok(asked)


@fault("u8-silence", "c1-silence")
def silence(_asked: Asked, _: World) -> Steps:
    """Reads the request and says nothing."""
    yield FOREVER


@fault("u9-close")
def close(_asked: Asked, _: World) -> Steps:
    """Reads the request and closes."""
    yield CLOSE


@fault("u10-rst")
def reset(_asked: Asked, _: World) -> Steps:
    """Reads the request and resets, on every connection."""
    yield RESET


@fault("u10-rst-reused")
def reset_reused(asked: Asked, _: World) -> Steps:
    """Answers on a new connection, resets on a used one."""
    yield RESET if asked.earlier else ok(asked)


@fault("u10-close-reused")
def close_reused(asked: Asked, _: World) -> Steps:
    """Answers on a new connection, closes on a used one."""
    yield CLOSE if asked.earlier else ok(asked)


@fault("u11-drip-head")
def drip_head(asked: Asked, _: World) -> Steps:
    """The head arrives a byte each 100 ms."""
    for number in ok(asked):
        yield bytes([number])
        yield 0.1


@fault("u12-many-headers")
def many_headers(asked: Asked, _: World) -> Steps:
    """300 headers."""
    yield http("200 OK", content_type(asked), whole(asked), *(f"X-Flood-{i}: 1" for i in range(300)))


@fault("u12-big-header")
def big_header(asked: Asked, _: World) -> Steps:
    """One header of 1 MiB."""
    yield http("200 OK", content_type(asked), whole(asked), "X-Flood: " + "a" * (1 << 20))


@fault("u12-endless-headers")
def endless_headers(_asked: Asked, _: World) -> Steps:
    """Headers without an end."""
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-Flood: " + b"a" * 1000 + b"\r\n"


STATUS_LINES = {
    "u13-status-text": b"HTTP/1.1 abc OK\r\n",
    "u13-status-short": b"HTTP/1.1 20 OK\r\n",
    "u13-icy": b"ICY 200 OK\r\n",
    "u13-version": b"HTTP/9.9 200 OK\r\n",
    "u13-ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "u13-binary": b"\x16\x03\x01\x02\x00\x01\x00\xff\xff\r\n",
}


@fault(*STATUS_LINES)
def status_line(asked: Asked, _: World) -> Steps:
    """A status line that is none."""
    yield STATUS_LINES[asked.scenario] + b"Content-Length: 2\r\n\r\n{}"
    yield FOREVER


LENGTHS = {
    "u14-two-lengths": ("Content-Length: 10", "Content-Length: 20"),
    "u14-length-list": ("Content-Length: 10, 20",),
    "u14-length-and-chunked": ("Content-Length: 10", "Transfer-Encoding: chunked"),
    "u14-length-negative": ("Content-Length: -1",),
    "u14-length-text": ("Content-Length: ten",),
    "u14-length-plus": ("Content-Length: +20",),
}


@fault(*LENGTHS)
def lengths(asked: Asked, _: World) -> Steps:
    """Framing headers that contradict themselves."""
    body = http_chunk(whole(asked)) + b"0\r\n\r\n"
    yield http_head("200 OK", f"Content-Type: {content_type(asked)}", *LENGTHS[asked.scenario]) + body
    yield FOREVER


CHUNK_SIZES = {
    "u14-chunk-text": b"zz\r\n",
    "u14-chunk-overflow": b"fffffffffffffffff\r\n",
    "u14-chunk-negative": b"-5\r\n",
}


@fault(*CHUNK_SIZES)
def chunk_size(asked: Asked, _: World) -> Steps:
    """A first chunk with a size that is none."""
    yield chunked_head(asked) + CHUNK_SIZES[asked.scenario] + whole(asked)
    yield FOREVER


@fault("u15-few-interim")
def few_interim(asked: Asked, _: World) -> Steps:
    """Three interim responses, then the answer."""
    yield http_head("100 Continue") * 2 + http_head("103 Early Hints", "Link: </a>; rel=preload")
    yield ok(asked)


@fault("u15-many-interim")
def many_interim(asked: Asked, _: World) -> Steps:
    """40 interim responses, then the answer."""
    yield http_head("103 Early Hints") * 40
    yield ok(asked)


@fault("u15-endless-interim")
def endless_interim(_asked: Asked, _: World) -> Steps:
    """100 Continue without an end."""
    while True:
        yield http_head("100 Continue") * 10


@fault("u16-closer")
def closer(asked: Asked, world: World) -> Steps:
    """Answers, and closes some milliseconds later: often just when the next request arrives."""
    yield ok(asked)
    yield world.rng.uniform(0.002, 0.008)
    yield CLOSE


@fault("u16b-keep-alive")
def keep_alive(asked: Asked, _: World) -> Steps:
    """Announces that it keeps idle connections for one second; does not close them itself."""
    yield http("200 OK", content_type(asked), whole(asked), "Keep-Alive: timeout=1")


@fault("u16b-silent-close")
def silent_close(asked: Asked, _: World) -> Steps:
    """Closes after each answer without announcing it."""
    yield ok(asked)
    yield CLOSE


@fault("u17-early-413", early=True)
def early_413(_asked: Asked, _: World) -> Steps:
    """Refuses before the body has arrived, then resets."""
    yield http("413 Payload Too Large", JSON, error_body("too large for us", "too_large"))
    yield 0.3
    yield RESET


@fault("u17-early-200", early=True)
def early_200(asked: Asked, _: World) -> Steps:
    """Answers before the body has arrived, then closes."""
    yield ok(asked)
    yield 0.3
    yield CLOSE


REDIRECTS = {f"u18-redirect-{status}": status for status in (301, 302, 303, 307, 308)}


@fault(*REDIRECTS)
def redirect(asked: Asked, world: World) -> Steps:
    """A redirect to another port of this machine, where nobody may ever ask."""
    where = f"Location: http://127.0.0.1:{world.ports['canary']}{asked.target}"
    yield http(f"{REDIRECTS[asked.scenario]} Found", "text/plain", b"elsewhere", where)


@fault("u18-redirect-metadata")
def redirect_metadata(_asked: Asked, _: World) -> Steps:
    """A redirect to the metadata service of clouds."""
    yield http("307 Moved", "text/plain", b"", "Location: http://169.254.169.254/latest/meta-data/")


@fault("u19-redirect-loop")
def redirect_loop(asked: Asked, _: World) -> Steps:
    """A redirect to itself."""
    yield http("307 Moved", "text/plain", b"", f"Location: {asked.target}")


@fault("u20-401", "u20-403")
def forbidden(asked: Asked, _: World) -> Steps:
    """The gateway's key is refused, and repeated in the message, as some servers do."""
    key = dict(asked.headers).get("authorization", "").removeprefix("Bearer ")
    body = error_body(f"Incorrect API key provided: {key}", "invalid_api_key")
    yield http(f"{asked.scenario[-3:]} No", JSON, body)


@fault("u21-404-json")
def missing_json(_asked: Asked, _: World) -> Steps:
    """The model does not exist."""
    yield http("404 Not Found", JSON, error_body("The model `x` does not exist.", "model_not_found"))


@fault("u21-404-html")
def missing_html(_asked: Asked, _: World) -> Steps:
    """The path does not exist."""
    yield http("404 Not Found", "text/html", b"<html><h1>Not Found</h1></html>")


RETRY_AFTER = {
    "u22-429-seconds": "7",
    "u22-429-date": "date",
    "u22-429-huge": "1000000000",
    "u22-429-negative": "-5",
    "u22-429-garbage": "soon, maybe",
    "u23-429-bare": None,
}


@fault(*RETRY_AFTER)
def limited(asked: Asked, _: World) -> Steps:
    """A rate limit, with more or less of a time to wait."""
    wait = RETRY_AFTER[asked.scenario]
    if wait == "date":
        wait = formatdate(time.time() + 30, usegmt=True)
    body = error_body("Slow down, please.", "rate_limit_exceeded", "requests")
    yield http("429 Too Many Requests", JSON, body, *([f"Retry-After: {wait}"] if wait else []))


@fault("u23-429-quota")
def quota(_asked: Asked, _: World) -> Steps:
    """The upstream's account has no money left: waiting does not help."""
    body = error_body("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")
    yield http("429 Too Many Requests", JSON, body, "Retry-After: 5")


BAD_STATUSES = (500, 502, 503, 504, 529)
BAD_BODIES = {
    "json": (JSON, error_body("The engine is on fire.", None)),
    "html": ("text/html", b"<html><body>Bad <script>alert(1)</script></body></html>"),
    "empty": ("text/plain", b""),
}


@fault(*(f"u24-{status}-{kind}" for status in BAD_STATUSES for kind in BAD_BODIES))
def bad_status(asked: Asked, _world: World) -> Steps:
    """An error status with a body of some kind."""
    _, status, kind = asked.scenario.split("-")
    yield http(f"{status} Bad", *BAD_BODIES[kind])


@fault("u24-500-endless")
def bad_status_endless(_asked: Asked, _world: World) -> Steps:
    """500 with 50 MiB of HTML."""
    yield http_head("500 Bad", "Content-Type: text/html", f"Content-Length: {50 << 20}")
    for _ in range(50 * 16):
        yield b"<p>" * 21845 + b"x"


@fault("u24-500-stall")
def bad_status_stall(_asked: Asked, _: World) -> Steps:
    """500, and the announced body never comes."""
    yield http_head("500 Bad", "Content-Type: application/json", "Content-Length: 1000") + b'{"error"'
    yield FOREVER


@fault("u24-400-json")
def bad_request(_asked: Asked, _: World) -> Steps:
    """400 with the four keys: a mistake of the client, to be told as it is."""
    body = {
        "message": "'top_k' is unknown",
        "type": "invalid_request_error",
        "param": "top_k",
        "code": "bad_k",
    }
    yield http("400 Bad Request", JSON, dumps({"error": body}))


@fault("u24-400-stream-options")
def no_stream_options(asked: Asked, _: World) -> Steps:
    """An older server, which refuses `stream_options`."""
    body = error_body("Unknown parameter: 'stream_options'.", None, "invalid_request_error")
    yield http("400 Bad Request", JSON, body) if "stream_options" in asked.json else ok(asked)


@fault("u25-html")
def captive_portal(_asked: Asked, _: World) -> Steps:
    """200 with a web page."""
    yield http("200 OK", "text/html", b"<html>Please log in to the hotel's network</html>")


@fault("u26-error-object")
def error_in_200(_asked: Asked, _: World) -> Steps:
    """200 with an error object."""
    yield http("200 OK", JSON, error_body("The engine is on fire."))


@fault("u26-error-text")
def error_text_in_200(_asked: Asked, _: World) -> Steps:
    """200 with an error that is only a text."""
    yield http("200 OK", JSON, dumps({"error": "The engine is on fire."}))


@fault("u27-json-always")
def json_always(asked: Asked, _: World) -> Steps:
    """A plain answer, whatever was asked."""
    yield http("200 OK", JSON, dumps(answer(asked)))


@fault("u28-sse-always")
def sse_always(asked: Asked, _: World) -> Steps:
    """A stream, whatever was asked."""
    yield http("200 OK", "text/event-stream", b"".join(events(asked)))


@fault("u28-sse-broken")
def sse_broken(asked: Asked, _: World) -> Steps:
    """A stream, whatever was asked, and it ends early."""
    yield http("200 OK", "text/event-stream", b"".join(events(asked)[:2]))


@fault("u29-204")
def no_content(_asked: Asked, _: World) -> Steps:
    """204."""
    yield http_head("204 No Content")


@fault("u29-empty")
def empty(asked: Asked, _: World) -> Steps:
    """200 with no body."""
    yield http("200 OK", content_type(asked), b"")


@fault("u29-comments-only")
def comments_only(_asked: Asked, _: World) -> Steps:
    """A stream of comments that ends."""
    yield http("200 OK", "text/event-stream", b": hello\n\n: bye\n\n")


@fault("u29-done-only")
def done_only(_asked: Asked, _: World) -> Steps:
    """A stream of nothing but the marker."""
    yield http("200 OK", "text/event-stream", event(b"[DONE]"))
