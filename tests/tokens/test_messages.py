"""Chat requests count as OpenAI's API bills them; images by size and detail, and every doubt has its code."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel

from sluicegate.tokens import MessageCount, count_messages, count_request, get_encoding

# The example of OpenAI's cookbook; the API itself billed 129 tokens (GPT-3.5, GPT-4) and 124 (GPT-4o) for it.
COOKBOOK = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon "
        "into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for "
        "increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
# And its example with a tool: 105 and 101.
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
UNIT = {
    "type": "string",
    "description": "The unit of temperature to return",
    "enum": ["celsius", "fahrenheit"],
}
LOCATION = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
SCHEMA = {"type": "object", "properties": {"location": LOCATION, "unit": UNIT}, "required": ["location"]}
FUNCTION: dict[str, Any] = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": SCHEMA,
}
HELLO = [{"role": "user", "content": "Hello"}]


def tool(**changes: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": FUNCTION | changes}]


def png(width: int, height: int) -> str:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0"
    return "data:image/png;base64," + base64.b64encode(header + b"\0" * 200).decode()


def image(url: str, **detail: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, **detail}}]}]


def images(model: str, url: str, **detail: str) -> MessageCount:
    return count_messages(image(url, **detail), model=model)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-3.5-turbo", 129),
        ("gpt-4-0613", 129),
        ("gpt-4", 129),
        ("gpt-4o", 124),
        ("gpt-4o-mini", 124),
        ("openai/gpt-4o", 124),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", 124),
    ],
)
def test_messages_as_the_api_counts_them(model: str, tokens: int) -> None:
    counted = count_messages(COOKBOOK, model=model)
    assert (counted.tokens, counted.exact, counted.reasons) == (tokens, True, ())


@pytest.mark.parametrize(("model", "tokens"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101)])
def test_tools_as_the_api_counts_them(model: str, tokens: int) -> None:
    counted = count_messages(WEATHER, model=model, tools=tool())
    assert (counted.tokens, counted.exact) == (tokens, True)


def test_other_models_count_as_gpt_4o_and_say_so() -> None:
    counted = count_messages(COOKBOOK, model="gpt-5")
    assert (counted.tokens, counted.exact, counted.reasons) == (124, False, ("unpublished_model",))


def test_without_a_tokenizer_bytes_are_counted_and_it_says_so() -> None:
    counted = count_messages(HELLO, model="llama3.2")
    assert counted.tokens == 3 + 2 + 2 + 3
    assert counted.reasons == ("unknown_tokenizer", "unpublished_model")
    counted = count_messages(HELLO, model="llama3.2", tokenizer="cl100k_base")
    assert counted.reasons == ("unpublished_model",)
    assert counted.tokens == count_messages(HELLO, model="gpt-4").tokens
    assert "tokens=8" in repr(counted)


def test_null_unknown_fields_and_parts() -> None:
    plain = count_messages(HELLO, model="gpt-4o")
    same: list[dict[str, Any]] = [
        {"role": "user", "content": "Hello", "name": None, "x": [1, {"y": "z"}], "n": 5},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "user", "content": ["Hello"]},
    ]
    for message in same:
        assert count_messages([message], model="gpt-4o").tokens == plain.tokens
    assert count_messages([], model="gpt-4o").tokens == 3


def test_objects_of_other_libraries() -> None:
    @dataclass
    class Data:
        role: str
        content: str

    class Packed(msgspec.Struct):
        role: str
        content: str

    class Model(BaseModel):
        role: str
        content: str

    expected = count_messages([{"role": "assistant", "content": "Hello"}], model="gpt-4o").tokens
    for kind in (Data, Packed, Model, ChatCompletionMessage):
        assert count_messages([kind(role="assistant", content="Hello")], model="gpt-4o").tokens == expected
    assert (
        count_messages(({"role": "assistant", "content": "Hello"} for _ in "x"), model="gpt-4o").tokens
        == expected
    )
    with pytest.raises(TypeError):
        count_messages([{"role": object()}], model="gpt-4o")


def test_calls_of_tools_add_their_texts() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    counted = count_messages([{"role": "assistant", "content": None, "tool_calls": [call]}], model="gpt-4o")
    encoding = get_encoding("o200k_base")
    texts = sum(map(encoding.count, ["assistant", "add", '{"a": 1}']))
    assert (counted.tokens, counted.reasons) == (3 + 3 + texts + 3, ("tool_calls",))
    legacy = {"role": "assistant", "function_call": {"name": "add", "arguments": '{"a": 1}'}}
    assert count_messages([legacy], model="gpt-4o").tokens == counted.tokens
    answer = count_messages([{"role": "tool", "tool_call_id": "call_1", "content": "2"}], model="gpt-4o")
    assert answer.exact


def test_odd_schemas_are_estimates_and_never_free() -> None:
    plain = count_messages(HELLO, model="gpt-4o", tools=tool()).tokens
    deeper = {"type": "object", "properties": {"a": {"type": "array", "items": SCHEMA}}}
    for changes in (
        {"description": None},
        {"parameters": deeper},
        {"parameters": SCHEMA | {"$defs": {"x": UNIT}}},
    ):
        counted = count_messages(HELLO, model="gpt-4o", tools=tool(**changes))
        assert counted.reasons == ("tool_schema",)
        assert counted.tokens > count_messages(HELLO, model="gpt-4o").tokens
    more = count_messages(HELLO, model="gpt-4o", tools=tool(parameters=SCHEMA | {"$defs": {"x": UNIT}}))
    assert more.tokens > plain
    custom = [{"type": "custom", "custom": {"name": "x", "description": "some text"}}]
    assert count_messages(HELLO, model="gpt-4o", tools=custom).reasons == ("tool_schema",)
    body = json.dumps({"messages": HELLO, "functions": [FUNCTION]}).encode()
    assert count_request(body, model="gpt-4o").tokens == plain
    assert count_messages(HELLO, model="gpt-4o", tools=[]).exact


def test_formats_and_choices() -> None:
    plain = count_messages(HELLO, model="gpt-4o").tokens
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    counted = count_messages(HELLO, model="gpt-4o", response_format=schema)
    assert counted.reasons == ("response_format",)
    assert counted.tokens > plain + 40
    assert count_messages(HELLO, model="gpt-4o", response_format={"type": "json_object"}).exact
    forced = {"type": "function", "function": {"name": "get_current_weather"}}
    assert count_messages(HELLO, model="gpt-4o", tool_choice=forced).reasons == ("tool_choice",)
    assert count_messages(HELLO, model="gpt-4o", tool_choice="auto").exact


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        # Figures of OpenAI's documentation and of bills.
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o", (2049, 513), "high", 1445),
        ("gpt-4o", (2050, 513), "high", 765),
        ("gpt-4o-mini", (1024, 1024), "high", 2833 + 4 * 5667),
        ("gpt-5", (1024, 1024), "high", 70 + 4 * 140),
        ("o1", (1024, 1024), "high", 75 + 4 * 150),
        ("gpt-4.1", (1024, 1024), "high", 765),
        ("gpt-4.1-mini", (1024, 1024), "high", 1659),
        ("gpt-4.1-nano", (1024, 1024), "high", 2520),
        ("gpt-5-mini", (1800, 2400), "high", 2353),
        ("o4-mini", (1800, 2400), "high", 2498),
        ("gpt-5.4-mini", (64, 32), "high", 4),
    ],
)
def test_images_by_size_and_detail(model: str, size: tuple[int, int], detail: str, tokens: int) -> None:
    counted = images(model, png(*size), detail=detail)
    assert counted.image_tokens == tokens
    assert counted.tokens == tokens + 3 + 1 + 3


def test_doubts_about_images() -> None:
    assert images("gpt-4o", png(512, 512), detail="high").exact
    assert images("gpt-4o", png(512, 512)).reasons == ("image_detail",)
    remote = images("gpt-4o", "https://example.com/a.png", detail="high")
    assert (remote.image_tokens, remote.reasons) == (85 + 8 * 170, ("image_size",))
    assert images("gpt-4o", "https://example.com/a.png", detail="low").exact
    broken = images("gpt-4o", "data:image/png;base64,AAAA", detail="high")
    assert (broken.image_tokens, broken.reasons) == (85 + 8 * 170, ("image_size",))
    assert "image_patches" in images("gpt-4.1-mini", png(64, 64), detail="high").reasons
    assert "image_model" in images("llava", png(64, 64), detail="high").reasons
    # GPT-5.6 does not resize an image of automatic detail.
    assert images("gpt-5.6", png(8000, 8000)).image_tokens == 75_000
    assert images("gpt-5.6", png(8000, 8000), detail="high").image_tokens <= 3000


def test_audio_files_and_what_is_unknown_get_a_reserve() -> None:
    data = base64.b64encode(b"\0" * 40_000).decode()
    for part, reason, least in (
        ({"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}, "audio", 100),
        ({"type": "file", "file": {"file_data": f"data:application/pdf;base64,{data}"}}, "file", 10_000),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file", 8192),
        ({"type": "video_url", "video_url": {"url": "https://example.com/v"}}, "file", 8192),
        ({"type": "novel", "text": "some words that count"}, "unknown_part", 4),
    ):
        counted = count_messages([{"role": "user", "content": [part]}], model="gpt-4o")
        assert counted.reasons == (reason,)
        assert counted.tokens >= least


def test_requests_that_cannot_be_counted() -> None:
    for body, message in (
        (b"", "not valid JSON"),
        (b"[]", "an array `messages`"),
        (b'{"model": "m"}', "an array `messages`"),
        (b'{"messages": 5}', "an array `messages`"),
        (b'{"messages": [{}, 5]}', r"messages\[1\]"),
        (b'{"messages": []} x', "at byte 17"),
        (b'{"messages": [{"role": "\xff"}]}', "at byte 24"),
    ):
        with pytest.raises(ValueError, match=message):
            count_request(body, model="gpt-4o")
    with pytest.raises(ValueError, match=r"messages\[0\]"):
        count_messages(["Hello"], model="gpt-4o")
    with pytest.raises(OSError, match="absent"):
        count_messages(HELLO, model="x", tokenizer="./absent.json")


def test_a_long_history_with_escapes() -> None:
    messages = [{"role": "user", "content": 'line "one"\n\tline two \\ 你好 \u2028' * 50}] * 100
    encoding = get_encoding("o200k_base")
    one = 3 + encoding.count("user") + encoding.count(str(messages[0]["content"]))
    assert count_messages(messages, model="gpt-4o").tokens == 100 * one + 3
    escaped = json.dumps({"messages": messages}).encode()
    assert count_request(escaped, model="gpt-4o").tokens == 100 * one + 3
