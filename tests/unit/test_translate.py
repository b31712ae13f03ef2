"""Items of the Responses API as messages of a chat, and what is dropped where a context is too long."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.conversations.model import read_items, user_message
from sluicegate.errors import GatewayError, bad_request
from sluicegate.responses.model import read
from sluicegate.responses.translate import chat_body, dropped_oldest, head, renamed


def translated(**fields: Any) -> dict[str, Any]:
    asked = read({"model": "m", "input": "x", **fields})
    body: dict[str, Any] = orjson.loads(chat_body(asked, asked.input))
    return body


def call(ref: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": ref, "name": "f", "arguments": "{}"}


def output(ref: str, text: Any = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": ref, "output": text}


def test_a_text_is_a_message_of_the_user() -> None:
    assert translated(input="Hi") == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_calls_of_one_answer_are_one_message() -> None:
    items = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "I look."},
        call("a"),
        call("b"),
        output("b"),
        output("a", [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]),
        call("c"),
        output("c"),
    ]
    messages = translated(input=items)["messages"]
    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
    ]
    assert [made["id"] for made in messages[1]["tool_calls"]] == ["a", "b"]
    assert messages[1]["content"] == "I look."
    assert messages[3] == {"role": "tool", "tool_call_id": "a", "content": "one\ntwo"}


def test_thoughts_are_not_sent_back() -> None:
    items = [{"type": "reasoning", "id": "rs_1", "summary": []}, {"role": "user", "content": "x"}]
    assert len(translated(input=items)["messages"]) == 1


def test_unknown_fields_go_along_and_known_ones_do_not() -> None:
    body = translated(
        top_k=5, user="u", truncation="auto", include=["reasoning.encrypted_content"], store=False
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "top_k": 5,
        "user": "u",
    }


def test_allowed_tools_narrow_the_list() -> None:
    tools = [{"type": "function", "name": name, "parameters": {}} for name in "ab"]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    body = translated(tools=tools, tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["b"]
    assert body["tool_choice"] == "required"


@pytest.mark.parametrize(
    "choice", ["some", 5, {"type": "web_search"}, {"type": "allowed_tools", "mode": "x"}]
)
def test_other_choices_are_refused(choice: Any) -> None:
    with pytest.raises(GatewayError) as refused:
        translated(tools=[{"type": "function", "name": "a"}], tool_choice=choice)
    assert (refused.value.param or "").startswith("tool_choice")


def test_the_head_shows_what_was_asked() -> None:
    asked = read({"input": "x", "metadata": {"a": "b"}, "temperature": 0.5, "conversation": {"id": "conv_1"}})
    shown = head(asked, ("resp_1", 7), "m", store=True)
    assert shown["conversation"] == {"id": "conv_1"}
    assert (shown["id"], shown["created_at"], shown["temperature"]) == ("resp_1", 7, 0.5)
    assert not {"status", "output", "usage", "error", "incomplete_details"} & shown.keys()


@pytest.mark.parametrize(
    ("given_param", "shown"),
    [
        ("messages[3].content", "input"),
        ("max_completion_tokens", "max_output_tokens"),
        ("tools[0].function", "tools[0].function"),
        ("temperature", "temperature"),
        (None, None),
    ],
)
def test_params_of_the_chat_are_named_as_the_client_knows_them(
    given_param: str | None, shown: str | None
) -> None:
    assert renamed(bad_request("x", "y", given_param)).param == shown


@given(st.lists(st.sampled_from(["user", "assistant", "system", "call"]), min_size=1, max_size=40))
def test_what_is_dropped_is_whole_turns_and_never_the_last_one(kinds: list[str]) -> None:
    items: list[Any] = []
    for place, kind in enumerate(kinds):
        if kind == "call":
            items += read_items([call(f"c{place}"), output(f"c{place}")], "input")
        else:
            items += read_items([{"role": kind, "content": str(place)}], "input")
    items.append(user_message("new"))
    instructions = [item for item in items if item.get("role") == "system"]
    left: list[Any] | None = items
    while left is not None:
        assert left[-1] == items[-1]
        assert [item for item in left if item.get("role") == "system"] == instructions
        calls = {item["call_id"] for item in left if item["type"] == "function_call"}
        assert {item["call_id"] for item in left if item["type"] == "function_call_output"} <= calls
        shorter = dropped_oldest(left)
        assert shorter is None or len(shorter) < len(left)
        last, left = left, shorter
    begun = [item for item in last if item.get("role") != "system"]
    assert [item for item in begun[1:] if item.get("role") == "user"] == []


KEYS = ["type", "role", "content", "id", "text", "call_id", "output", "name", "arguments"]
WORDS = ["message", "user", "assistant", "function_call", "function_call_output", "input_text", "refusal"]
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(WORDS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)


@given(VALUES)
def test_any_input_is_translated_or_refused_by_name(value: Any) -> None:
    try:
        asked = read({"model": "m", "input": value})
        orjson.loads(chat_body(asked, [i for i in asked.input if i["type"] != "item_reference"]))
    except GatewayError as error:
        assert error.status == 400
        assert (error.param or "").startswith("input")
