"""A response read as the answer of a chat: what was said, how it ended, when nothing can be said of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from sluicegate.engine import QualityChecks
from sluicegate.responses.form import RESPONSE_FORM, chat_of

TEXT = {"type": "output_text", "text": "It is 4.", "annotations": []}
REFUSAL = {"type": "refusal", "refusal": "No."}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


def response(*output: Any, status: str = "completed", reason: str | None = None) -> bytes:
    details = None if reason is None else {"reason": reason}
    return orjson.dumps({"status": status, "incomplete_details": details, "output": list(output)})


def message(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def choice(answer: bytes) -> dict[str, Any]:
    chat = chat_of(answer)
    assert chat is not None
    (only,) = orjson.loads(chat)["choices"]
    return dict(only)


@pytest.mark.parametrize(
    ("status", "reason", "finish"),
    [
        ("completed", None, "stop"),
        ("incomplete", "max_output_tokens", "length"),
        ("incomplete", "content_filter", "content_filter"),
        ("incomplete", "something_new", "length"),
        ("failed", None, None),
        ("cancelled", None, None),
    ],
)
def test_how_it_ended(status: str, reason: str | None, finish: str | None) -> None:
    found = choice(response(message(TEXT), status=status, reason=reason))
    assert (found["finish_reason"], found["message"]["content"]) == (finish, "It is 4.")


def test_a_refusal_is_none_of_the_text() -> None:
    said = choice(response(message(TEXT, REFUSAL)))["message"]
    assert (said["content"], said["refusal"]) == ("It is 4.", "No.")
    said = choice(response(message(REFUSAL)))["message"]
    assert (said["content"], said["refusal"]) == (None, "No.")


def test_calls_and_nothing_at_all() -> None:
    assert choice(response(CALL))["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    # A completed one without output is an empty answer; one that broke off has said nothing yet.
    assert QualityChecks().check(b"{}", chat_of(response()) or b"") == (0, ["empty"])
    assert chat_of(response(status="failed")) is None
    assert chat_of(response(status="cancelled")) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"null",
        b'{"choices":[]}',
        b'{"output":null,"status":"completed","x":',
        response("text"),
        response(message(None)),
    ],
)
def test_what_is_no_response_has_no_chat(answer: bytes) -> None:
    assert chat_of(answer) is None


def test_the_events_end_with_the_whole_response() -> None:
    whole = response(message(TEXT))
    last = RESPONSE_FORM.events(whole, True).strip().rpartition(b"data: ")[2]
    assert orjson.loads(last)["response"] == orjson.loads(whole)
