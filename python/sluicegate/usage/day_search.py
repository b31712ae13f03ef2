"""What is asked of one day's file, as SQLite's SQL: conditions, rows of a page, and rows to records."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sluicegate.usage.model import (
    DIMENSIONS,
    HOUR_MS,
    SCANNED,
    SOURCES,
    Filter,
    Record,
    first_id,
    id_text,
)

NAMES = tuple(field.name for field in msgspec.structs.fields(Record))
COLUMNS = ", ".join(f'"{name}"' for name in NAMES)


def record_of(row: Sequence[Any]) -> Record:
    """A row with all columns; those that an older version of this program did not know are their default."""
    values = {name: value for name, value in zip(NAMES, row, strict=True) if value is not None}
    values["id"] = id_text(values["id"])
    values["stream"] = bool(values["stream"])
    if values["source"] not in SOURCES:
        values["source"] = "estimated"
    return Record(**values)


def _conditions(wanted: Filter) -> tuple[list[str], list[Any]]:
    """What records and hours have in common."""
    parts: list[str] = []
    values: list[Any] = []
    for name in DIMENSIONS:
        value = getattr(wanted, name)
        if value is not None:
            parts.append(f'"{name}" = ?')
            values.append(value)
    if wanted.failed or wanted.text is not None:
        # Every failure has a code, and only failures have a text.
        parts.append("code IS NOT NULL")
    return parts, values


def where_hours(wanted: Filter) -> tuple[str, list[Any]]:
    """The condition of the hourly sums, and its values."""
    parts, values = _conditions(wanted)
    if wanted.since is not None:
        parts.append("hour >= ?")
        values.append(wanted.since // HOUR_MS)
    if wanted.until is not None:
        parts.append("hour < ?")
        values.append(-(-wanted.until // HOUR_MS))
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def search(
    db: sqlite3.Connection, wanted: Filter, below: bytes | None, limit: int
) -> tuple[list[Record], bytes | None]:
    """At most `limit` records of one day; and where the search stopped, if it did before the end."""
    floor = first_id(wanted.since) if wanted.since is not None else b""
    top = first_id(wanted.until) if wanted.until is not None else b"\xff"
    top = top if below is None else min(top, below)
    found: list[Record] = []
    scanned = 0
    for start, end in _ranges(db, wanted, floor, top):
        rest = top if end is None else min(top, end)
        parts, values = _conditions(wanted)
        where = " AND ".join(["id < ?", "id >= ?", *parts])
        # Few requests fail: their own index is a walk past all the others.
        table = "records INDEXED BY ix_failed" if "code" in where else "records"
        rows = f"SELECT # FROM {table} WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 (constants)
        values = [rest, max(floor, start), *values]
        if wanted.is_exact:
            whole = rows.replace("#", COLUMNS)
            found += map(record_of, db.execute(whole, [*values, limit - len(found)]))
        else:
            # The rows that are looked at are counted, not those that are found: a search for what is not
            # there must end, too.
            most = SCANNED - scanned
            # What is searched stands in the index of the failed: only what is found is read as a row.
            more_of = "" if wanted.conversation is None else ", conversation"
            looked = rows.replace("#", f"id, error, duration_us{more_of}")
            count, last = db.execute(f"SELECT count(*), min(id) FROM ({looked})", [*values, most]).fetchone()  # noqa: S608
            scanned += count
            fine, more = _fine_conditions(wanted)
            hits = f"SELECT id FROM ({looked}) WHERE {fine} LIMIT ?"  # noqa: S608
            query = f"SELECT {COLUMNS} FROM records WHERE id IN ({hits}) ORDER BY id DESC"  # noqa: S608
            found += map(record_of, db.execute(query, [*values, most, *more, limit - len(found)]))
            if scanned >= SCANNED and len(found) < limit:
                return found, last
        if len(found) >= limit:
            break
    return found, None


def _fine_conditions(wanted: Filter) -> tuple[str, list[Any]]:
    """What no index knows."""
    parts = [f"{comparison} ?" for comparison, _ in wanted.comparisons]
    values: list[Any] = [value for _, value in wanted.comparisons]
    if wanted.text is not None:
        literal = wanted.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        parts.append("error LIKE ? ESCAPE '\\'")
        values.append(f"%{literal}%")
    return " AND ".join(parts), values


def _ranges(
    db: sqlite3.Connection, wanted: Filter, floor: bytes, top: bytes
) -> Iterator[tuple[bytes, bytes | None]]:
    """Where to look, the newest first: only the hours that have what is asked for."""
    parts, values = _conditions(wanted)
    if not parts:
        yield floor, None
        return
    query = f"SELECT DISTINCT hour FROM hours WHERE {' AND '.join(parts)} ORDER BY hour DESC"  # noqa: S608
    for (hour,) in db.execute(query, values).fetchall():
        start, end = first_id(hour * HOUR_MS), first_id((hour + 1) * HOUR_MS)
        if start < top and end > floor:
            yield start, end
