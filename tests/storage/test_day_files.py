"""Files of usage records that an older version wrote: read, added to, and brought up."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.storage.errors import UnavailableError
from sluicegate.usage.day_files import DayFiles
from sluicegate.usage.model import DAY_MS, HOUR_MS, Filter, Record, packed, time_of_id

DAY = 20_000


def record(number: int, **values: object) -> Record:
    id = f"req_{DAY * DAY_MS * 1_000_000 + number:016x}{number:012x}"
    return Record(id=id, workspace="w", key="k", operation="chat", **values)  # type: ignore[arg-type]


def test_a_file_of_an_older_version_is_brought_up(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    old = record(1, prompt_tokens=5, cached_tokens=3)
    files.write(packed([old]))
    # As the version before wrote it.
    with closing(sqlite3.connect(files.path(DAY))) as db:
        db.execute("ALTER TABLE hours DROP COLUMN cached_tokens")
        db.execute("ALTER TABLE records DROP COLUMN conversation")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    assert files.one(old.id) == old
    new = record(2, prompt_tokens=1, cached_tokens=1, conversation="conv_1")
    assert files.write(packed([old, new])) == 1
    assert files.page(Filter()).records == (new, old)
    (found,) = files.sums(Filter())
    assert (found.requests, found.prompt_tokens, found.cached_tokens) == (2, 6, 1)


def test_a_damaged_file_is_told_and_harms_no_other_day(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    files.write(packed([record(1)]))
    files.path(DAY).write_bytes(b"no database at all" * 500)
    with pytest.raises(UnavailableError, match="damaged"):
        files.page(Filter())
    with pytest.raises(UnavailableError, match="damaged"):
        files.write(packed([record(2)]))
    other = Record(
        id=f"req_{(DAY + 1) * DAY_MS * 1_000_000:016x}{1:012x}", workspace="w", key="k", operation="chat"
    )
    assert files.write(packed([other])) == 1
    assert files.page(Filter(since=(DAY + 1) * DAY_MS)).records == (other,)


def at(moment: int, values: dict[str, object]) -> Record:
    id = f"req_{moment * 1_000_000:016x}{0:012x}"
    return Record(id=id, workspace="w", key="k", operation="chat", **values)  # type: ignore[arg-type]


# Around the ends of hours and of a day; most fields empty, as in life.
MOMENTS = st.builds(
    lambda hour, off: DAY * DAY_MS + hour * HOUR_MS + off, st.integers(22, 25), st.integers(-30, 30)
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "assistant": st.sampled_from(["a", "b"]),
        "code": st.just("upstream_error"),
        "error": st.text(max_size=5),
        "score": st.integers(0, 100),
        "stream": st.booleans(),
        "prompt_tokens": st.integers(0, 9),
        "micros": st.integers(0, 9),
    },
)


@given(st.lists(st.lists(st.builds(at, MOMENTS, VALUES), max_size=60), max_size=4))
def test_however_records_come_each_is_there_once(batches: list[list[Record]]) -> None:
    """In any order, some again, with other fields in each batch: rows and hours as of the first ones."""
    with TemporaryDirectory() as folder:
        files = DayFiles(Path(folder))
        known: dict[str, Record] = {}
        for batch in batches:
            fresh = {record.id: record for record in batch if record.id not in known}
            assert files.write(packed(batch)) == len(fresh)
            known |= fresh
        newest_first = sorted(known.values(), key=lambda record: record.id, reverse=True)
        assert list(files.page(Filter(), limit=300).records) == newest_first
        requests, spent = Counter[int](), Counter[int]()
        for record in newest_first:
            hour = time_of_id(record.id) // HOUR_MS * HOUR_MS
            requests[hour] += 1
            spent[hour] += record.micros
        hours = files.hours(Filter())
        assert {hour.at: hour.requests for hour in hours} == dict(requests)
        assert {hour.at: hour.micros for hour in hours} == dict(spent)
