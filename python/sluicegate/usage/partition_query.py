"""What is asked of the usage records of PostgreSQL, as its SQL, and rows to records."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

import msgspec

from sluicegate.usage.model import (
    DAY_MS,
    DIMENSIONS,
    HOUR_MS,
    SOURCES,
    SUMS,
    Filter,
    Record,
    Sum,
    first_id,
    id_text,
    order_of,
)

TABLES = ("usage_records", "usage_hours", "usage_bodies")
NAMES = tuple(field.name for field in msgspec.structs.fields(Record))
COLUMNS = ", ".join(f'"{name}"' for name in NAMES)
_EPOCH = date(1970, 1, 1)
_FIRST_4XX = 400
# The dimensions that a record may lack: empty in the hourly sums, where they are a part of the key.
_OPTIONAL = ("assistant", "upstream", "code")


def _kind(field: "msgspec.structs.FieldInfo") -> str:
    """The type of a column, as the record has it."""
    kinds = get_args(field.type) or (field.type,)
    return "boolean" if bool in kinds else "bigint" if int in kinds else "text"


_HOUR_NS = HOUR_MS * 1_000_000
_GIVEN = ", ".join(f'"{field.name}" {_kind(field)}' for field in msgspec.structs.fields(Record))
_VALUES = ", ".join("decode(id, 'hex')" if name == "id" else f'"{name}"' for name in NAMES)
_KEYS = ", ".join(f"coalesce(\"{name}\", '')" if name in _OPTIONAL else f'"{name}"' for name in DIMENSIONS)
_KEY_COLUMNS = ", ".join(f'"{name}"' for name in DIMENSIONS)
_ORDER = ", ".join(str(number) for number in range(1, len(DIMENSIONS) + 2))
# One statement, so that sums and records agree whatever happens. The rows come as one JSON text: making that
# takes a tenth of the time that the driver takes for 150,000 values. In order, so that two machines that add
# to the same hours do not wait for each other.
INSERT = f"""
WITH fresh AS (
    INSERT INTO usage_records ({COLUMNS})
    SELECT {_VALUES} FROM json_to_recordset(%s::json) AS given ({_GIVEN})
    ON CONFLICT (id) DO NOTHING
    RETURNING *
), summed AS (
    INSERT INTO usage_hours AS known (hour, {_KEY_COLUMNS}, {", ".join(SUMS)})
    SELECT ('x' || encode(substring(id, 1, 8), 'hex'))::bit(64)::bigint / {_HOUR_NS}, {_KEYS}, count(*),
        {", ".join(f"sum({name})::bigint" for name in SUMS[1:])}
    FROM fresh GROUP BY {_ORDER} ORDER BY {_ORDER}
    ON CONFLICT (hour, {_KEY_COLUMNS}) DO UPDATE SET
        {", ".join(f"{name} = known.{name} + excluded.{name}" for name in SUMS)}
)
SELECT count(*) FROM fresh
"""  # noqa: S608 (constants)
KEEP = "INSERT INTO usage_bodies VALUES (%s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING"
PARTITIONS = """
SELECT child.relname FROM pg_inherits
JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
"""


def rows_of(records: Iterable[Record]) -> str:
    """Records as the JSON that `INSERT` takes."""
    rows = [{**msgspec.structs.asdict(record), "id": record.id.removeprefix("req_")} for record in records]
    text = msgspec.json.encode(rows).decode()
    # Clients may send it in names, and PostgreSQL has no such character.
    return re.sub(r"(?<!\\)((?:\\\\)*)\\u0000", "\\1\ufffd", text) if "\\u0000" in text else text


def record_of(row: Sequence[Any]) -> Record:
    """A row with all columns."""
    values = dict(zip(NAMES, row, strict=True))
    values["id"] = id_text(bytes(values["id"]))
    if values["source"] not in SOURCES:
        values["source"] = "estimated"
    return Record(**values)


def shown(dimension: str, value: Any) -> Any:
    """A value of the hourly sums, as a record has it."""
    return None if value == "" and dimension in _OPTIONAL else value


def partition(table: str, day: int) -> str:
    """The name of a day's part of a table."""
    return f"{table}_{_EPOCH + timedelta(days=day):%Y%m%d}"


def day_of(name: str) -> int | None:
    """The day that a partition is named after."""
    match = re.fullmatch(r"usage_[a-z]+_(\d{8})", name)
    if match is None:
        return None
    return int(datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC).timestamp()) * 1000 // DAY_MS


def attach(table: str, day: int) -> str:
    """Make a table the part of another for one day."""
    start, end = day * DAY_MS, (day + 1) * DAY_MS
    if table == "usage_hours":
        bounds = f"FROM ({start // HOUR_MS}) TO ({end // HOUR_MS})"
    else:
        bounds = rf"FROM ('\x{first_id(start).hex()}') TO ('\x{first_id(end).hex()}')"
    return f"ALTER TABLE {table} ATTACH PARTITION {partition(table, day)} FOR VALUES {bounds}"


def is_narrowed(wanted: Filter) -> bool:
    """Whether the hourly sums can tell where nothing is to be found."""
    return bool(_conditions(wanted, hourly=True)[0])


def where_hours(wanted: Filter) -> tuple[str, list[Any]]:
    """The condition of the hourly sums, and its values."""
    parts, values = _conditions(wanted, hourly=True)
    if wanted.since is not None:
        parts.append("hour >= %s")
        values.append(wanted.since // HOUR_MS)
    if wanted.until is not None:
        parts.append("hour < %s")
        values.append(-(-wanted.until // HOUR_MS))
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def busy_hours(wanted: Filter, since: int, until: int, most: int) -> tuple[str, list[Any]]:
    """The hours that have what is asked for, the newest first."""
    parts, values = _conditions(wanted, hourly=True)
    where = " AND ".join([*parts, "hour >= %s", "hour < %s"])
    text = f"SELECT DISTINCT hour FROM usage_hours WHERE {where} ORDER BY hour DESC LIMIT %s"  # noqa: S608
    return text, [*values, since, until, most]


def records(wanted: Filter, start: bytes, end: bytes, most: int) -> tuple[str, list[Any]]:
    """The newest records of a range of ids."""
    where, values = _where(wanted, start, end)
    return f"SELECT {COLUMNS} FROM usage_records {where} ORDER BY id DESC LIMIT %s", [*values, most]  # noqa: S608


def search(wanted: Filter, start: bytes, end: bytes, most: tuple[int, int]) -> tuple[str, list[Any]]:
    """The same, looking at `most[0]` records for what no index knows: each row begins with how many these
    were and the last of them, and there is one row without a record where nothing was found.
    """
    where, values = _where(wanted, start, end)
    fine, more = _fine(wanted)
    looked = (
        f"SELECT id, duration_us, error, conversation FROM usage_records {where} ORDER BY id DESC LIMIT %s"  # noqa: S608
    )
    whole = ", ".join(f'whole."{name}"' for name in NAMES)
    text = (
        f"WITH looked AS MATERIALIZED ({looked}), "  # noqa: S608 (constants)
        f"hits AS MATERIALIZED (SELECT id FROM looked WHERE {fine} ORDER BY id DESC LIMIT %s) "
        f"SELECT (SELECT count(*) FROM looked), (SELECT id FROM looked ORDER BY id LIMIT 1), {whole} "
        "FROM (SELECT 1) AS one LEFT JOIN (hits JOIN usage_records AS whole "
        "ON whole.id = hits.id AND whole.id >= %s AND whole.id < %s) ON true ORDER BY whole.id DESC"
    )
    return text, [*values, most[0], *more, most[1], start, end]


def sums(wanted: Filter, by: Sequence[str], step: int, most: int) -> tuple[str, list[Any]]:
    """Sums by these fields, and by `step` hours; of more than `most` the first ones."""
    where, values = where_hours(wanted)
    parts = [f"hour / {step} * {step}" if step else "0", *(f'"{name}"' for name in by)]
    parts += [f"coalesce(sum(requests) FILTER (WHERE status >= {_FIRST_4XX} OR code <> ''), 0)::bigint"]
    parts += [f"sum({name})::bigint" for name in SUMS]
    groups = ", ".join(str(number) for number in range(1, len(by) + 2))
    text = f"SELECT {', '.join(parts)} FROM usage_hours {where} GROUP BY {groups}"  # noqa: S608 (constants)
    return f"{text} ORDER BY {groups} LIMIT %s", [*values, most]


def sums_of(rows: Iterable[Sequence[Any]], by: Sequence[str], *, timed: bool) -> list[Sum]:
    """What `sums` found, in order."""
    found = []
    for at, *row in rows:
        of = tuple(shown(name, value) for name, value in zip(by, row, strict=False))
        failed, *numbers = row[len(by) :]
        named = dict(zip(SUMS, numbers, strict=True))
        found.append(Sum(at=at * HOUR_MS if timed else None, of=of, failed=failed, **named))
    return sorted(found, key=order_of)


def _conditions(wanted: Filter, *, hourly: bool) -> tuple[list[str], list[Any]]:
    """What records and hours have in common."""
    parts: list[str] = []
    values: list[Any] = []
    for name in DIMENSIONS:
        value = getattr(wanted, name)
        if value is not None:
            parts.append(f'"{name}" = %s')
            values.append(value)
    if wanted.failed or wanted.text is not None:
        # Every failure has a code, and only failures have a text.
        parts.append("code <> ''" if hourly else "code IS NOT NULL")
    return parts, values


def _where(wanted: Filter, start: bytes, end: bytes) -> tuple[str, list[Any]]:
    parts, values = _conditions(wanted, hourly=False)
    return f"WHERE {' AND '.join(['id >= %s', 'id < %s', *parts])}", [start, end, *values]


def _fine(wanted: Filter) -> tuple[str, list[Any]]:
    """What no index knows."""
    parts = [f"{comparison} %s" for comparison, _ in wanted.comparisons]
    values: list[Any] = [value for _, value in wanted.comparisons]
    if wanted.text is not None:
        literal = re.sub(r"([%_~])", r"~\1", wanted.text)
        parts.append("error ILIKE %s ESCAPE '~'")
        values.append(f"%{literal}%")
    return " AND ".join(parts), values
