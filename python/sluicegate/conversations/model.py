"""Items of conversations and responses: checked, and given what a stored item has."""

from typing import Any

from msgspec import Struct

from sluicegate import errors
from sluicegate.ids import IdSource

Json = dict[str, Any]

MOST_ITEMS_AT_ONCE = 20
MOST_INPUT_ITEMS = 10_000

ROLES = ("user", "assistant", "system", "developer")
_PREFIXES = {
    "message": IdSource("msg_"),
    "function_call": IdSource("fc_"),
    "function_call_output": IdSource("fco_"),
    "reasoning": IdSource("rs_"),
}
_OTHER = IdSource("item_")
_PARTS = ("input_text", "output_text", "refusal", "input_image", "input_file", "input_audio")
# Items of tools that run at OpenAI: no upstream behind a gateway has them.
ITEM_TYPES = (*_PREFIXES, "item_reference")


class Conversation(Struct, frozen=True):
    """A stored conversation. `created_at`: milliseconds since 1970."""

    id: str
    metadata: dict[str, str]
    created_at: int

    def shown(self) -> Json:
        """As the API shows it."""
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at // 1000,
            "metadata": self.metadata,
        }


def read_items(
    value: Any,
    param: str,
    most: int = MOST_INPUT_ITEMS,
    others: list[errors.GatewayError] | None = None,
) -> list[Json]:
    """The items of a list that a client sent, each with an id, a type and a status. Raises 400.

    `others` takes what would be raised for items of tools that run elsewhere; these stay as they are.
    """
    if not isinstance(value, list):
        raise _wrong_type(param, "a list of items", value)
    if len(value) > most:
        raise errors.bad_request(
            "invalid_value", f"'{param}' has more than {most} items. Send them in several requests.", param
        )
    return [_item(item, f"{param}[{place}]", others) for place, item in enumerate(value)]


def user_message(text: str) -> Json:
    """The item that a plain text stands for."""
    return {
        "id": _PREFIXES["message"].next(),
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
        "status": "completed",
    }


def _item(item: Any, at: str, others: list[errors.GatewayError] | None) -> Json:
    if not isinstance(item, dict):
        raise _wrong_type(at, "an object", item)
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "item_reference":
        _text(item, "id", at)
        return {"type": kind, "id": item["id"]}
    if not isinstance(kind, str) or kind not in _PREFIXES:
        if others is None or not isinstance(kind, str):
            raise _of_elsewhere(kind, at)
        others.append(_of_elsewhere(kind, at))
        return {**item, "id": item.get("id") or _OTHER.next()}
    given = item.get("id")
    made: Json = {"id": given if isinstance(given, str) and given else _PREFIXES[kind].next(), "type": kind}
    if kind == "message":
        return made | _message(item, at)
    if kind == "function_call":
        call = {name: _text(item, name, at) for name in ("call_id", "name", "arguments")}
        return made | call | {"status": _status(item)}
    if kind == "function_call_output":
        output = item.get("output")
        if isinstance(output, list):
            output = [_part(part, f"{at}.output[{n}]", "user") for n, part in enumerate(output)]
        elif not isinstance(output, str):
            raise _wrong_type(f"{at}.output", "a text or a list of parts", output)
        return made | {"call_id": _text(item, "call_id", at), "output": output, "status": _status(item)}
    # Reasoning goes back and forth untouched.
    return {**item, **made, "summary": item.get("summary") or []}


def _of_elsewhere(kind: Any, at: str) -> errors.GatewayError:
    return errors.bad_request(
        "unsupported_item",
        f"'{at}.type' is `{errors.printable(str(kind))}`, which belongs to a tool that runs elsewhere: no "
        f"upstream that only chats understands it. Send one of: {', '.join(ITEM_TYPES)}; or a model of an "
        "upstream that has the Responses API itself (`responses = true`).",
        f"{at}.type",
    )


def _message(item: Json, at: str) -> Json:
    role = item.get("role")
    if role not in ROLES:
        raise errors.bad_request(
            "invalid_value", f"'{at}.role' must be one of: {', '.join(ROLES)}.", f"{at}.role"
        )
    content = item.get("content")
    if isinstance(content, str):
        content = [_text_part(content, role)]
    elif isinstance(content, list):
        content = [_part(part, f"{at}.content[{place}]", role) for place, part in enumerate(content)]
    else:
        raise _wrong_type(f"{at}.content", "a text or a list of parts", content)
    return {"role": role, "content": content, "status": _status(item)}


def _text_part(text: str, role: str) -> Json:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


def _part(part: Any, at: str, role: str) -> Json:
    if not isinstance(part, dict):
        raise _wrong_type(at, "an object", part)
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {**part, **_text_part(_text(part, "text", at), role)}
    if kind == "refusal":
        return {"type": kind, "refusal": _text(part, "refusal", at)}
    if kind == "input_image":
        if not isinstance(part.get("image_url"), str):
            raise _no_files(f"{at}.image_url", "the image as a URL or data URL in 'image_url'")
        return dict(part)
    if kind == "input_file":
        if not isinstance(part.get("file_data"), str):
            raise _no_files(f"{at}.file_data", "the file's content as base64 in 'file_data'")
        return dict(part)
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return dict(part)
    raise errors.bad_request(
        "invalid_value",
        f"'{at}.type' must be one of: {', '.join(_PARTS)}.",
        f"{at}.type",
    )


def _no_files(param: str, instead: str) -> errors.GatewayError:
    return errors.bad_request(
        "missing_required_parameter",
        f"'{param}' is missing: the gateway keeps no files. Send {instead}.",
        param,
    )


def _status(item: Json) -> str:
    return "incomplete" if item.get("status") == "incomplete" else "completed"


def _text(item: Json, name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _wrong_type(f"{at}.{name}", "a text", value)
    return value


def _wrong_type(param: str, wanted: str, value: Any) -> errors.GatewayError:
    if value is None:
        return errors.bad_request(
            "missing_required_parameter", f"'{param}' is missing. Send {wanted}.", param
        )
    return errors.bad_request(
        "invalid_type", f"'{param}' must be {wanted}, not {_NAMES.get(type(value), 'that')}.", param
    )


_NAMES = {
    bool: "a bool",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
