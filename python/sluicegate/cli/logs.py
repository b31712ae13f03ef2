"""`sluicegate logs`: the log of requests, for people and as JSON lines or CSV; one in full; what comes in."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluicegate.cli.refuse import refuse
from sluicegate.cli.requests import Filters, WorkspaceOption

if TYPE_CHECKING:
    from sluicegate.cli.requests import Names
    from sluicegate.storage.database import Database
    from sluicegate.usage.logbook import Logbook
    from sluicegate.usage.model import Filter, Record

# As shells report a program that SIGINT ended.
INTERRUPTED = 130
_MOST = 1_000_000_000
_COLUMNS = (("TIME", 20), ("STATUS", 6), ("MS", 9), ("TOKENS", 11), ("COST", 10), ("KEY", 14), ("MODEL", 28))
_RIGHT = ("MS", "TOKENS", "COST")


class Format(StrEnum):
    """How to print requests."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


def logs(  # noqa: PLR0913, PLR0917 (one parameter an option)
    filters: Filters = None,
    workspace: WorkspaceOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those that come.")] = False,
    limit: Annotated[int, typer.Option(min=0, max=_MOST, help="So many at most; 0: all.")] = 50,
    format: Annotated[Format, typer.Option(help="For people, or JSON lines or CSV.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    request: Annotated[
        str | None, typer.Option("--request", help="One request in full.", metavar="ID")
    ] = None,
) -> None:
    """The log of requests, the newest first: `sluicegate logs failed=true since=1h`.

    With --follow those that come, the newest last, until Ctrl-C.
    """
    from sluicegate.cli.requests import parsed, resolved  # noqa: PLC0415
    from sluicegate.cli.session import opened  # noqa: PLC0415
    from sluicegate.storage.database import now_ms  # noqa: PLC0415

    shown = Format.JSONL if as_json else format
    if follow and shown is Format.CSV:
        refuse("--follow prints a table or JSON lines")
    values = parsed(filters, now_ms())

    async def work(database: "Database") -> None:
        from sluicegate.usage.logbook import open_logbook  # noqa: PLC0415

        logbook = open_logbook(database.location)
        try:
            wanted, names = await resolved(database, values, workspace)
            if request is not None:
                await _one(logbook, request, shown)
            elif follow:
                await _follow(logbook, wanted, limit, _Printer(shown, names))
            else:
                await _print(logbook, wanted, limit, _Printer(shown, names))
        finally:
            logbook.close()

    try:
        opened(work)
    except BrokenPipeError:
        # The reader of a pipe has seen enough; what is buffered must not be written at exit either.
        sys.stdout = None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


class _Printer:
    """Writes requests to standard output."""

    def __init__(self, shown: Format, names: "Names") -> None:
        self.shown = shown
        self._names = names
        self._begun = False

    def __call__(self, records: "tuple[Record, ...]") -> None:
        from sluicegate.usage.export import text_of  # noqa: PLC0415

        if self.shown is Format.JSONL:
            sys.stdout.write(text_of(records, "jsonl").decode())
        else:
            if not self._begun:
                cells = {name: name for name, _ in _COLUMNS}
                sys.stdout.write(_line({**cells, "WHAT": "ERROR"}) + "\n")
                self._begun = True
            for record in records:
                sys.stdout.write(_line(self._cells(record)) + "\n")
        sys.stdout.flush()

    def _cells(self, record: "Record") -> dict[str, str]:
        from sluicegate.cli import show  # noqa: PLC0415
        from sluicegate.usage.model import MICROS, id_bytes, time_of  # noqa: PLC0415

        what = "" if record.code is None else f"{record.code}: {record.error or ''}".rstrip(": ")
        return {
            "TIME": show.time_text(time_of(id_bytes(record.id))) or "",
            "STATUS": str(record.status),
            "MS": f"{record.duration_us / 1000:.1f}",
            "TOKENS": f"{record.prompt_tokens}+{record.completion_tokens}",
            "COST": f"${record.micros / MICROS:.6f}",
            "KEY": self._names.keys.get(record.key, record.key),
            "MODEL": record.model,
            "WHAT": what,
        }


def _line(cells: dict[str, str]) -> str:
    """One request on one line, without characters that a terminal would obey."""
    from sluicegate.cli.diff import visible  # noqa: PLC0415

    parts = []
    for name, width in _COLUMNS:
        text = visible(cells[name])
        text = text if len(text) <= width else f"{text[: width - 1]}…"
        parts.append(text.rjust(width) if name in _RIGHT else text.ljust(width))
    return "  ".join([*parts, visible(cells["WHAT"])]).rstrip()


async def _print(logbook: "Logbook", wanted: "Filter", limit: int, printer: _Printer) -> None:
    import asyncio  # noqa: PLC0415

    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.usage.export import PAGE, exported  # noqa: PLC0415

    if printer.shown is Format.CSV:
        for piece in exported(logbook, wanted, "csv", limit or None):
            sys.stdout.write(piece.decode())
        return
    left, below, any_found = limit or _MOST, None, False
    while left > 0:
        page = await asyncio.to_thread(logbook.page, wanted, below=below, limit=min(PAGE, left))
        if page.records:
            printer(page.records)
            any_found = True
        left -= len(page.records)
        below = page.next
        if below is None:
            break
    if not any_found:
        show.note("No request.")


async def _follow(logbook: "Logbook", wanted: "Filter", limit: int, printer: _Printer) -> None:
    import asyncio  # noqa: PLC0415

    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.storage.database import now_ms  # noqa: PLC0415
    from sluicegate.storage.errors import UnavailableError  # noqa: PLC0415
    from sluicegate.usage.tail import EVERY_SECONDS, Tail  # noqa: PLC0415

    tail = await asyncio.to_thread(Tail, logbook, wanted, now_ms())
    before = await asyncio.to_thread(logbook.page, wanted, limit=min(limit or 50, 1000))
    printer(before.records[::-1])
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            news = await asyncio.to_thread(tail.news, now_ms())
        except UnavailableError as error:
            show.note(f"sluicegate: {error}")
            continue
        if news:
            printer(tuple(news))


async def _one(logbook: "Logbook", request: str, shown: Format) -> None:
    from msgspec import structs  # noqa: PLC0415

    from sluicegate.cli import show  # noqa: PLC0415
    from sluicegate.usage.shown import detail_of  # noqa: PLC0415

    try:
        found = logbook.one(request)
    except ValueError:
        found = None
    if found is None:
        refuse(f"there is no request `{request}`: ids are in the header x-request-id, and begin with req_")
    detail, body = detail_of(found), logbook.body(found.workspace, request)
    texts = {}
    if body is not None:
        texts = {"request": _text(body.request), "answer": _text(body.answer), "cut": body.cut}
    if shown is Format.JSONL:
        show.document({**structs.asdict(detail), **({"body": texts} if texts else {})})
        return
    values: dict[str, Any] = {name: getattr(detail, name) for name in detail.__struct_fields__}
    values["at"] = show.time_text(detail.at)
    phases = values.pop("phases")
    values |= {f"{name}_ms": getattr(phases, name) for name in phases.__struct_fields__}
    show.details([*values.items(), *texts.items()])


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
