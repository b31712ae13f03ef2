"""Items of the Responses API as messages of a chat, and what is known of a response before its answer."""

from typing import Any

import orjson

from sluicegate import errors
from sluicegate.conversations.model import Json
from sluicegate.responses.model import OWN_FIELDS, Asked

# Answers of a chat that have another name in the Responses API.
_PARAMS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}

# What refers to what is stored, which is here.
_KEPT_HERE = ("previous_response_id", "conversation", "background", "metadata", "truncation")
_INSTRUCTIONS = ("system", "developer")


def as_chat(output: list[Json]) -> bytes:
    """The output of a response as the answer of a chat; without choices where there is none."""
    if not output:
        return b'{"choices":[]}'
    message: Json = {"role": "assistant", "content": None}
    thoughts: list[str] = []
    for item in output:
        if item["type"] == "message":
            said = _message(item)["content"]
            message["content"] = (message["content"] or "") + said
        elif item["type"] == "function_call":
            message.setdefault("tool_calls", []).append(_call(item))
        elif item["type"] == "reasoning":
            parts = item.get("content") or item.get("summary") or ()
            thoughts += [part["text"] for part in parts if isinstance(part.get("text"), str)]
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    return orjson.dumps({"choices": [{"index": 0, "message": message}]})


def check_calls(items: list[Json]) -> None:
    """Raises 400 for the output of a call that is nowhere."""
    calls = {item["call_id"] for item in items if item["type"] == "function_call"}
    for item in items:
        if item["type"] == "function_call_output" and item["call_id"] not in calls:
            shown = errors.printable(item["call_id"])
            message = f"No tool call found for the function call output with call_id `{shown}`."
            raise errors.bad_request("invalid_value", message, "input")


def _call(item: Json) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def chat_body(asked: Asked, items: list[Json]) -> bytes:
    """The body of the chat that answers the request; `items`: its context and its own input. Raises 400."""
    messages = _messages(items)
    if not messages and asked.beyond_chat is not None:
        # Nothing that a chat has: it is asked of nobody, and refused where nobody else can be asked.
        messages = [{"role": "user", "content": ""}]
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    body: Json = {} if asked.model is None else {"model": asked.model}
    body["messages"] = messages
    if asked.relays:
        body["stream"] = True
    body |= {
        name: value for name, value in asked.fields.items() if name not in OWN_FIELDS and value is not None
    }
    limit, verbosity = (
        asked.fields.get("max_output_tokens"),
        (asked.fields.get("text") or {}).get("verbosity"),
    )
    if limit is not None:
        body["max_completion_tokens"] = limit
    if verbosity is not None:
        body["verbosity"] = verbosity
    if asked.reasoning.get("effort") is not None:
        body["reasoning_effort"] = asked.reasoning["effort"]
    if asked.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": asked.logprobs}
    if asked.format["type"] == "json_schema":
        schema = {name: value for name, value in asked.format.items() if name != "type" and value is not None}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif asked.format["type"] == "json_object":
        body["response_format"] = {"type": "json_object"}
    if any(tool["type"] == "function" for tool in asked.tools):
        body |= _tools(asked)
    return orjson.dumps(body)


def native_body(asked: Asked, items: list[Json], model: str, limit: int | None) -> bytes:
    """The request for an upstream that has the API itself; what came before is in it, as we keep it."""
    body = {name: value for name, value in asked.fields.items() if name not in _KEPT_HERE}
    body |= {
        "stream": asked.relays,
        "model": model,
        "input": [_without_our_id(item) for item in items],
        "store": False,
    }
    if limit is not None:
        body["max_output_tokens"] = limit
    return orjson.dumps(body)


def _without_our_id(item: Json) -> Json:
    """What a client says needs no id, and the one that it has here is nothing to the upstream."""
    theirs = item["type"] != "function_call_output" and item.get("role", "assistant") == "assistant"
    if theirs and not str(item["id"]).startswith("item_"):
        return item
    return {name: value for name, value in item.items() if name != "id"}


def head(asked: Asked, identity: tuple[str, int], model: str, *, store: bool) -> Json:
    """The response without what its answer decides. `identity`: its id, and seconds since 1970."""
    fields = asked.fields
    shown: Json = {
        "id": identity[0],
        "object": "response",
        "created_at": identity[1],
        "background": asked.background,
        "instructions": asked.instructions,
        "max_output_tokens": fields.get("max_output_tokens"),
        "model": model,
        "parallel_tool_calls": fields.get("parallel_tool_calls", True) is not False,
        "previous_response_id": asked.previous,
        "reasoning": {"effort": asked.reasoning.get("effort"), "summary": asked.reasoning.get("summary")},
        "service_tier": fields.get("service_tier") or "default",
        "store": store,
        "temperature": fields.get("temperature", 1.0),
        "text": {**(fields.get("text") or {}), "format": asked.format},
        "tool_choice": fields.get("tool_choice") or "auto",
        "top_logprobs": asked.logprobs or 0,
        "tools": [
            {"strict": None, "description": None, **tool} if tool["type"] == "function" else tool
            for tool in asked.tools
        ],
        "top_p": fields.get("top_p", 1.0),
        "truncation": "auto" if asked.truncates else "disabled",
        "metadata": asked.metadata,
        "user": fields.get("user"),
    }
    if asked.conversation is not None:
        shown["conversation"] = {"id": asked.conversation}
    for name in ("prompt_cache_key", "safety_identifier"):
        if fields.get(name) is not None:
            shown[name] = fields[name]
    return shown


def renamed(error: errors.GatewayError) -> errors.GatewayError:
    """An error of the chat in the words of the Responses API."""
    if error.param is not None:
        first, dot, rest = error.param.partition("[")
        name = _PARAMS.get(first, first)
        # Which item a message was made of is not known any more.
        error.param = name if name != first else f"{first}{dot}{rest}"
    return error


def dropped_oldest(items: list[Json]) -> list[Json] | None:
    """A quarter less of the context, by whole turns; None where only the last one is left.

    A turn begins with what the user says, so that no call is parted from its result. Instructions stay.
    """
    fixed = [item for item in items if item.get("role") in _INSTRUCTIONS]
    rest = [item for item in items if item.get("role") not in _INSTRUCTIONS]
    begins = [place for place, item in enumerate(rest) if place and item.get("role") == "user"]
    if not begins:
        return None
    least = max(len(rest) // 4, 1)
    return fixed + rest[next((place for place in begins if place >= least), begins[-1]) :]


def _tools(asked: Asked) -> Json:
    tools = [tool for tool in asked.tools if tool["type"] == "function"]
    choice = asked.fields.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] not in ("function", "allowed_tools"):
        # Of a tool that runs elsewhere: this chat is asked of nobody.
        choice = None
    elif isinstance(choice, dict) and choice["type"] == "allowed_tools":
        names = {tool.get("name") for tool in choice["tools"]}
        tools, choice = [tool for tool in tools if tool["name"] in names], choice["mode"]
    elif isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice["name"]}}
    functions = [
        {
            name: tool[name]
            for name in ("name", "description", "parameters", "strict")
            if tool.get(name) is not None
        }
        for tool in tools
    ]
    found: Json = {"tools": [{"type": "function", "function": function} for function in functions]}
    if choice is not None:
        found["tool_choice"] = choice
    parallel = asked.fields.get("parallel_tool_calls")
    if parallel is not None:
        found["parallel_tool_calls"] = parallel
    return found


def _messages(items: list[Json]) -> list[Json]:
    messages: list[Json] = []
    for item in items:
        kind = item["type"]
        if kind == "message":
            messages.append(_message(item))
        elif kind == "function_call":
            call = _call(item)
            if messages and messages[-1]["role"] == "assistant":
                # One answer of the model: what it said, and all that it called.
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _output(item)})
        # What a model thought is not sent back: few chat upstreams take it, and some refuse it.
    return messages


def _message(item: Json) -> Json:
    role = item["role"]
    if role == "assistant":
        texts = [part["text"] for part in item["content"] if part["type"] == "output_text"]
        refusals = [part["refusal"] for part in item["content"] if part["type"] == "refusal"]
        return {"role": role, "content": "".join(texts or refusals)}
    # Few chat upstreams know the role developer, and all of them system.
    role = "system" if role == "developer" else role
    parts = [_part(part) for part in item["content"]]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {"role": role, "content": parts[0]["text"]}
    if role == "system":
        return {"role": role, "content": "\n".join(part.get("text", "") for part in parts)}
    return {"role": role, "content": parts}


def _part(part: Json) -> Json:
    kind = part["type"]
    if kind == "input_image":
        image = {"url": part["image_url"]}
        if part.get("detail"):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file":
        names = ("file_data", "filename")
        return {"type": "file", "file": {name: part[name] for name in names if part.get(name)}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    return {"type": "text", "text": part.get("text", part.get("refusal", ""))}


def _output(item: Json) -> Any:
    output = item["output"]
    if isinstance(output, str):
        return output
    parts = [_part(part) for part in output]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts
