"""Which thread a request means: told by header, metadata, name of the model, user or key, in this order."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from sluicegate import errors
from sluicegate.history.model import IDLE_MS, Name

HEADER = b"x-conversation-id"
LONGEST = 512
# Longer ones are found by their digest: an index has no room for them.
_LONGEST_REF = 128


class Said(NamedTuple):
    """What a request says of itself, as it came."""

    headers: Iterable[tuple[bytes, bytes]]
    # Behind the name of the assistant: `assistant@thread`.
    thread: str | None
    # Fields of the body as JSON; None: there are none.
    metadata: bytes | None
    user: bytes | None
    safety_identifier: bytes | None


def identify(said: Said, aliases: Mapping[bytes, int], *, default_thread: bool) -> Name | None:
    """The thread's name; None: the request stands alone, or its messages tell. Raises 400.

    `aliases`: other headers that are taken for `x-conversation-id`, and their order.
    """
    explicit = _header(said.headers, aliases)
    if explicit is None:
        explicit = _of_metadata(said.metadata)
    if explicit is None and said.thread is not None:
        explicit = _checked(said.thread, "model")
    if explicit is not None:
        return Name(_ref("n:", explicit), explicit)
    if not default_thread:
        return None
    for field in (said.user, said.safety_identifier):
        user = _text(field)
        if user:
            return Name(_ref("u:", user))
    return Name("k:", None, IDLE_MS)


def _header(headers: Iterable[tuple[bytes, bytes]], aliases: Mapping[bytes, int]) -> str | None:
    best, found = len(aliases) + 1, None
    for name, value in headers:
        order = 0 if name == HEADER else aliases.get(name, best)
        if order < best and value.strip():
            best, found = order, (name, value)
    if found is None:
        return None
    # Clients write UTF-8 where they write anything but ASCII.
    text = found[1].strip().decode("utf-8", "replace")
    return _checked(text, found[0].decode("latin-1"))


def _of_metadata(field: bytes | None) -> str | None:
    if field is None or b"conversation_id" not in field:
        return None
    value = (orjson.loads(field) or {}).get("conversation_id")
    if value is None:
        return None
    if not isinstance(value, str):
        raise errors.bad_request(
            "invalid_type", "'metadata.conversation_id' must be a string.", "metadata.conversation_id"
        )
    return _checked(value.strip(), "metadata.conversation_id")


def _checked(text: str, where: str) -> str:
    if text and len(text) <= LONGEST and text.isprintable():
        return text
    raise errors.bad_request(
        "invalid_value",
        f"'{where}' must name a conversation with 1 to {LONGEST} printable characters.",
        where,
    )


def _text(field: bytes | None) -> str | None:
    value: Any = None if field is None else orjson.loads(field)
    return value if isinstance(value, str) else None


def _ref(kind: str, text: str) -> str:
    if len(text) <= _LONGEST_REF and text.isprintable():
        return kind + text
    return f"{kind}sha256:{sha256(text.encode()).hexdigest()}"
