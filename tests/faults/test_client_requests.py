"""C8 to C15 and C18: request bodies that are malformed, hostile or only odd."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from faults.client import KEY, PATHS, Answer, ask, body_for, exchange, request_bytes
from faults.content import TEXT
from faults.pace import LONGEST
from faults.rig import UPSTREAM_KEY, Rig

USER = '{"role":"user","content":"hi"}'


def chat(members: str) -> bytes:
    """A chat request with these further members, as they are."""
    return f'{{"model":"ok","messages":[{USER}],{members}}}'.encode()


def text(content: str) -> bytes:
    """A chat request whose message has this JSON text inside its quotes."""
    return f'{{"model":"ok","messages":[{{"role":"user","content":"{content}"}}]}}'.encode()


def messages(value: str) -> bytes:
    """A chat request with these messages."""
    return f'{{"model":"ok","messages":{value}}}'.encode()


def deep(value: str) -> bytes:
    """A chat request whose message has this content."""
    return messages(f'[{{"role":"user","content":{value}}}]')


def model(value: str) -> bytes:
    """A chat request for this model, as JSON text."""
    return f'{{"model":{value},"messages":[{USER}]}}'.encode()


MANY = ",".join(['{"role":"user"}'] * 100_001)
# (name, body, code, param or None where it is not asked for)
BAD_CHATS: list[tuple[str, bytes, str, str | None]] = [
    # C8
    ("deep-arrays", chat('"x":' + "[" * 100_000 + "]" * 100_000), "json_too_deep", None),
    ("deep-objects", chat('"x":' + '{"a":' * 100_000 + "1" + "}" * 100_000), "json_too_deep", None),
    ("deep-open", chat('"x":' + "[" * 500_000), "json_too_deep", None),
    ("deep-in-message", deep("[" * 1000 + "]" * 1000), "json_too_deep", None),
    # C9
    ("model-twice", chat('"model":"ok-neighbour"'), "duplicate_key", "model"),
    ("model-twice-escaped", chat(r'"mod\u0065l":"ok-neighbour"'), "duplicate_key", "model"),
    ("messages-twice", chat(f'"messages":[{USER}]'), "duplicate_key", "messages"),
    ("stream-twice", chat('"stream":true,"stream":false'), "duplicate_key", "stream"),
    ("unknown-twice", chat('"x":1,"x":2'), "duplicate_key", "x"),
    # C10
    ("invalid-utf8", text("a!b").replace(b"!", b"\xff"), "invalid_utf8", None),
    ("overlong-utf8", text("a!b").replace(b"!", b"\xc0\xaf"), "invalid_utf8", None),
    ("utf8-surrogate", text("a!b").replace(b"!", b"\xed\xa0\x80"), "invalid_utf8", None),
    ("utf8-cut", text("a!b").replace(b"!", b"\xe2\x82"), "invalid_utf8", None),
    ("utf16", text("hi").decode().encode("utf-16"), "invalid_utf8", None),
    ("lone-surrogate", text(r"\ud800"), "invalid_json", None),
    ("lone-low-surrogate", text(r"\udc00x"), "invalid_json", None),
    ("reversed-surrogates", text(r"\udc00\ud800"), "invalid_json", None),
    ("surrogate-in-key", chat(r'"\ud800":1'), "invalid_json", None),
    ("byte-order-mark", b"\xef\xbb\xbf" + text("hi"), "invalid_json", None),
    ("raw-nul", text("a\x00b"), "invalid_json", None),
    ("raw-newline", text("a\nb"), "invalid_json", None),
    # C11
    ("nan", chat('"temperature":NaN'), "invalid_json", None),
    ("infinity", chat('"temperature":Infinity'), "invalid_json", None),
    ("minus-infinity", chat('"x":-Infinity'), "invalid_json", None),
    ("1e400", chat('"temperature":1e400'), "invalid_value", "temperature"),
    ("1e400-unknown", chat('"x":[1e400]'), "invalid_value", "x"),
    ("minus-1e400", chat('"x":-1e400'), "invalid_value", "x"),
    ("5000-digits", chat('"x":' + "9" * 5000), "invalid_value", "x"),
    ("5000-digits-max-tokens", chat('"max_tokens":' + "1" * 5000), "invalid_value", "max_tokens"),
    ("leading-zero", chat('"x":01'), "invalid_json", None),
    ("no-fraction", chat('"temperature":1.'), "invalid_json", None),
    ("plus", chat('"n":+1'), "invalid_json", None),
    ("hex", chat('"x":0x1'), "invalid_json", None),
    # C12
    ("n-huge", chat('"n":1000000000'), "invalid_value", "n"),
    ("n-zero", chat('"n":0'), "invalid_value", "n"),
    ("n-text", chat('"n":"2"'), "invalid_type", "n"),
    ("max-tokens-negative", chat('"max_tokens":-1'), "invalid_value", "max_tokens"),
    ("max-tokens-fraction", chat('"max_tokens":1.5'), "invalid_type", "max_tokens"),
    ("max-tokens-text", chat('"max_tokens":"5"'), "invalid_type", "max_tokens"),
    ("max-tokens-2-63", chat('"max_tokens":9223372036854775808'), "invalid_value", "max_tokens"),
    ("max-differ", chat('"max_tokens":5,"max_completion_tokens":6'), "invalid_value", "max_tokens"),
    ("temperature-huge", chat('"temperature":1e308'), "invalid_value", "temperature"),
    ("temperature-text", chat('"temperature":"hot"'), "invalid_type", "temperature"),
    ("temperature-true", chat('"temperature":true'), "invalid_type", "temperature"),
    ("stop-many", chat('"stop":[' + ",".join(['"a"'] * 400_000) + "]"), "invalid_value", "stop"),
    ("stop-numbers", chat('"stop":[1]'), "invalid_type", "stop[0]"),
    ("messages-many", messages(f"[{MANY}]"), "invalid_value", "messages"),
    ("tools-many", chat('"tools":[' + ",".join(["{}"] * 100_000) + "]"), "invalid_value", "tools"),
    ("fields-many", chat(",".join(f'"f{i}":1' for i in range(2000))), "invalid_value", None),
    # C13
    ("empty", b"", "invalid_json", None),
    ("blank", b"  \n ", "invalid_json", None),
    ("null", b"null", "invalid_type", None),
    ("list", b"[]", "invalid_type", None),
    ("text", b'"hi"', "invalid_type", None),
    ("cut", text("hi")[:-1], "invalid_json", None),
    ("two-objects", text("hi") + text("hi"), "invalid_json", None),
    ("trailing-comma", chat('"x":[1,]'), "invalid_json", None),
    ("comment", chat('"x":1 /* y */'), "invalid_json", None),
    ("single-quotes", b"{'model':'ok'}", "invalid_json", None),
    ("no-messages", b'{"model":"ok"}', "missing_required_parameter", "messages"),
    ("null-messages", messages("null"), "missing_required_parameter", "messages"),
    ("empty-messages", messages("[]"), "invalid_value", "messages"),
    ("text-messages", messages('"hi"'), "invalid_type", "messages"),
    ("number-message", messages("[1]"), "invalid_type", "messages[0]"),
    ("null-message", messages("[null]"), "invalid_type", "messages[0]"),
    ("no-role", messages('[{"content":"x"}]'), "missing_required_parameter", "messages[0].role"),
    ("number-content", deep("5"), "invalid_type", "messages[0].content"),
    ("content-of-texts", deep('["a"]'), "invalid_type", "messages[0].content[0]"),
    ("number-model", model("5"), "invalid_type", "model"),
    ("empty-model", model('""'), "invalid_value", "model"),
    ("long-model", model('"' + "m" * 100_000 + '"'), "invalid_value", "model"),
    ("text-stream", chat('"stream":"yes"'), "invalid_type", "stream"),
    ("number-stream", chat('"stream":1'), "invalid_type", "stream"),
    ("text-stream-options", chat('"stream_options":"x"'), "invalid_type", "stream_options"),
    ("list-metadata", chat('"metadata":[]'), "invalid_type", "metadata"),
    ("object-tools", chat('"tools":{}'), "invalid_type", "tools"),
    ("number-user", chat('"user":5'), "invalid_type", "user"),
    # C15
    ("crlf-model", model(r'"ok\r\nX-Evil: 1"'), "invalid_value", "model"),
    ("nul-model", model(r'"ok\u0000"'), "invalid_value", "model"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "param"), [pytest.param(*row[1:], id=row[0]) for row in BAD_CHATS])
def test_a_bad_chat_request_is_400(body: bytes, code: str, param: str | None, rig: Rig) -> None:
    answer = asyncio.run(ask(rig.port, "chat", body))
    assert_refused(answer, 400, code)
    if param is not None:
        assert answer.error["param"] == param


BAD_OTHERS: list[tuple[str, str, bytes, str, str]] = [
    ("no-prompt", "completions", b'{"model":"ok"}', "missing_required_parameter", "prompt"),
    ("number-prompt", "completions", b'{"model":"ok","prompt":5}', "invalid_type", "prompt"),
    ("mixed-prompt", "completions", b'{"model":"ok","prompt":["a",1]}', "invalid_type", "prompt[1]"),
    ("best-of-huge", "completions", b'{"prompt":"a","best_of":1000000}', "invalid_value", "best_of"),
    ("no-input", "embeddings", b'{"model":"ok"}', "missing_required_parameter", "input"),
    ("empty-input", "embeddings", b'{"model":"ok","input":""}', "invalid_value", "input"),
    ("empty-inputs", "embeddings", b'{"model":"ok","input":[]}', "invalid_value", "input"),
    ("null-input", "embeddings", b'{"model":"ok","input":[null]}', "invalid_type", "input[0]"),
    ("fraction-token", "embeddings", b'{"model":"ok","input":[1.5]}', "invalid_type", "input[0]"),
    ("dimensions-zero", "embeddings", b'{"input":"a","dimensions":0}', "invalid_value", "dimensions"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "body", "code", "param"), [pytest.param(*row[1:], id=row[0]) for row in BAD_OTHERS]
)
def test_other_endpoints_refuse_as_well(op: str, body: bytes, code: str, param: str, rig: Rig) -> None:
    answer = asyncio.run(ask(rig.port, op, body))
    assert_refused(answer, 400, code)
    assert answer.error["param"] == param


def assert_refused(answer: Answer, status: int, code: str) -> None:
    """The error object, its request id, and that the SDKs need not try again."""
    assert answer.complete, answer
    assert answer.status == status, answer
    error = answer.error
    assert error["code"] == code, error
    assert len(answer.body) < 2000, "a message repeats too much of the request"
    assert answer.header("x-request-id")
    assert answer.header("x-should-retry") == "false"


def test_the_worker_has_survived_all_that(rig: Rig) -> None:
    pid = rig.server.process.pid
    for body in (row[1] for row in BAD_CHATS[:4]):
        asyncio.run(ask(rig.port, "chat", body))
    assert rig.server.process.poll() is None, f"{pid} is gone"
    assert asyncio.run(ask(rig.port, "chat", body_for("chat", "ok"))).text == TEXT
    assert "Unexpected exit" not in rig.server.output()


def forwarded(rig: Rig, body: bytes, nonce: str, op: str = "chat") -> bytes:
    """Send it, expect success, and give the body that reached the upstream."""
    answer = asyncio.run(ask(rig.port, op, body))
    assert answer.status == 200, answer
    (connection,) = rig.connections(nonce)
    return next(r.body for r in connection.requests if r.json.get("user") == nonce)


GOOD_TEXTS = {
    "escaped-nul": r"a\u0000b",
    "escaped-pair": r"\ud83d\ude00",
    "end-of-text": "<|endoftext|><|im_start|>system",
    "templates": "{{7*7}} ${x} {0.__class__} %s",
    "html": "<script>alert(1)</script>",
    "crlf": r"a\r\nX-Evil: 1",
    "bidi": "\u202e\u2066abc\u200b",
    "emoji": "👩‍👩‍👧‍👦" * 50,
}


@pytest.mark.parametrize("name", GOOD_TEXTS)
def test_any_text_is_passed_on_byte_for_byte(name: str, rig: Rig) -> None:
    nonce = f"text-{name}"
    body = text(GOOD_TEXTS[name]).replace(b"{", b'{"user":"' + nonce.encode() + b'", ', 1)
    assert forwarded(rig, body, nonce) == body


def test_unknown_fields_and_odd_spelling_are_passed_on(rig: Rig) -> None:
    """C14: what the gateway does not know is the upstream's, spaces, order and numbers included."""
    nonce = "odd-but-good"
    body = (
        '{ "x_new" : [1.0, 1e2, -0, 0.10], "user":"' + nonce + '",\n'
        '\t"model":"ok", "nested":{"a":{"a":1},"b":null}, "messages" : [' + USER + "] }"
    ).encode()
    assert forwarded(rig, body, nonce) == body


def test_only_what_has_to_change_is_changed(rig: Rig) -> None:
    """A stream gets `include_usage`; everything else keeps its bytes."""
    nonce = "spliced"
    body = chat(f'"user":"{nonce}","stream":true,"x_new":  1.50')
    sent = forwarded(rig, body, nonce)
    assert sent != body
    changed = json.loads(sent)
    assert changed.pop("stream_options") == {"include_usage": True}
    assert changed == json.loads(body)
    assert b'"x_new":  1.50' in sent


@pytest.mark.parametrize("field", ["api_base", "base_url", "api_key", "extra_headers", "fallbacks", "models"])
def test_fields_that_would_choose_another_server_are_refused(field: str, rig: Rig) -> None:
    canary = f"http://127.0.0.1:{rig.upstream.ports['canary']}/v1"
    before = len(rig.upstream.records.all("canary"))
    answer = asyncio.run(ask(rig.port, "chat", {**body_for("chat", "ok"), field: canary}))
    assert_refused(answer, 400, "invalid_value")
    assert answer.error["param"] == field
    assert len(rig.upstream.records.all("canary")) == before


def test_a_url_in_a_message_is_not_fetched(rig: Rig) -> None:
    url = f"http://127.0.0.1:{rig.upstream.ports['canary']}/picture.png"
    part = {"type": "image_url", "image_url": {"url": url}}
    before = len(rig.upstream.records.all("canary"))
    body = body_for("chat", "ok", messages=[{"role": "user", "content": [part]}])
    assert asyncio.run(ask(rig.port, "chat", body)).status == 200
    assert len(rig.upstream.records.all("canary")) == before


def test_metadata_reaches_no_header_and_no_log_line(rig: Rig) -> None:
    nonce = "evil\r\nX-Evil: 1\x00"
    body = body_for("chat", "ok", user=nonce, metadata={"a\r\nb": "c\r\nX-Evil: 2"})
    assert asyncio.run(ask(rig.port, "chat", body)).status == 200
    (connection,) = rig.connections(nonce)
    assert not [name for name, _ in connection.requests[-1].headers if "evil" in name]


def logged(rig: Rig, answer: Answer) -> str:
    """The log up to the whole line of this answer."""
    wanted = str(answer.header("x-request-id"))
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        lines = rig.server.output().rpartition("\n")[0]
        if wanted in lines:
            return lines
        time.sleep(0.01)
    raise AssertionError(f"{wanted} is not in the log")


def test_an_unknown_model_with_line_ends_breaks_no_log_line(rig: Rig) -> None:
    answer = asyncio.run(ask(rig.port, "chat", body_for("chat", "no-such\u2028model\u0085{}")))
    assert answer.status in (400, 404), answer
    after = asyncio.run(ask(rig.port, "chat", body_for("chat", "u20-401")))
    for line in logged(rig, after).split("\n"):
        if line.startswith("{"):
            json.loads(line)
        assert "\r" not in line


def test_no_secret_is_in_the_log(rig: Rig) -> None:
    asyncio.run(exchange(rig.port, request_bytes(PATHS["chat"], b"{}", key="sk-wrong-key-in-the-log-4711")))
    log = logged(rig, asyncio.run(ask(rig.port, "chat", body_for("chat", "u20-401"))))
    for secret in (KEY, UPSTREAM_KEY, "sk-wrong-key-in-the-log-4711", "hello"):
        assert secret not in log
