"""A response as the answer of the chat that it was made of, for those who score answers."""

import orjson

from sluicegate.chat.form import Form
from sluicegate.conversations.model import Json
from sluicegate.responses.replay import events
from sluicegate.responses.translate import as_chat

# Why a response is incomplete, in the words of a chat.
_FINISHES = {"max_output_tokens": "length", "content_filter": "content_filter"}
_ENDED = ("completed", "incomplete")


def chat_of(answer: bytes) -> bytes | None:
    """What the client is given, as the answer of a chat; None: it broke off before anything was said."""
    try:
        response = orjson.loads(answer)
        output, status = response["output"], response["status"]
        if not output and status not in _ENDED:
            return None
        # A completed response without output is an answer all the same: an empty one.
        choices = orjson.loads(as_chat(output))["choices"] or [{"index": 0, "message": {"content": None}}]
        choice: Json = choices[0]
        _refuse(choice["message"], output)
        choice["finish_reason"] = _finish(response)
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None
    return orjson.dumps({"choices": [choice]})


def _refuse(message: Json, output: list[Json]) -> None:
    """A refusal is one, whatever else is said: histories have it as text."""
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
    if refusals:
        message["refusal"] = "".join(refusals)
        message["content"] = "".join(part["text"] for part in parts if part["type"] == "output_text") or None


def _finish(response: Json) -> str | None:
    if response["status"] not in _ENDED:
        return None
    reason = (response.get("incomplete_details") or {}).get("reason")
    return "stop" if reason is None else _FINISHES.get(reason, "length")


def _events(answer: bytes, hide_usage: bool) -> bytes:
    # A response tells its usage whether it was asked for or not.
    del hide_usage
    return b"".join(events(orjson.loads(answer)))


# Its events are no chunks, so that the core cannot join the first ones: such streams are held whole.
RESPONSE_FORM = Form(chat_of, _events, begins=False)
