"""The usage records on both databases: nothing twice, and every question answered as by looking at all."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import Logbook, open_logbook
from sluicegate.usage.model import (
    DAY_MS,
    DIMENSIONS,
    HOUR_MS,
    SCANNED,
    Filter,
    Record,
    Sum,
    id_bytes,
    packed,
    time_of,
)

BEGIN = 20_000 * DAY_MS
DAYS = 3


@pytest.fixture
def logbook(location: Location) -> Iterator[Logbook]:
    opened = open_logbook(location)
    yield opened
    opened.close()


def identified(at_ms: int, number: int) -> str:
    return f"req_{at_ms * 1_000_000:016x}{number:012x}"


def made(number: int, chance: random.Random) -> Record:
    failed = chance.random() < 0.2
    return Record(
        id=identified(BEGIN + chance.randrange(DAYS * DAY_MS), number),
        workspace=chance.choice(["acme", "zeta"]),
        key=f"key_{chance.randrange(4)}",
        operation="chat",
        model=chance.choice(["m", "n"]),
        assistant=chance.choice([None, "asst_1"]),
        upstream=chance.choice([None, "u", "v"]),
        status=502 if failed else 200,
        code=chance.choice(["upstream_timeout", "upstream_truncated"]) if failed else None,
        error=chance.choice(["It took 100% too long.", "Cut off_ here."]) if failed else None,
        prompt_tokens=chance.randrange(100),
        completion_tokens=chance.randrange(100),
        cached_tokens=chance.randrange(10),
        reasoning_tokens=chance.randrange(10),
        micros=chance.randrange(1000),
        duration_us=chance.randrange(1_000_000),
        conversation=chance.choice([None, "conv_1"]),
    )


FILTERS: dict[str, tuple[Filter, Callable[[Record], bool]]] = {
    "all": (Filter(), lambda r: True),
    "workspace": (Filter(workspace="acme"), lambda r: r.workspace == "acme"),
    "key, model": (Filter(key="key_1", model="m"), lambda r: (r.key, r.model) == ("key_1", "m")),
    "assistant": (Filter(assistant="asst_1"), lambda r: r.assistant == "asst_1"),
    "upstream": (Filter(upstream="v"), lambda r: r.upstream == "v"),
    "status": (Filter(status=502), lambda r: r.status == 502),
    "code": (Filter(code="upstream_timeout"), lambda r: r.code == "upstream_timeout"),
    "failed": (Filter(failed=True, workspace="zeta"), lambda r: bool(r.code) and r.workspace == "zeta"),
    "nothing": (Filter(status=418), lambda r: False),
    "slow": (Filter(least_us=900_000), lambda r: r.duration_us >= 900_000),
    "between": (
        Filter(least_us=400_000, most_us=500_000, workspace="acme"),
        lambda r: 400_000 <= r.duration_us <= 500_000 and r.workspace == "acme",
    ),
    "text": (Filter(text="TOO long"), lambda r: "too long" in (r.error or "")),
    "percent": (Filter(text="0% t"), lambda r: "100%" in (r.error or "")),
    "underscore": (Filter(text="f_ h"), lambda r: "off_" in (r.error or "")),
    "no wildcard": (Filter(text="c_t"), lambda r: False),
    "conversation": (Filter(conversation="conv_1"), lambda r: r.conversation == "conv_1"),
    "time": (
        Filter(since=BEGIN + 5 * HOUR_MS, until=BEGIN + DAY_MS + 7, key="key_2"),
        lambda r: BEGIN + 5 * HOUR_MS <= at(r) < BEGIN + DAY_MS + 7 and r.key == "key_2",
    ),
}


def at(record: Record) -> int:
    return time_of(id_bytes(record.id))


def every(logbook: Logbook, wanted: Filter, limit: int) -> list[Record]:
    found: list[Record] = []
    below = None
    while True:
        page = logbook.page(wanted, below=below, limit=limit)
        assert len(page.records) <= limit
        found += page.records
        if page.next is None:
            return found
        assert below is None or page.next < below
        below = page.next


def summed(records: list[Record]) -> dict[str, int]:
    names = [f.name for f in msgspec.structs.fields(Sum) if f.name not in ("at", "of", "requests", "failed")]
    found = {name: sum(getattr(record, name) for record in records) for name in names}
    return {**found, "requests": len(records), "failed": sum(r.code is not None for r in records)}


def numbers(found: Sum) -> dict[str, Any]:
    values = msgspec.structs.asdict(found)
    del values["at"], values["of"]
    return values


def test_every_question_is_answered_as_by_looking_at_all(logbook: Logbook) -> None:
    chance = random.Random(7)
    records = [made(number, chance) for number in range(600)]
    for start in range(0, 600, 150):
        assert logbook.write(packed(records[start : start + 150])) == 150
    # Once more, with some that are new: only those count.
    more = [made(number, chance) for number in range(600, 610)]
    assert logbook.write(packed([*records[100:300], *more, *more])) == 10
    records += more
    records.sort(key=lambda r: r.id, reverse=True)
    for name, (wanted, fits) in FILTERS.items():
        right = [record for record in records if fits(record)]
        for limit in (7, 1000):
            assert every(logbook, wanted, limit) == right, name
    for name in ("all", "workspace", "key, model", "status", "failed", "nothing"):
        wanted, fits = FILTERS[name]
        right = [record for record in records if fits(record)]
        check_sums(logbook, wanted, right)
        for dimension in DIMENSIONS:
            facets = {facet.value: facet.requests for facet in logbook.facets(wanted, dimension)}
            assert facets == Counter(getattr(record, dimension) for record in right), (name, dimension)
    assert [f.requests for f in logbook.facets(Filter(), "key", 2)] == sorted(
        Counter(record.key for record in records).values(), reverse=True
    )[:2]
    assert logbook.one(records[5].id) == records[5]
    assert logbook.one(identified(BEGIN, 999_999)) is None


def check_sums(logbook: Logbook, wanted: Filter, right: list[Record]) -> None:
    by_day = logbook.sums(wanted, ("model", "assistant"), "day")
    expected: dict[Any, list[Record]] = {}
    for record in right:
        key = (at(record) // DAY_MS * DAY_MS, (record.model, record.assistant))
        expected.setdefault(key, []).append(record)
    assert {(one.at, one.of): numbers(one) for one in by_day} == {
        key: summed(group) for key, group in expected.items()
    }
    assert [one.at for one in by_day] == sorted(one.at or 0 for one in by_day)
    hours = logbook.hours(wanted)
    assert [one.at for one in hours] == sorted({at(record) // HOUR_MS * HOUR_MS for record in right})
    assert logbook.sums(wanted, ("model", "assistant"), "day", 3) == by_day[:3]
    whole = logbook.sums(wanted)
    assert [numbers(one) for one in whole] == ([summed(right)] if right else [])


def test_days_and_workspaces_are_deleted(logbook: Logbook) -> None:
    chance = random.Random(8)
    records = [made(number, chance) for number in range(200)]
    logbook.write(packed(records))
    middle = BEGIN + DAY_MS + 5
    gone = [r for r in records if at(r) < BEGIN + DAY_MS and r.workspace == "acme"]
    assert logbook.delete_of("acme", middle) == len(gone)
    assert logbook.delete_of("acme", middle) == 0
    left = {r.id for r in records} - {r.id for r in gone}
    assert {r.id for r in every(logbook, Filter(), 500)} == left
    # What was used stays known.
    assert logbook.sums(Filter())[0].requests == 200
    assert logbook.delete_before(middle) == 1
    assert logbook.delete_before(middle) == 0
    kept = {r.id for r in records if at(r) >= BEGIN + DAY_MS}
    assert {r.id for r in every(logbook, Filter(), 500)} == kept
    # One that comes late, of a machine that was away: its day is made again.
    late = msgspec.structs.replace(records[0], id=identified(BEGIN + 7, 12345))
    assert logbook.write(packed([late])) == 1
    assert logbook.one(late.id) == late


def test_a_search_for_what_is_not_there_ends(logbook: Logbook) -> None:
    rows = SCANNED + 500
    logbook.write(
        packed(
            Record(id=identified(BEGIN + n, n), workspace="acme", key="k", operation="chat")
            for n in range(rows)
        )
    )
    page = logbook.page(Filter(least_us=1))
    assert page.records == ()
    assert page.next == identified(BEGIN + 500, 500)
    assert logbook.page(Filter(least_us=1), below=page.next).next is None


ODD = [
    {"model": "a\x00b", "error": "\\u0000 \\\\\x00 \x00\x00", "code": "x", "status": 500},
    {"model": "é" * 256, "code": "c" * 64, "status": 500},
    {"model": "é🎉\u202e", "client": "2001:db8::1", "finish": "x" * 10_000},
    {"micros": 1 << 44, "prompt_tokens": 1 << 44, "duration_us": 1 << 50, "first_us": 0},
    {"stream": True, "assistant_version": 3, "attempts": 9, "source": "counted", "bytes_out": 5},
    {"model": '"; DROP TABLE usage_records; --', "key": "'", "workspace": "", "upstream": ""},
]


def test_odd_values_come_back(logbook: Logbook, location: Location) -> None:
    records = [
        Record(**{"workspace": "w", "key": "k", "operation": "chat", **odd}, id=identified(BEGIN, number))  # type: ignore[arg-type]
        for number, odd in enumerate(ODD)
    ]
    assert logbook.write(packed(records)) == len(ODD)
    shown = list(reversed(every(logbook, Filter(), 50)))
    if location.is_postgresql:
        # It has no such character.
        fix = {"model": "a\ufffdb", "error": "\\u0000 \\\\\ufffd \ufffd\ufffd"}
        records[0] = msgspec.structs.replace(records[0], **fix)
    assert shown == records


def test_writers_at_the_same_time_count_each_once(location: Location) -> None:
    """Several machines on PostgreSQL. On SQLite one process at a time makes files and writes, by a lock."""
    chance = random.Random(9)
    batches = [[made(at * 40 + number, chance) for number in range(40)] for at in range(30)]
    new: list[int] = []
    broken: list[Exception] = []
    if not location.is_postgresql:
        with closing(open_logbook(location)) as logbook:
            new.append(logbook.write(packed(batches[0])))

    def write(number: int) -> None:
        with closing(open_logbook(location)) as logbook:
            own = batches[:]
            random.Random(number).shuffle(own)
            try:
                new.append(sum(logbook.write(packed(batch)) for batch in own))
            except UnavailableError as error:
                broken.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert broken == []
    assert sum(new) == 30 * 40
    with closing(open_logbook(location)) as logbook:
        check_sums(logbook, Filter(), sorted((r for b in batches for r in b), key=lambda r: r.id))
        assert len(every(logbook, Filter(), 500)) == 30 * 40
