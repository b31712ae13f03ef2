"""How the answer of a call is read as a chat, and how a whole one becomes the stream that was asked for."""

from collections.abc import Callable
from typing import NamedTuple

from sluicegate.engine import stream_of


class Form(NamedTuple):
    """What one API makes of the answers of chats."""

    # The answer of a chat that is in it; None: there is none, and nothing can be said of it.
    chat: Callable[[bytes], bytes | None]
    # The events of the stream that it would have been; `hide_usage`: without what the client did not ask for.
    events: Callable[[bytes, bool], bytes]
    # The beginning of its streams can be read before they leave.
    begins: bool = True


def _itself(answer: bytes) -> bytes:
    return answer


def _events(answer: bytes, hide_usage: bool) -> bytes:
    try:
        return stream_of(answer, hide_usage)
    except ValueError:
        # Valid JSON, and no chat: as the client of a plain answer would have it.
        return answer


CHAT_FORM = Form(_itself, _events)
