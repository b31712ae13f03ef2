"""Server-sent events as the WHATWG standard words it, slow and plain: what the gateway is compared with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One dispatched event."""

    data: str
    name: str = ""


def parse(body: bytes) -> list[Event]:
    """All events that were closed by an empty line; UnicodeDecodeError for what is not UTF-8.

    A body that stops inside a character, after the last whole line, is cut there: that line never ended.
    """
    whole = max(body.rfind(b"\n"), body.rfind(b"\r")) + 1
    text = body[:whole].decode("utf-8").removeprefix("\ufeff")
    events: list[Event] = []
    data: list[str] = []
    name = ""
    for line in re.split(r"\r\n|\n|\r", text)[:-1]:
        if not line:
            if data:
                events.append(Event("\n".join(data), name))
            data, name = [], ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return events


@dataclass(frozen=True)
class Verdict:
    """What a client may be shown for a body that ended here."""

    # The events before the end, the marker not counted.
    chunks: list[dict[str, Any]]
    finished: bool


def judge(body: bytes) -> Verdict:
    """Finished: the marker came, or each choice that was seen has its finish_reason."""
    chunks: list[dict[str, Any]] = []
    finish: dict[int, bool] = {}
    for event in parse(body):
        if event.data == "[DONE]":
            return Verdict(chunks, True)
        chunk = json.loads(event.data)
        chunks.append(chunk)
        for choice in chunk.get("choices", []):
            index = choice["index"]
            finish[index] = finish.get(index, False) or choice.get("finish_reason") is not None
    return Verdict(chunks, bool(finish) and all(finish.values()))
