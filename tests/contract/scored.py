"""What the tests of scores share: assistants of a settings file, and scripted answers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from scripted import ScriptedUpstream, completion

from processes import Server


def assistants(of: Mapping[str, Mapping[str, Any]], **usual: Any) -> str:
    """The tables of assistants that want a score of 50 from the model `one/m`, unless they say otherwise."""
    tables = []
    for name, more in of.items():
        fields = {"name": name, "model": ["one/m"], "quality_score": 50, **usual, **more}
        tables.append("\n".join(["[[assistants]]", *(f"{key} = {_toml(of)}" for key, of in fields.items())]))
    return "\n\n".join(tables)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(of)}" for key, of in value.items()) + " }"
    return json.dumps(value)


def saying(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A plain answer."""
    body = completion("m")
    said = {"role": "assistant", "content": content, **message}
    body["choices"][0] |= {"message": said, "finish_reason": finish}
    return {"body": json.dumps(body)}


def script(*steps: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the upstream answers, one call after the other, and the name under which it records them."""
    key = uuid.uuid4().hex
    return key, {"x_script": {"key": key, "steps": list(steps)}}


def bodies(scripted: ScriptedUpstream, key: str) -> list[dict[str, Any]]:
    """What the upstream was sent."""
    return [json.loads(call.body) for call in scripted.recorded(key)]


def until(found: Callable[[], Any]) -> Any:
    """Waits with a bound."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come")


def records(server: Server, operation: str, **wanted: Any) -> list[dict[str, Any]]:
    """The log lines of requests of an operation."""
    found = []
    for text in server.output().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line.get("event") == "request" and line["operation"] == operation:
            found.append(line)
    return [line for line in found if all(line.get(name) == value for name, value in wanted.items())]
