"""`sluicegate usage`: requests, tokens and cost, by day, model, key or whatever is asked for."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.refuse import refuse
from sluicegate.cli.requests import Filters, WorkspaceOption
from sluicegate.cli.show import AsJson

if TYPE_CHECKING:
    from sluicegate.cli.requests import Names
    from sluicegate.storage.database import Database
    from sluicegate.usage.model import Sum

_TIMES = ("hour", "day")
# What the hourly sums do not know.
_UNKNOWN = {"least_us": "min", "most_us": "max", "text": "text", "conversation": "conversation"}


def usage(
    filters: Filters = None,
    workspace: WorkspaceOption = None,
    by: Annotated[
        str,
        typer.Option(
            help="What to sum by, with commas: hour or day; workspace, key, assistant, model, upstream, "
            "status, code. Empty: one sum."
        ),
    ] = "day,model",
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
) -> None:
    """What was used: `sluicegate usage since=30d --by day,key`. Hours are whole, days are UTC."""
    import asyncio  # noqa: PLC0415

    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.cli.requests import parsed, resolved  # noqa: PLC0415
    from sluicegate.cli.session import opened  # noqa: PLC0415
    from sluicegate.storage.database import now_ms  # noqa: PLC0415
    from sluicegate.usage.export import sums_as_csv  # noqa: PLC0415
    from sluicegate.usage.model import DIMENSIONS, Sum  # noqa: PLC0415
    from sluicegate.usage.shown import row_of  # noqa: PLC0415

    names = [name.strip() for name in by.split(",") if name.strip()]
    fields = tuple(name for name in names if name not in _TIMES)
    times = [name for name in names if name in _TIMES]
    if not set(fields) <= set(DIMENSIONS) or len(times) > 1 or len(set(names)) < len(names):
        refuse(f"--by: expected hour or day, and some of {', '.join(DIMENSIONS)}")
    values = parsed(filters, now_ms())
    for field, name in _UNKNOWN.items():
        if field in values:
            refuse(f"{name}: the sums do not know it; `sluicegate logs` does")

    async def work(database: "Database") -> "tuple[list[Sum], list[Sum], Names]":
        from sluicegate.usage.logbook import open_logbook  # noqa: PLC0415

        logbook = open_logbook(database.location)
        try:
            wanted, known = await resolved(database, values, workspace)
            interval: Any = times[0] if times else None
            sums = await asyncio.to_thread(logbook.sums, wanted, fields, interval)
            return sums, await asyncio.to_thread(logbook.sums, wanted), known
        finally:
            logbook.close()

    found, total, known = opened(work)
    if as_json:
        rows = [row_of(one, fields) for one in found]
        show.document({"items": rows, "total": row_of(total[0] if total else Sum())})
    elif as_csv:
        typer.echo(sums_as_csv(found, fields), nl=False)
    elif not found:
        show.note("Nothing was used.")
    else:
        _table(found, total, (fields, times), known)


def _table(
    found: "list[Sum]", total: "list[Sum]", by: tuple[tuple[str, ...], list[str]], known: "Names"
) -> None:
    from sluicegate.cli import show  # noqa: PLC0415

    fields, times = by
    names: dict[str, dict[Any, str]] = {"key": known.keys, "assistant": known.assistants}
    rows: list[tuple[Any, ...]] = []
    for one in found:
        when = show.time_text(one.at) or ""
        begun = [when[:10] if times == ["day"] else when[:13] + "h"] if times else []
        of: list[Any] = []
        for field, value in zip(fields, one.of, strict=True):
            of.append(names.get(field, {}).get(value, value))
        rows.append((*begun, *of, *_numbers(one)))
    if len(found) > 1:
        blank = [""] * (len(times) + len(fields) - 1)
        rows.append(("TOTAL", *blank, *_numbers(total[0])))
    columns = [name.upper() for name in (*times, *fields)]
    show.table((*columns, "REQUESTS", "FAILED", "PROMPT", "COMPLETION", "CACHED", "COST"), rows)


def _numbers(one: "Sum") -> tuple[str, ...]:
    from sluicegate.usage.model import MICROS  # noqa: PLC0415

    counts = (one.requests, one.failed, one.prompt_tokens, one.completion_tokens, one.cached_tokens)
    return (*(f"{count:,}" for count in counts), f"${one.micros / MICROS:,.6f}")
