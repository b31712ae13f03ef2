"""Files of usage records that an older version wrote: read, added to, and brought up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sluicegate.storage.errors import UnavailableError
from sluicegate.usage.day_files import DayFiles
from sluicegate.usage.model import DAY_MS, Filter, Record

DAY = 20_000


def record(number: int, **values: object) -> Record:
    id = f"req_{DAY * DAY_MS * 1_000_000 + number:016x}{number:012x}"
    return Record(id=id, workspace="w", key="k", operation="chat", **values)  # type: ignore[arg-type]


def test_a_file_of_an_older_version_is_brought_up(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    old = record(1, prompt_tokens=5, cached_tokens=3)
    files.write([old])
    # As the version before wrote it.
    with closing(sqlite3.connect(files.path(DAY))) as db:
        db.execute("ALTER TABLE hours DROP COLUMN cached_tokens")
        db.execute("ALTER TABLE records DROP COLUMN conversation")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    assert files.one(old.id) == old
    new = record(2, prompt_tokens=1, cached_tokens=1, conversation="conv_1")
    assert files.write([old, new]) == 1
    assert files.page(Filter()).records == (new, old)
    (found,) = files.sums(Filter())
    assert (found.requests, found.prompt_tokens, found.cached_tokens) == (2, 6, 1)


def test_a_damaged_file_is_told_and_harms_no_other_day(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    files.write([record(1)])
    files.path(DAY).write_bytes(b"no database at all" * 500)
    with pytest.raises(UnavailableError, match="damaged"):
        files.page(Filter())
    with pytest.raises(UnavailableError, match="damaged"):
        files.write([record(2)])
    other = Record(
        id=f"req_{(DAY + 1) * DAY_MS * 1_000_000:016x}{1:012x}", workspace="w", key="k", operation="chat"
    )
    assert files.write([other]) == 1
    assert files.page(Filter(since=(DAY + 1) * DAY_MS)).records == (other,)
