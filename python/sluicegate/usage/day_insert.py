"""Records into one day's file: as rows of many at once, and as additions to the hours."""

import sqlite3
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from msgspec.structs import astuple

from sluicegate.usage.day_search import NAMES
from sluicegate.usage.model import DIMENSIONS, HOUR_MS, SUMS, Record, first_id, time_of

# The id, as the database has it, and what it is of.
Row = tuple[bytes, Record]

# So many rows go into a statement. One by one they take twice as long, and each asks for Python's lock twice.
_AT_ONCE = 20
_HOURS = ", ".join(f'"{name}"' for name in ("hour", *DIMENSIONS, *SUMS))
_ADD = (
    f"INSERT INTO hours ({_HOURS}) VALUES ({', '.join('?' * (1 + len(DIMENSIONS) + len(SUMS)))}) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)
_dimensions: Callable[[Record], tuple[Any, ...]] = attrgetter(*DIMENSIONS)
_summands: Callable[[Record], tuple[int, ...]] = attrgetter(*SUMS[1:])


def insert(db: sqlite3.Connection, rows: Sequence[Row]) -> int:
    """Add those that are not there; sorted by id, in a transaction. Returns how many were new."""
    before = db.total_changes
    db.execute("SAVEPOINT whole")
    _add(db, rows)
    if db.total_changes - before < len(rows):
        # Only after a crash: which of them were there has to be known before they are.
        db.execute("ROLLBACK TO whole")
        known = set(_known(db, [raw for raw, _ in rows]))
        rows = [row for row in rows if row[0] not in known]
        _add(db, rows)
    db.executemany(_ADD, _sums(rows))
    return len(rows)


def parts(rows: Sequence[Row], milliseconds: int) -> Iterator[tuple[int, Sequence[Row]]]:
    """Sorted rows by the hour or the day, and its number since 1970."""
    start = 0
    while start < len(rows):
        number = time_of(rows[start][0]) // milliseconds
        end = bisect_left(rows, first_id((number + 1) * milliseconds), start, key=lambda row: row[0])
        yield number, rows[start:end]
        start = end


def _add(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    if not rows:
        return
    ids = tuple(raw for raw, _ in rows)
    columns = [ids, *list(zip(*(astuple(record) for _, record in rows), strict=True))[1:]]
    # Of 36 columns most requests fill 24: one that none of these fills is not named, and costs nothing.
    filled = [(name, of) for name, of in zip(NAMES, columns, strict=True) if of.count(None) < len(of)]
    names = [name for name, _ in filled]
    values = list(zip(*(of for _, of in filled), strict=True))
    whole = len(rows) - len(rows) % _AT_ONCE
    several = _statement(names, _AT_ONCE)
    for at in range(0, whole, _AT_ONCE):
        db.execute(several, tuple(chain.from_iterable(values[at : at + _AT_ONCE])))
    db.executemany(_statement(names, 1), values[whole:])


def _statement(names: Sequence[str], rows: int) -> str:
    row = f"({', '.join('?' * len(names))})"
    columns = ", ".join(f'"{name}"' for name in names)
    return f"INSERT OR IGNORE INTO records ({columns}) VALUES {', '.join([row] * rows)}"  # noqa: S608 (constants)


def _known(db: sqlite3.Connection, ids: list[bytes]) -> Iterator[bytes]:
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        marks = ", ".join("?" * len(part))
        yield from (row[0] for row in db.execute(f"SELECT id FROM records WHERE id IN ({marks})", part))  # noqa: S608


def _sums(rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """The records as additions to the hours: few rows, however many records."""
    for hour, of_hour in parts(rows, HOUR_MS):
        alike: dict[tuple[Any, ...], list[tuple[int, ...]]] = defaultdict(list)
        for _, record in of_hour:
            alike[_dimensions(record)].append(_summands(record))
        for key, found in alike.items():
            yield (hour, *key, len(found), *map(sum, zip(*found, strict=True)))
