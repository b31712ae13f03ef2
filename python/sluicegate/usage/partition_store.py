"""The usage records on PostgreSQL, of all machines together: a partition for each day, dropped as a whole.

Blocking: call it in a thread. No call takes longer than `ANSWER_SECONDS` and a connection, also where the
server is frozen.
"""

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from sluicegate.settings import Secret
from sluicegate.storage.errors import UnavailableError
from sluicegate.usage import partition_query as query
from sluicegate.usage.bodies import Body
from sluicegate.usage.model import (
    DAY_MS,
    HOUR_MS,
    INTERVALS,
    MOST_SUMS,
    SCANNED,
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
    require_dimensions,
    time_of,
    unpacked,
)

T = TypeVar("T")

CONNECT_SECONDS = 5
ANSWER_SECONDS = 15
LOCK_SECONDS = 5
# Connections that wait for the next call.
_IDLE = 2
# Partitions that are made before their day begins.
_AHEAD = 2
# Pages are walks along an index. Before a day's table is analyzed the planner takes it for almost empty, and
# reads and sorts all of it instead (0.6 s for 225,000 records).
# And what the journal forgets after a commit must be on the server's disk, whatever its other users want.
_OPTIONS = (
    f"-c statement_timeout={ANSWER_SECONDS}s -c lock_timeout={LOCK_SECONDS}s "
    "-c enable_bitmapscan=off -c synchronous_commit=on"
)
# Any number that nothing else locks: "slup".
_ADVISORY = 0x736C7570
# Rows of one workspace that are deleted in one transaction.
_DELETED = 5000
# Hours that are looked at in one step, for a page.
_STEP = 200

# Errors without a state are those of the connection; the others say that the server stops, or stopped.
_GONE = (None, "57P01", "57P02", "57P03")


class _Bounded(psycopg.Connection[Any]):
    """A connection that does not wait for ever: a frozen server takes what it is sent, and says nothing."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As it is, with a timeout."""
        return super().wait(gen, interval, timeout or ANSWER_SECONDS)


class Partitions:
    """The records of a database; for any number of threads and processes."""

    def __init__(self, url: Secret) -> None:
        self._url = url
        self._idle: list[_Bounded] = []
        self._is_closed = False
        self._lock = threading.Lock()
        # Days whose partitions were there when they were looked at last.
        self._made: set[int] = set()

    def write(self, records: Packed) -> int:
        """Add records; those that are there stay as they are. Returns how many were new.

        Raises UnavailableError, and then nothing is written.
        """
        if not records:
            return 0
        found = unpacked(records)
        days = {time_of(id) // DAY_MS for id in records}
        return self._run(lambda db: self._write(db, found, days))

    def page(self, wanted: Filter, *, below: str | None = None, limit: int = 50) -> Page:
        """The newest records below an id. A search stops after `SCANNED` rows, with `next` to go on."""
        return self._run(lambda db: _page(db, wanted, below, limit))

    def one(self, id: str) -> Record | None:
        """One record."""
        text = f"SELECT {query.COLUMNS} FROM usage_records WHERE id = %s"  # noqa: S608 (constants)
        row = self._run(lambda db: db.execute(text, (id_bytes(id),)).fetchone())
        return None if row is None else query.record_of(row)

    def facets(self, wanted: Filter, dimension: str, most: int = 100) -> list[Facet]:
        """The values of a field with the most requests; whole hours, and only what is exact in the filter."""
        require_dimensions([dimension])
        where, values = query.where_hours(wanted)
        text = (
            f'SELECT "{dimension}", sum(requests)::bigint FROM usage_hours {where} '  # noqa: S608 (constants)
            "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %s"
        )
        rows = self._run(lambda db: db.execute(text, [*values, most]).fetchall())
        return [Facet(query.shown(dimension, value), requests) for value, requests in rows]

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
        text, values = query.sums(wanted, by, INTERVALS[interval] if interval is not None else 0, most)
        rows = self._run(lambda db: db.execute(text, values).fetchall())
        return query.sums_of(rows, by, timed=interval is not None)

    def delete_before(self, at: int) -> int:
        """Drop the days that ended before a time. Returns how many."""

        def drop(db: _Bounded) -> int:
            old = [day for day in _days(db) if (day + 1) * DAY_MS <= at]
            for day in old:
                # Each for itself: a reader that holds one of them up does not hold up the others.
                for table in query.TABLES:
                    db.execute(f"DROP TABLE IF EXISTS {query.partition(table, day)}")
            return len(old)

        with self._lock:
            self._made.clear()
        return self._run(drop)

    def delete_of(self, workspace: str, before: int) -> int:
        """Delete what a workspace has from days that ended before a time. Its sums stay. Returns how many."""
        return self._delete("usage_records", "workspace = %s AND id < %s", (workspace, _day_of(before)))

    def keep(self, bodies: Iterable[Body]) -> None:
        """Keep requests and answers, apart from their records. Raises UnavailableError."""
        found = list(bodies)
        days = {time_of(id_bytes(body.id)) // DAY_MS for body in found}
        rows = [
            (id_bytes(b.id), b.workspace, zlib.compress(b.request, 1), zlib.compress(b.answer, 1), b.cut)
            for b in found
        ]

        def write(db: _Bounded) -> None:
            self._make(db, days)
            with db.cursor() as cursor:
                cursor.executemany(query.KEEP, rows)

        if found:
            self._run(write)

    def body(self, workspace: str, id: str) -> Body | None:
        """What is kept of one request. Raises ValueError for what is no id."""
        text = "SELECT request, answer, cut FROM usage_bodies WHERE id = %s AND workspace = %s"
        row = self._run(lambda db: db.execute(text, (id_bytes(id), workspace)).fetchone())
        if row is None:
            return None
        request, answer = zlib.decompress(row[0]), zlib.decompress(row[1])
        return Body(id=id, workspace=workspace, request=request, answer=answer, cut=row[2])

    def delete_bodies(self, before: Mapping[str, int]) -> int:
        """Delete what ended before a workspace's time; all of one without. Returns how many rows."""
        deleted = self._delete("usage_bodies", "workspace <> ALL (%s)", (list(before),))
        for workspace, at in before.items():
            deleted += self._delete("usage_bodies", "workspace = %s AND id < %s", (workspace, _day_of(at)))
        return deleted

    def close(self) -> None:
        """Close what waits for the next call, and what comes back from one that is under way."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _delete(self, table: str, where: str, values: tuple[Any, ...]) -> int:
        some = f"SELECT id FROM {table} WHERE {where} LIMIT {_DELETED}"  # noqa: S608 (constants)
        text = f"DELETE FROM {table} WHERE id IN ({some})"  # noqa: S608 (constants)
        deleted = 0
        while count := self._run(lambda db: db.execute(text, values).rowcount):
            deleted += count
        return deleted

    def _write(self, db: _Bounded, records: list[Record], days: set[int]) -> int:
        self._make(db, days)
        try:
            return self._insert(db, records)
        except errors.CheckViolation:
            # Another machine has dropped an old day since.
            with self._lock:
                self._made.clear()
            self._make(db, days)
            return self._insert(db, records)

    def _insert(self, db: _Bounded, records: list[Record]) -> int:
        (count,) = db.execute(query.INSERT, (query.rows_of(records),)).fetchall()[0]
        return int(count)

    def _make(self, db: _Bounded, days: set[int]) -> None:
        """The partitions of these days, and of those to come."""
        wanted = days | {max(days) + ahead for ahead in range(1, _AHEAD + 1)}
        if wanted <= self._made:
            return
        for day in sorted(wanted - self._made):
            with db.transaction():
                # One machine at a time. Attached, not made as a part: that would lock out everybody else.
                db.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY,))
                for table in query.TABLES:
                    name = query.partition(table, day)
                    if db.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,):
                        db.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS)")
                        db.execute(query.attach(table, day))
        with self._lock:
            self._made |= wanted

    def _run(self, work: Callable[[_Bounded], T]) -> T:
        """`work` with a connection; a second time where that one was closed by the server since."""
        with self._lock:
            known = self._idle.pop() if self._idle else None
        try:
            if known is not None:
                try:
                    return self._with(known, work)
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    if error.sqlstate not in _GONE:
                        raise
            return self._with(self._connect(), work)
        except psycopg.Error as error:
            raise UnavailableError(_reason(error)) from None

    def _with(self, connection: _Bounded, work: Callable[[_Bounded], T]) -> T:
        try:
            found = work(connection)
        except BaseException:
            # Whatever it was in the middle of.
            with suppress(psycopg.Error):
                connection.close()
            raise
        with self._lock:
            if len(self._idle) < _IDLE and not self._is_closed:
                self._idle.append(connection)
                return found
        connection.close()
        return found

    def _connect(self) -> _Bounded:
        return _Bounded.connect(
            self._url.reveal(),
            autocommit=True,
            # Each day is a table of its own: a plan that was made for one is none for another.
            prepare_threshold=None,
            connect_timeout=CONNECT_SECONDS,
            application_name="sluicegate-usage",
            options=_OPTIONS,
        )


def _day_of(at_ms: int) -> bytes:
    """The first id of its day."""
    return first_id(at_ms // DAY_MS * DAY_MS)


def _days(db: _Bounded) -> list[int]:
    """The days that have a partition of any table, the oldest first."""
    names = db.execute(query.PARTITIONS, (list(query.TABLES),)).fetchall()
    return sorted({day for (name,) in names if (day := query.day_of(name)) is not None})


def _page(db: _Bounded, wanted: Filter, below: str | None, limit: int) -> Page:
    floor = first_id(wanted.since) if wanted.since is not None else b""
    top = first_id(wanted.until) if wanted.until is not None else b"\xff" * 14
    if below is not None:
        top = min(top, id_bytes(below))
    found: list[Record] = []
    scanned = 0
    for start, end in _ranges(db, wanted, floor, top):
        most = limit + 1 - len(found)
        if wanted.is_exact:
            text, values = query.records(wanted, max(floor, start), min(top, end), most)
            found += map(query.record_of, db.execute(text, values).fetchall())
        else:
            # The rows that are looked at are counted, not those that are found: a search for what is not
            # there must end, too.
            looked = SCANNED - scanned
            text, values = query.search(wanted, max(floor, start), min(top, end), (looked, most))
            rows = db.execute(text, values).fetchall()
            count, last = rows[0][:2]
            scanned += count
            found += [query.record_of(row[2:]) for row in rows if row[2] is not None]
            if scanned >= SCANNED and len(found) <= limit:
                return Page(tuple(found), id_text(last))
        if len(found) > limit:
            return Page(tuple(found[:limit]), found[limit - 1].id)
    return Page(tuple(found), None)


def _ranges(db: _Bounded, wanted: Filter, floor: bytes, top: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Where to look, the newest first: only the hours that have what is asked for."""
    if not query.is_narrowed(wanted):
        yield floor, top
        return
    until = time_of(top) // HOUR_MS + 1
    since = 0 if not floor else time_of(floor) // HOUR_MS
    while True:
        text, values = query.busy_hours(wanted, since, until, _STEP)
        hours = [hour for (hour,) in db.execute(text, values).fetchall()]
        for first, last in _runs(hours):
            yield first_id(first * HOUR_MS), first_id((last + 1) * HOUR_MS)
        if len(hours) < _STEP:
            return
        until = hours[-1]


def _runs(hours: list[int]) -> Iterator[tuple[int, int]]:
    """Hours that follow each other as one, the newest first: a few at first, where a page is often full."""
    most, at = 1, 0
    while at < len(hours):
        end = at
        while end + 1 < len(hours) and end - at + 1 < most and hours[end + 1] == hours[end] - 1:
            end += 1
        yield hours[end], hours[at]
        most, at = most * 2, end + 1


def _reason(error: psycopg.Error) -> str:
    """What an operator can act on; the driver's text is not repeated."""
    if isinstance(error, errors.UndefinedTable):
        return "The database has no table of usage records: run `sluicegate migrate`."
    if isinstance(error, errors.InsufficientPrivilege):
        return "The database's user may not make or drop partitions of the usage records."
    if isinstance(error, errors.DiskFull):
        return "The database's disk is full."
    if isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected):
        return "The usage records are locked by another transaction. Try again shortly."
    if isinstance(error, errors.QueryCanceled):
        return "The database took too long."
    return "The database does not answer, or has closed the connection. Check that it runs."
