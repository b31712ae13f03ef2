"""Records into one day's file: as rows of many at once, and as additions to the hours."""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache

from sluicegate.engine import record_rows, record_sums
from sluicegate.usage.day_search import NAMES
from sluicegate.usage.model import DAY_MS, DIMENSIONS, SUMS, first_id, time_of

# The id, as the database has it, and the record, as the journal has it.
Row = tuple[bytes, bytes]

# So many rows go into a statement. One by one they take twice as long, and each asks for Python's lock twice.
_AT_ONCE = 20
# So many are made into values in one step, which holds Python's lock: a fifth of a millisecond.
_STEP = 500
_HOURS = ", ".join(f'"{name}"' for name in ("hour", *DIMENSIONS, *SUMS))
_ADD = (
    f"INSERT INTO hours ({_HOURS}) VALUES ({', '.join('?' * (1 + len(DIMENSIONS) + len(SUMS)))}) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)
_DIMENSIONS = [NAMES.index(name) for name in DIMENSIONS]
# But for the first, which is how many they are.
_SUMMED = [NAMES.index(name) for name in SUMS[1:]]


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
    db.executemany(_ADD, record_sums([record for _, record in rows], _DIMENSIONS, _SUMMED))
    return len(rows)


def days(rows: Sequence[Row]) -> Iterator[tuple[int, Sequence[Row]]]:
    """Sorted rows by the day, and its number since 1970."""
    start = 0
    while start < len(rows):
        number = time_of(rows[start][0]) // DAY_MS
        end = bisect_left(rows, first_id((number + 1) * DAY_MS), start, key=lambda row: row[0])
        yield number, rows[start:end]
        start = end


def _add(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    for at in range(0, len(rows), _STEP):
        # Of 36 columns most requests fill 24, and mostly all of them alike but for a handful.
        step = [record for _, record in rows[at : at + _STEP]]
        same, different, groups = record_rows(step, _AT_ONCE)
        for values in groups:
            count = (len(values) - len(same)) // len(different)
            db.execute(_statement(tuple(same), tuple(different), count), values)


@lru_cache(maxsize=64)
def _statement(same: tuple[int, ...], different: tuple[int, ...], rows: int) -> str:
    """What is the same is bound once, by its number: to bind a value costs as much as to insert it.

    Python 3.12.0 to 3.12.3 warn of numbered parameters as if they had names (gh-117995).
    """
    shared = [f"?{number}" for number in range(1, len(same) + 1)]
    parts = []
    for start in range(len(same) + 1, len(same) + 1 + rows * len(different), len(different)):
        own = [f"?{number}" for number in range(start, start + len(different))]
        parts.append(f"({', '.join(shared + own)})")
    names = ", ".join(f'"{NAMES[number]}"' for number in same + different)
    return f"INSERT OR IGNORE INTO records ({names}) VALUES {', '.join(parts)}"  # noqa: S608 (constants)


def _known(db: sqlite3.Connection, ids: list[bytes]) -> Iterator[bytes]:
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        marks = ", ".join("?" * len(part))
        yield from (row[0] for row in db.execute(f"SELECT id FROM records WHERE id IN ({marks})", part))  # noqa: S608
