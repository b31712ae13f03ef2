"""A request of the Responses API: read, checked, and refused with the name of the field that is wrong."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from sluicegate import errors
from sluicegate.conversations.model import Json, read_items, user_message
from sluicegate.http.door import metadata_of

# What the gateway itself acts on; everything else goes to the upstream as it is.
OWN_FIELDS = frozenset(
    {
        "background",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "reasoning",
        "store",
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    }
)
# Of the answer of a chat, and no fields of a Responses request: a client that sends them means the other API.
_CHAT_FIELDS = {"messages": "input", "response_format": "text.format", "max_tokens": "max_output_tokens"}
_CHAT_FIELDS |= {"max_completion_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"}
_CHOICES = ("auto", "none", "required")
_FORMATS = ("text", "json_schema", "json_object")
_LONGEST_ID = 128


class Asked(Struct, frozen=True, kw_only=True):
    """One request. `fields`: all of it, for what is shown again."""

    fields: Json
    input: list[Json]
    model: str | None
    instructions: str | None
    stream: bool
    # None: not said.
    store: bool | None
    background: bool
    previous: str | None
    conversation: str | None
    metadata: dict[str, str]
    tools: list[Json]
    format: Json
    reasoning: Json
    truncates: bool

    @property
    def stateful_field(self) -> str | None:
        """The field that needs a database, if there is one."""
        given = {
            "previous_response_id": self.previous,
            "conversation": self.conversation,
            "background": self.background,
            "store": self.store,
        }
        return next((name for name, value in given.items() if value), None)


def read(fields: Json) -> Asked:
    """Check a request. Raises 400."""
    for name, instead in _CHAT_FIELDS.items():
        if fields.get(name) is not None:
            message = f"'{name}' belongs to /v1/chat/completions. Send '{instead}' here."
            raise errors.bad_request("unsupported_parameter", message, name)
    if fields.get("prompt") is not None:
        message = "'prompt' names a template stored at OpenAI. Send its text in 'instructions' and 'input'."
        raise errors.bad_request("unsupported_parameter", message, "prompt")
    _check_include(fields)
    asked = Asked(
        fields=fields,
        input=_input(fields.get("input")),
        model=_of(fields, "model", str, "a text"),
        instructions=_of(fields, "instructions", str, "a text"),
        stream=bool(_of(fields, "stream", bool, "true or false")),
        store=_of(fields, "store", bool, "true or false"),
        background=bool(_of(fields, "background", bool, "true or false")),
        previous=_id(fields, "previous_response_id"),
        conversation=_conversation(fields),
        metadata=metadata_of(fields.get("metadata")),
        tools=_tools(fields.get("tools")),
        format=_format(fields),
        reasoning=_of(fields, "reasoning", dict, "an object") or {},
        truncates=_truncates(fields),
    )
    _check_choice(fields.get("tool_choice"), asked.tools)
    _check_together(asked)
    return asked


def _check_together(asked: Asked) -> None:
    if asked.previous is not None and asked.conversation is not None:
        raise errors.bad_request(
            "invalid_value",
            "'previous_response_id' and 'conversation' both say what came before. Send one of them.",
            "previous_response_id",
        )
    if asked.background and asked.store is False:
        raise errors.bad_request(
            "invalid_value", "A response in the background has to be stored. Leave 'store' out.", "store"
        )
    if asked.background and asked.stream:
        raise errors.bad_request(
            "unsupported_parameter",
            "A response in the background cannot be streamed here. Leave 'stream' out, and retrieve it.",
            "stream",
        )
    if not asked.input and asked.previous is None and asked.conversation is None:
        raise errors.bad_request(
            "missing_required_parameter", "'input' is missing. Send a text or a list of items.", "input"
        )


def _input(value: Any) -> list[Json]:
    if isinstance(value, str):
        return [user_message(value)]
    return [] if value is None else read_items(value, "input")


def _of(fields: Json, name: str, kind: type, wanted: str) -> Any:
    value = fields.get(name)
    if value is not None and not isinstance(value, kind):
        raise errors.bad_request("invalid_type", f"'{name}' must be {wanted}.", name)
    return value


def _id(fields: Json, name: str) -> str | None:
    value: str | None = _of(fields, name, str, "an id")
    if value is not None and not 1 <= len(value) <= _LONGEST_ID:
        raise errors.bad_request("invalid_value", f"'{name}' is no id that this gateway gave.", name)
    return value


def _conversation(fields: Json) -> str | None:
    value = fields.get("conversation")
    if isinstance(value, dict):
        return _id({"conversation": value.get("id", 0)}, "conversation")
    return _id(fields, "conversation")


def _tools(value: Any) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise errors.bad_request("invalid_type", "'tools' must be a list.", "tools")
    for place, tool in enumerate(value):
        at = f"tools[{place}]"
        if not isinstance(tool, dict):
            raise errors.bad_request("invalid_type", f"'{at}' must be an object.", at)
        kind = tool.get("type")
        if kind != "function":
            shown = errors.printable(str(kind))
            raise errors.bad_request(
                "unsupported_tool",
                f"'{at}' is of the type `{shown}`, which runs at OpenAI and at no upstream that only chats. "
                "Send tools of the type function, and run them yourself.",
                f"{at}.type",
            )
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise errors.bad_request(
                "missing_required_parameter",
                f"'{at}.name' is missing. Send the function's name.",
                f"{at}.name",
            )
    return value


def _check_choice(choice: Any, tools: list[Json]) -> None:
    if choice is None or choice in _CHOICES:
        return
    names = [tool["name"] for tool in tools]
    if isinstance(choice, dict) and choice.get("type") == "function":
        wanted: Iterable[Any] = [choice.get("name")]
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        if choice.get("mode") not in ("auto", "required"):
            message = "'tool_choice.mode' must be 'auto' or 'required'."
            raise errors.bad_request("invalid_value", message, "tool_choice.mode")
        allowed = choice.get("tools")
        wanted = [tool.get("name") for tool in allowed or ()] if _are_objects(allowed) else [None]
    else:
        raise errors.bad_request(
            "invalid_value",
            "'tool_choice' must be 'auto', 'none', 'required', or an object of the type function or "
            "allowed_tools.",
            "tool_choice",
        )
    for name in wanted:
        if name not in names:
            shown = errors.printable(str(name))
            message = f"'tool_choice' names the function `{shown}`, which is not in 'tools'."
            raise errors.bad_request("invalid_value", message, "tool_choice")


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _format(fields: Json) -> Json:
    text: Json = _of(fields, "text", dict, "an object") or {}
    found = text.get("format") or {"type": "text"}
    if not isinstance(found, dict) or found.get("type") not in _FORMATS:
        message = f"'text.format.type' must be one of: {', '.join(_FORMATS)}."
        raise errors.bad_request("invalid_value", message, "text.format.type")
    if found["type"] == "json_schema":
        for name, kind, wanted in (("name", str, "a text"), ("schema", dict, "a JSON schema")):
            if not isinstance(found.get(name), kind):
                message = f"'text.format.{name}' is missing. Send {wanted}."
                raise errors.bad_request("missing_required_parameter", message, f"text.format.{name}")
    return found


def _truncates(fields: Json) -> bool:
    value = fields.get("truncation")
    if value not in (None, "auto", "disabled"):
        raise errors.bad_request("invalid_value", "'truncation' must be 'auto' or 'disabled'.", "truncation")
    return bool(value == "auto")


def _check_include(fields: Json) -> None:
    include = _of(fields, "include", list, "a list") or []
    if "message.output_text.logprobs" in include or fields.get("top_logprobs"):
        raise errors.bad_request(
            "unsupported_parameter",
            "Log probabilities are not part of responses here. Use /v1/chat/completions with 'logprobs'.",
            "include" if "message.output_text.logprobs" in include else "top_logprobs",
        )
