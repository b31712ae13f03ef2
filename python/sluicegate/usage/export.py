"""Requests as CSV and JSON lines, page by page: the memory does not grow with the log."""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec.structs import astuple

from sluicegate.usage.logbook import Logbook
from sluicegate.usage.model import DIMENSIONS, Filter, Record, Sum
from sluicegate.usage.shown import RequestLine, UsageRow, encode, line_of, row_of

Format = Literal["csv", "jsonl"]
MEDIA: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
COLUMNS = RequestLine.__struct_fields__
PAGE = 1000
# A spreadsheet takes a cell that begins so for a formula, and error texts and names come from anybody.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def exported(logbook: Logbook, wanted: Filter, format: Format, most: int | None = None) -> Iterator[bytes]:
    """The requests, the newest first, in pieces. Blocking; raises UnavailableError between two of them."""
    head = _csv([COLUMNS]) if format == "csv" else b""
    left, below = most, None
    while left is None or left > 0:
        page = logbook.page(wanted, below=below, limit=PAGE if left is None else min(PAGE, left))
        # Together: what fails at once has said nothing yet.
        piece = head + text_of(page.records, format)
        head, below = b"", page.next
        if piece:
            yield piece
        if below is None:
            return
        if left is not None:
            left -= len(page.records)


def text_of(records: tuple[Record, ...], format: Format) -> bytes:
    """Some of them."""
    lines = map(line_of, records)
    if format == "csv":
        return _csv(map(_cells, lines))
    return b"".join(encode(line) + b"\n" for line in lines)


def sums_as_csv(found: Sequence[Sum], by: tuple[str, ...]) -> str:
    """Sums, a row each."""
    names = [name for name in UsageRow.__struct_fields__ if name not in (*DIMENSIONS, "at")]
    timed = ["at"] if any(one.at is not None for one in found) else []
    columns = [*timed, *by, *names]
    rows = [row_of(one, by) for one in found]
    cells = [[_cell(name, getattr(row, name)) for name in columns] for row in rows]
    return _csv([columns, *cells]).decode()


def time_text(at_ms: int) -> str:
    """A time as spreadsheets and people read it, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cells(line: RequestLine) -> Iterator[Any]:
    for name, value in zip(COLUMNS, astuple(line), strict=True):
        yield _cell(name, value)


def _cell(name: str, value: Any) -> Any:
    if name == "at":
        return time_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    # With CRLF, as RFC 4180 has it.
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")
