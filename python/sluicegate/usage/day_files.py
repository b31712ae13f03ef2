"""The usage records of a machine alone: an SQLite file for each day, so that a day is deleted with its file.

Blocking: call it in a thread. Records are written by one process at a time, which holds the journal's lock.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from sluicegate.storage.errors import InvalidError, UnavailableError
from sluicegate.usage.bodies import Body
from sluicegate.usage.body_files import BodyFiles
from sluicegate.usage.day_insert import Row, days, insert
from sluicegate.usage.day_search import COLUMNS, NAMES, record_of, search, where_hours
from sluicegate.usage.model import (
    DAY_MS,
    DIMENSIONS,
    HOUR_MS,
    INTERVALS,
    MOST_SUMS,
    SUMS,
    Facet,
    Filter,
    Interval,
    Packed,
    Page,
    Record,
    Sum,
    first_id,
    id_bytes,
    id_text,
    order_of,
    require_dimensions,
    time_of,
)

_FIRST_4XX = 400
_BUSY_MS = 5000
# So many rows of one workspace are deleted in a transaction: whoever writes waits for it.
_DELETED = 5000
_VERSION = 5

# Clustered by id, which is time: a page is one look-up and a walk. Every other index ends in the id.
_SCHEMA = f"""
CREATE TABLE records (
    id BLOB PRIMARY KEY, {", ".join(f'"{name}"' for name in NAMES[1:])}
) WITHOUT ROWID;
CREATE INDEX ix_workspace ON records (workspace);
CREATE INDEX ix_key ON records ("key");
CREATE INDEX ix_assistant ON records (assistant) WHERE assistant IS NOT NULL;
CREATE INDEX ix_failed ON records (id, error, duration_us) WHERE code IS NOT NULL;
CREATE TABLE hours (
    hour INTEGER NOT NULL, {", ".join(f'"{name}"' for name in DIMENSIONS)},
    {", ".join(f"{name} INTEGER NOT NULL" for name in SUMS)}
);
CREATE UNIQUE INDEX uq_hours ON hours (hour, {", ".join(f'coalesce("{name}", -1)' for name in DIMENSIONS)});
PRAGMA user_version = {_VERSION};
"""


class DayFiles:
    """The files `usage-2026-11-25.db` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bodies = BodyFiles(folder / "bodies")

    def write(self, records: Packed) -> int:
        """Add records; those that are there stay as they are. Returns how many were new.

        Raises UnavailableError, and then of each day all or nothing is written.
        """
        rows = sorted(records.items())
        return sum(self._write_day(day, of_day) for day, of_day in days(rows))

    def page(self, wanted: Filter, *, below: str | None = None, limit: int = 50) -> Page:
        """The newest records below an id. A search stops after `SCANNED` rows, with `next` to go on."""
        last = None if below is None else id_bytes(below)
        found: list[Record] = []
        for day in self._days(wanted, newest_first=True):
            if last is not None and first_id(day * DAY_MS) >= last:
                continue
            with self._open(day) as db:
                rows, scanned_to = search(db, wanted, last, limit + 1 - len(found))
            found += rows
            if len(found) > limit:
                return Page(tuple(found[:limit]), found[limit - 1].id)
            if scanned_to is not None:
                return Page(tuple(found), id_text(scanned_to))
        return Page(tuple(found), None)

    def one(self, id: str) -> Record | None:
        """One record."""
        raw = id_bytes(id)
        day = time_of(raw) // DAY_MS
        if not self.path(day).exists():
            return None
        with self._open(day) as db:
            query = f"SELECT {COLUMNS} FROM records WHERE id = ?"  # noqa: S608 (constants)
            row = db.execute(query, (raw,)).fetchone()
        return None if row is None else record_of(row)

    def facets(self, wanted: Filter, dimension: str, most: int = 100) -> list[Facet]:
        """The values of a field with the most requests; whole hours, and only what is exact in the filter."""
        require_dimensions([dimension])
        counts: dict[Any, int] = defaultdict(int)
        where, values = where_hours(wanted)
        query = f'SELECT "{dimension}", sum(requests) FROM hours {where} GROUP BY 1'  # noqa: S608 (constants)
        for day in self._days(wanted):
            with self._open(day) as db:
                for value, requests in db.execute(query, values):
                    counts[value] += requests
        first = sorted(counts.items(), key=lambda item: -item[1])[:most]
        return [Facet(value, requests) for value, requests in first]

    def hours(self, wanted: Filter) -> list[Sum]:
        """Sums by the hour, the oldest first."""
        return self.sums(wanted, interval="hour")

    def sums(
        self,
        wanted: Filter,
        by: Sequence[str] = (),
        interval: Interval | None = None,
        most: int = MOST_SUMS,
    ) -> list[Sum]:
        """Sums by these fields, and by time; whole hours, and only what is exact in the filter.

        Of more than `most` rows the first ones, by time.
        """
        require_dimensions(by)
        where, values = where_hours(wanted)
        step = INTERVALS[interval] if interval is not None else 0
        parts = [f"hour / {step} * {step}" if step else "0", *(f'"{name}"' for name in by)]
        parts += [f"sum(CASE WHEN status >= {_FIRST_4XX} OR code IS NOT NULL THEN requests ELSE 0 END)"]
        parts += [f"sum({name})" for name in SUMS]
        groups = ", ".join(str(number) for number in range(1, len(by) + 2))
        query = f"SELECT {', '.join(parts)} FROM hours {where} GROUP BY {groups}"  # noqa: S608 (constants)
        found: dict[tuple[Any, ...], list[int]] = {}
        for day in self._days(wanted):
            with self._open(day) as db:
                for row in db.execute(query, values):
                    key, numbers = row[: len(by) + 1], row[len(by) + 1 :]
                    known = found.get(key, [0] * len(numbers))
                    found[key] = [a + b for a, b in zip(known, numbers, strict=True)]
            if step and len(found) > most:
                # Later days have later rows only.
                break
            if len(found) > MOST_SUMS:
                raise InvalidError("by", f"there are more than {MOST_SUMS} of these; ask for less time")
        rows = [_sum(key, numbers, timed=bool(step)) for key, numbers in found.items()]
        return sorted(rows, key=order_of)[:most]

    def delete_of(self, workspace: str, before: int) -> int:
        """Delete what a workspace has from days that ended before a time. Its sums stay. Returns how many."""
        deleted = 0
        some = f"SELECT id FROM records INDEXED BY ix_workspace WHERE workspace = ? LIMIT {_DELETED}"  # noqa: S608
        query = f"DELETE FROM records WHERE id IN ({some})"  # noqa: S608 (constants)
        for day in self._all_days():
            if (day + 1) * DAY_MS > before:
                break
            with self._open(day) as db:
                while count := db.execute(query, (workspace,)).rowcount:
                    deleted += count
        return deleted

    def delete_before(self, at: int) -> int:
        """Delete the days that ended before a time. Returns how many."""
        old = [day for day in self._all_days() if (day + 1) * DAY_MS <= at]
        for day in old:
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{self.path(day)}{suffix}").unlink()
            # From here on nobody sees it; giving back its room takes the file system a second for a gigabyte.
            with suppress(FileNotFoundError):
                self.path(day).rename(self.path(day).with_suffix(".deleted"))
        Thread(target=self._unlink_deleted, name="usage-retention").start()
        return len(old)

    def keep(self, bodies: Iterable[Body]) -> None:
        """Keep requests and answers, apart from their records. Raises UnavailableError."""
        self._bodies.write(bodies)

    def body(self, workspace: str, id: str) -> Body | None:
        """What is kept of one request. Raises ValueError for what is no id."""
        return self._bodies.one(workspace, id)

    def delete_bodies(self, before: Mapping[str, int]) -> int:
        """Delete what ended before a workspace's time; all of one without. Returns how many files."""
        return self._bodies.delete(before)

    def close(self) -> None:
        """Nothing stays open."""

    def _unlink_deleted(self) -> None:
        for path in self._folder.glob("usage-*.deleted"):
            with suppress(FileNotFoundError):
                path.unlink()

    def path(self, day: int) -> Path:
        """The file of a day since 1970."""
        return self._folder / f"usage-{_date(day)}.db"

    def _all_days(self) -> list[int]:
        found = (path.stem.removeprefix("usage-") for path in self._folder.glob("usage-????-??-??.db"))
        return sorted(day for name in found if (day := _day(name)) is not None)

    def _days(self, wanted: Filter, *, newest_first: bool = False) -> list[int]:
        days = self._all_days()
        if wanted.since is not None:
            days = [day for day in days if (day + 1) * DAY_MS > wanted.since]
        if wanted.until is not None:
            days = [day for day in days if day * DAY_MS < wanted.until]
        return days[::-1] if newest_first else days

    @contextmanager
    def _open(self, day: int) -> Iterator[sqlite3.Connection]:
        try:
            with closing(
                sqlite3.connect(self.path(day), timeout=_BUSY_MS / 1000, isolation_level=None)
            ) as db:
                _bring_up(db)
                yield db
        except sqlite3.Error as error:
            raise UnavailableError(_reason(error)) from None

    def _write_day(self, day: int, rows: Sequence[Row]) -> int:
        self._make(day)
        with self._open(day) as db:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA cache_size = -65536")
            db.execute("BEGIN IMMEDIATE")
            try:
                fresh = insert(db, rows)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return fresh

    def _make(self, day: int) -> None:
        path = self.path(day)
        if path.exists():
            with self._open(day) as db:
                if db.execute("PRAGMA user_version").fetchone()[0]:
                    return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Under another name until it is whole: readers take what has the name of a day.
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        with closing(sqlite3.connect(new, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        new.rename(path)


def _bring_up(db: sqlite3.Connection) -> None:
    """A file of an older version gets the columns that it lacks."""
    for table, names, kind in (("records", NAMES, ""), ("hours", SUMS, "INTEGER NOT NULL DEFAULT 0")):
        known = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        missing = [name for name in names if name not in known]
        if not known or not missing:
            continue
        db.execute("BEGIN IMMEDIATE")
        for name in missing:
            # Another process may have been faster.
            with suppress(sqlite3.OperationalError):
                db.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {kind}')
        db.execute("COMMIT")


def _reason(error: sqlite3.Error) -> str:
    """What an operator can act on."""
    said = str(error).lower()
    if "locked" in said:
        return "The usage records are locked by another transaction. Try again shortly."
    if "full" in said:
        return "The disk of the usage records is full."
    if "malformed" in said or "not a database" in said:
        return "A file of usage records is damaged: move it away, or restore a backup."
    return "The usage records cannot be read or written: check the rights of the data directory."


def _sum(key: Sequence[Any], numbers: Sequence[int], *, timed: bool) -> Sum:
    at, *of = key
    failed, *rest = numbers
    sums = dict(zip(SUMS, rest, strict=True))
    return Sum(at=at * HOUR_MS if timed else None, of=tuple(of), failed=failed, **sums)


def _date(day: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 (only for names of files)

    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")


def _day(date: str) -> int | None:
    from datetime import UTC, datetime  # noqa: PLC0415

    try:
        return int(datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000) // DAY_MS
    except ValueError:
        return None
