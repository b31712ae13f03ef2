"""Which requests a command is about: `status=502 model=gpt-4o since=1h`, and the names of what they used."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from sluicegate.storage.database import Database
    from sluicegate.storage.transaction import View
    from sluicegate.usage.model import Filter

Filters = Annotated[
    list[str] | None,
    typer.Argument(
        help="since=24h (or a date), until, key, assistant, model, upstream, status, code, failed=true, "
        "min=2s, max=500ms, text (of the error), conversation.",
        metavar="FILTER=VALUE",
    ),
]
WorkspaceOption = Annotated[
    str | None, typer.Option("--workspace", "-w", help="Only this one. [default: all]", metavar="ID")
]

_OF = ("key", "assistant", "model", "upstream", "status", "code", "failed", "conversation")
_KNOWN = ("since", "until", *_OF, "min", "max", "text")
_SPANS = {"ms": 1000, "s": 1_000_000, "m": 60_000_000}
_STATUSES = range(100, 600)


class Names(NamedTuple):
    """Keys and assistants by their ids."""

    keys: dict[str, str]
    assistants: dict[str, str]


def parsed(given: list[str] | None, now_ms: int) -> dict[str, Any]:
    """The filters as the fields of a `Filter`; key and assistant still as they were named."""
    values: dict[str, Any] = {}
    for pair in given or []:
        name, equals, text = pair.partition("=")
        if not equals or not text or name not in _KNOWN:
            refuse(f"`{pair}`: expected FILTER=VALUE, with one of {', '.join(_KNOWN)}")
        field, value = _value(name, text, now_ms)
        if field in values:
            refuse(f"{name} is given twice")
        values[field] = value
    return values


def _value(name: str, text: str, now_ms: int) -> tuple[str, Any]:
    if name in ("since", "until"):
        return name, time_of(text, name, now_ms)
    if name in ("min", "max"):
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m)", text)
        if match is None:
            refuse(f"{name}: expected a number and ms, s or m, such as 500ms")
        return ("least_us" if name == "min" else "most_us"), int(float(match[1]) * _SPANS[match[2]])
    if name == "status":
        if not text.isdecimal() or int(text) not in _STATUSES:
            refuse("status: expected a number from 100 to 599")
        return name, int(text)
    if name == "failed":
        if text not in ("true", "false"):
            refuse("failed: expected true or false")
        return name, text == "true"
    return name, text


def time_of(text: str, name: str, now_ms: int) -> int:
    """«24h» ago, or a date or time (UTC where it has no zone), in milliseconds since 1970."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is not None:
        return max(now_ms - int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]] * 1000, 0)
    try:
        found = datetime.fromisoformat(text)
        return max(int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000), 0)
    except (ValueError, OverflowError):
        refuse(f"{name}: expected a span such as 24h, or a time such as 2026-11-25 or 2026-11-25T10:00")


async def resolved(
    database: "Database", values: dict[str, Any], workspace: str | None
) -> "tuple[Filter, Names]":
    """The filter, and the names of all keys and assistants that it may find."""
    from sluicegate.cli.where import require_workspace  # noqa: PLC0415
    from sluicegate.usage.model import Filter  # noqa: PLC0415

    async with database.read() as view:
        if workspace is not None and workspace != "default":
            # The settings' own workspace need not be in the database.
            await require_workspace(view, workspace)
        names = await _names(view, workspace)
    for field, known in (("key", names.keys), ("assistant", names.assistants)):
        given = values.get(field)
        if given is not None and given not in known:
            ids = [id for id, name in known.items() if name == given]
            if len(ids) > 1:
                refuse(f"{field}: several are named `{given}`; give --workspace, or the id")
            # Of one that was deleted, and of those of the settings, only the id is known.
            values = {**values, field: ids[0] if ids else given}
    return Filter(**values, workspace=workspace), names


async def _names(view: "View", workspace: str | None) -> Names:
    from sluicegate.assistants import store as assistants  # noqa: PLC0415
    from sluicegate.config.stored import everything  # noqa: PLC0415
    from sluicegate.keys import store as keys  # noqa: PLC0415
    from sluicegate.workspaces import store as workspaces  # noqa: PLC0415

    found = Names({}, {})
    spaces = [workspace] if workspace is not None else []
    if workspace is None:
        spaces = [one.id for one in await everything(lambda page: workspaces.entries(view, page))]
    for space in spaces:
        for key in await everything(lambda page: keys.entries(view, space, page)):  # noqa: B023
            found.keys[key.id] = key.name
        for one in await everything(lambda page: assistants.entries(view, space, page)):  # noqa: B023
            found.assistants[one.id] = one.name
    return found
