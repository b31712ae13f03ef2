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
        "top_logprobs",
        "truncation",
    }
)
LOGPROBS = "message.output_text.logprobs"
_MOST_TOP_LOGPROBS = 20
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
    # How many other tokens are shown with each token of the answer; None: no log probabilities.
    logprobs: int | None
    # What is said where it goes to an upstream that only chats, and has what only a Responses API can fulfil.
    # None: it has nothing of the kind.
    beyond_chat: errors.GatewayError | None = None

    @property
    def relays(self) -> bool:
        """Its events come with those of the upstream; of one in the background, when it has ended."""
        return self.stream and not self.background

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
    # The first of these is told.
    beyond: list[errors.GatewayError] = []
    asked = Asked(
        fields=fields,
        input=_input(fields.get("input"), beyond),
        model=_of(fields, "model", str, "a text"),
        instructions=_of(fields, "instructions", str, "a text"),
        stream=bool(_of(fields, "stream", bool, "true or false")),
        store=_of(fields, "store", bool, "true or false"),
        background=bool(_of(fields, "background", bool, "true or false")),
        previous=_id(fields, "previous_response_id"),
        conversation=_conversation(fields),
        metadata=metadata_of(fields.get("metadata")),
        tools=_tools(fields.get("tools"), beyond),
        format=_format(fields),
        reasoning=_of(fields, "reasoning", dict, "an object") or {},
        truncates=_truncates(fields),
        logprobs=_logprobs(fields),
        beyond_chat=beyond[0] if beyond else None,
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
    if not asked.input and asked.previous is None and asked.conversation is None:
        raise errors.bad_request(
            "missing_required_parameter", "'input' is missing. Send a text or a list of items.", "input"
        )


def _input(value: Any, beyond: list[errors.GatewayError]) -> list[Json]:
    if isinstance(value, str):
        return [user_message(value)]
    return [] if value is None else read_items(value, "input", others=beyond)


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


def _tools(value: Any, beyond: list[errors.GatewayError]) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise errors.bad_request("invalid_type", "'tools' must be a list.", "tools")
    for place, tool in enumerate(value):
        at = f"tools[{place}]"
        if not isinstance(tool, dict):
            raise errors.bad_request("invalid_type", f"'{at}' must be an object.", at)
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise errors.bad_request("invalid_type", f"'{at}.type' must be a text.", f"{at}.type")
        if kind != "function":
            beyond.append(_runs_elsewhere(kind, at))
        elif not isinstance(tool.get("name"), str) or not tool["name"]:
            raise errors.bad_request(
                "missing_required_parameter",
                f"'{at}.name' is missing. Send the function's name.",
                f"{at}.name",
            )
    return value


def _runs_elsewhere(kind: str, at: str) -> errors.GatewayError:
    return errors.bad_request(
        "unsupported_tool",
        f"'{at}' is the tool `{errors.printable(kind)}`, which runs at the server: no upstream that only "
        "chats has it, and assistants are asked by way of a chat. Send tools of the type function, and run "
        "them yourself; or use a model of an upstream with a Responses API of its own (`responses = true`).",
        f"{at}.type",
    )


def _check_choice(choice: Any, tools: list[Json]) -> None:
    if choice is None or choice in _CHOICES:
        return
    names = [tool["name"] for tool in tools if tool["type"] == "function"]
    elsewhere = {tool["type"] for tool in tools} - {"function"}
    if isinstance(choice, dict) and choice.get("type") == "function":
        wanted: Iterable[Any] = [choice.get("name")]
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        if choice.get("mode") not in ("auto", "required"):
            message = "'tool_choice.mode' must be 'auto' or 'required'."
            raise errors.bad_request("invalid_value", message, "tool_choice.mode")
        allowed = choice.get("tools")
        wanted = [None]
        if _are_objects(allowed):
            wanted = [tool.get("name") for tool in allowed or () if tool.get("type") not in elsewhere]
    elif isinstance(choice, dict) and choice.get("type") in elsewhere:
        return
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


def _logprobs(fields: Json) -> int | None:
    include = _of(fields, "include", list, "a list") or []
    top = _of(fields, "top_logprobs", int, "a number")
    if top is not None and (isinstance(top, bool) or not 0 <= top <= _MOST_TOP_LOGPROBS):
        message = f"'top_logprobs' must be a number from 0 to {_MOST_TOP_LOGPROBS}."
        raise errors.bad_request("invalid_value", message, "top_logprobs")
    return top or 0 if LOGPROBS in include or top else None
