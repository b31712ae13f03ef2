"""The usage records of a machine alone: an SQLite file for each day, so that a day is deleted with its file.

Blocking: call it in a thread. Records are written by one process at a time, which holds the journal's lock.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, get_args

import msgspec

from sluicegate.usage.model import (
    Facet,
    Filter,
    Hour,
    Page,
    Record,
    Source,
    first_id,
    id_bytes,
    id_text,
    time_of,
)

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
_FIRST_4XX = 400
# Beyond so many rows a search for a text or a duration stops and says where to go on.
SCANNED = 20_000
_FIELDS = msgspec.structs.fields(Record)
_NAMES = tuple(field.name for field in _FIELDS)
_SOURCES: tuple[Source, ...] = get_args(Source)
# What the hourly figures are kept by, and what may be a facet.
DIMENSIONS = ("workspace", "key", "assistant", "model", "upstream", "status", "code")
_SUMS = ("requests", "prompt_tokens", "completion_tokens", "micros", "duration_us")
_BUSY_MS = 5000

# Clustered by id, which is time: a page is one look-up and a walk. Every other index ends in the id.
_SCHEMA = f"""
CREATE TABLE records (
    id BLOB PRIMARY KEY, {", ".join(f'"{name}"' for name in _NAMES[1:])}
) WITHOUT ROWID;
CREATE INDEX ix_workspace ON records (workspace);
CREATE INDEX ix_key ON records ("key");
CREATE INDEX ix_assistant ON records (assistant) WHERE assistant IS NOT NULL;
CREATE INDEX ix_failed ON records (id, error, duration_us) WHERE code IS NOT NULL;
CREATE TABLE hours (
    hour INTEGER NOT NULL, {", ".join(f'"{name}"' for name in DIMENSIONS)},
    {", ".join(f"{name} INTEGER NOT NULL" for name in _SUMS)}
);
CREATE UNIQUE INDEX uq_hours ON hours (hour, {", ".join(f'coalesce("{name}", -1)' for name in DIMENSIONS)});
PRAGMA user_version = 1;
"""
_COLUMNS = ", ".join(f'"{name}"' for name in _NAMES)
_INSERT = f"INSERT OR IGNORE INTO records ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608
_ADD = (
    f"INSERT INTO hours VALUES ({', '.join('?' * (1 + len(DIMENSIONS) + len(_SUMS)))}) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in _SUMS)}"
)


class DayFiles:
    """The files `usage-2026-11-25.db` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, records: Iterable[Record]) -> int:
        """Add records; those that are there stay as they are. Returns how many were new.

        Raises sqlite3.Error, and then of each day all or nothing is written.
        """
        days: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            days[time_of(id_bytes(record.id)) // DAY_MS].append(record)
        return sum(self._write_day(day, of_day) for day, of_day in sorted(days.items()))

    def page(self, wanted: Filter, *, below: str | None = None, limit: int = 50) -> Page:
        """The newest records below an id. A search stops after `SCANNED` rows, with `next` to go on."""
        last = None if below is None else id_bytes(below)
        found: list[Record] = []
        for day in self._days(wanted, newest_first=True):
            if last is not None and first_id(day * DAY_MS) >= last:
                continue
            with self._open(day) as db:
                rows, scanned_to = _search(db, wanted, last, limit + 1 - len(found))
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
            row = db.execute("SELECT * FROM records WHERE id = ?", (raw,)).fetchone()
        return None if row is None else _record(row)

    def facets(self, wanted: Filter, dimension: str, most: int = 100) -> list[Facet]:
        """The values of a field with the most requests; whole hours, and without `text` and `least_us`."""
        if dimension not in DIMENSIONS:
            raise ValueError(f"`{dimension}` is none of {', '.join(DIMENSIONS)}")
        sums: dict[Any, int] = defaultdict(int)
        where, values = _where_hours(wanted)
        query = f'SELECT "{dimension}", sum(requests) FROM hours {where} GROUP BY 1'  # noqa: S608
        for day in self._days(wanted):
            with self._open(day) as db:
                for value, requests in db.execute(query, values):
                    sums[value] += requests
        first = sorted(sums.items(), key=lambda item: -item[1])[:most]
        return [Facet(value, requests) for value, requests in first]

    def hours(self, wanted: Filter) -> list[Hour]:
        """Sums by the hour, the oldest first; without `text` and `least_us`."""
        where, values = _where_hours(wanted)
        query = (
            f"SELECT hour, sum(requests), sum(CASE WHEN status >= {_FIRST_4XX} OR code IS NOT NULL "  # noqa: S608
            "THEN requests ELSE 0 END), sum(prompt_tokens), sum(completion_tokens), sum(micros), "
            f"sum(duration_us) FROM hours {where} GROUP BY hour ORDER BY hour"
        )
        found = []
        for day in self._days(wanted):
            with self._open(day) as db:
                found += [_hour(row) for row in db.execute(query, values)]
        return found

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
        with closing(sqlite3.connect(self.path(day), timeout=_BUSY_MS / 1000, isolation_level=None)) as db:
            # By name: the file of another version has other columns, and in another order.
            db.row_factory = sqlite3.Row
            yield db

    def _write_day(self, day: int, records: Sequence[Record]) -> int:
        self._make(day)
        with self._open(day) as db:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA cache_size = -65536")
            db.execute("BEGIN IMMEDIATE")
            try:
                rows = {id_bytes(record.id): record for record in records}
                for known in _known(db, list(rows)):
                    del rows[known]
                db.executemany(_INSERT, (_row(raw, record) for raw, record in rows.items()))
                db.executemany(_ADD, _sums(rows))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return len(rows)

    def _make(self, day: int) -> None:
        path = self.path(day)
        if path.exists():
            with self._open(day) as db:
                if db.execute("PRAGMA user_version").fetchone()[0]:
                    _add_columns(db)
                    return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with self._open(day) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")


def _add_columns(db: sqlite3.Connection) -> None:
    """The file of an older program has fewer fields."""
    there = {row[1] for row in db.execute("PRAGMA table_info(records)")}
    for name in _NAMES:
        if name not in there:
            db.execute(f'ALTER TABLE records ADD COLUMN "{name}"')


def _known(db: sqlite3.Connection, ids: list[bytes]) -> Iterator[bytes]:
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        marks = ", ".join("?" * len(part))
        yield from (row[0] for row in db.execute(f"SELECT id FROM records WHERE id IN ({marks})", part))  # noqa: S608


def _row(raw: bytes, record: Record) -> tuple[Any, ...]:
    return (raw, *(getattr(record, name) for name in _NAMES[1:]))


def _record(row: sqlite3.Row) -> Record:
    there = row.keys()
    values = {name: row[name] for name in _NAMES if name in there}
    values["id"] = id_text(values["id"])
    values["stream"] = bool(values["stream"])
    if values["source"] not in _SOURCES:
        values["source"] = "estimated"
    return Record(**values)


def _sums(rows: dict[bytes, Record]) -> list[tuple[Any, ...]]:
    """The records as additions to the hours: few rows, however many records."""
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(_SUMS))
    for raw, record in rows.items():
        hour = time_of(raw) // HOUR_MS
        entry = sums[(hour, *(getattr(record, name) for name in DIMENSIONS))]
        entry[0] += 1
        for number, name in enumerate(_SUMS[1:], 1):
            entry[number] += getattr(record, name)
    return [(*key, *entry) for key, entry in sums.items()]


def _hour(row: Sequence[int]) -> Hour:
    hour, requests, failed, prompt, completion, micros, duration = row
    return Hour(
        at=hour * HOUR_MS,
        requests=requests,
        failed=failed,
        prompt_tokens=prompt,
        completion_tokens=completion,
        micros=micros,
        duration_us=duration,
    )


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


def _where_hours(wanted: Filter) -> tuple[str, list[Any]]:
    parts, values = _conditions(wanted)
    if wanted.since is not None:
        parts.append("hour >= ?")
        values.append(wanted.since // HOUR_MS)
    if wanted.until is not None:
        parts.append("hour < ?")
        values.append(-(-wanted.until // HOUR_MS))
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def _search(
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
        rows = f"SELECT * FROM {table} WHERE {where} ORDER BY id DESC"  # noqa: S608 (constants)
        values = [rest, max(floor, start), *values]
        if wanted.is_exact:
            found += map(_record, db.execute(f"{rows} LIMIT ?", [*values, limit - len(found)]))
        else:
            # The rows that are looked at are counted, not those that are found: a search for what is not
            # there must end, too.
            most = SCANNED - scanned
            # What is searched stands in the index of the failed: only what is found is read as a row.
            looked = rows.replace("*", "id, error, duration_us", 1) + " LIMIT ?"
            count, last = db.execute(f"SELECT count(*), min(id) FROM ({looked})", [*values, most]).fetchone()  # noqa: S608
            scanned += count
            fine, more = _fine_conditions(wanted)
            hits = f"SELECT id FROM ({looked}) WHERE {fine} LIMIT ?"  # noqa: S608
            query = f"SELECT * FROM records WHERE id IN ({hits}) ORDER BY id DESC"  # noqa: S608
            found += map(_record, db.execute(query, [*values, most, *more, limit - len(found)]))
            if scanned >= SCANNED and len(found) < limit:
                return found, last
        if len(found) >= limit:
            break
    return found, None


def _fine_conditions(wanted: Filter) -> tuple[str, list[Any]]:
    """What no index knows."""
    parts: list[str] = []
    values: list[Any] = []
    if wanted.least_us is not None:
        parts.append("duration_us >= ?")
        values.append(wanted.least_us)
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


def _date(day: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 (only for names of files)

    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")


def _day(date: str) -> int | None:
    from datetime import UTC, datetime  # noqa: PLC0415

    try:
        return int(datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000) // DAY_MS
    except ValueError:
        return None
