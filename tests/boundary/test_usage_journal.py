"""From the journal to the database: nothing lost, nothing twice, whatever is killed when."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from sluicegate.engine import Journal, journal_segments
from sluicegate.ids import request_ids
from sluicegate.usage.day_files import DayFiles
from sluicegate.usage.model import CLOSED, INTERRUPTED, OPENED, Filter, Packed, Record, encode
from sluicegate.usage.move import Mover

WRITER = Path(__file__).with_name("journal_writer.py")


def record(**values: object) -> Record:
    made = Record(id=request_ids.next(), workspace="w", key="k", operation="chat")
    return msgspec.structs.replace(made, **values)  # type: ignore[arg-type]


def every(files: DayFiles) -> list[Record]:
    found: list[Record] = []
    below = None
    while True:
        page = files.page(Filter(), below=below, limit=1000)
        found += page.records
        if page.next is None:
            return found
        below = page.next


class Failing:
    """A store whose database is down for so many calls."""

    def __init__(self, files: DayFiles, times: int) -> None:
        self._files = files
        self.times = times

    def write(self, records: Packed) -> int:
        if self.times:
            self.times -= 1
            raise sqlite3.OperationalError("database is locked")
        return self._files.write(records)


def test_records_arrive_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    files = DayFiles(tmp_path / "usage")
    written = [record(micros=number) for number in range(100)]
    for one in written:
        journal.append(CLOSED, encode(one))
    assert Mover(tmp_path / "journal", files).move().records == 100
    # Another process begins at the start again, as after a crash before the removal.
    assert Mover(tmp_path / "journal", files).move().records == 0
    assert every(files) == written[::-1]


def test_a_failing_database_loses_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    files = DayFiles(tmp_path / "usage")
    written = [record() for _ in range(6)]
    journal.append(CLOSED, encode(written[0]))
    mover = Mover(tmp_path / "journal", Failing(files, 2))
    for one in written[1:3]:
        journal.append(CLOSED, encode(one))
        with pytest.raises(sqlite3.OperationalError):
            mover.move()
    for one in written[3:]:
        journal.append(CLOSED, encode(one))
    assert mover.move().records == 6
    assert every(files) == written[::-1]


def test_a_segment_stays_until_its_requests_have_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a", 4096)
    files = DayFiles(tmp_path / "usage")
    mover = Mover(tmp_path / "journal", files)
    stream = record(model="long")
    journal.append(OPENED, encode(stream))
    for _ in range(200):
        journal.append(CLOSED, encode(record()))
    mover.move()
    mover.move()
    first, *_ = sorted((tmp_path / "journal").glob("*.journal"))
    assert first.name == "a-00000001.journal"
    journal.append(CLOSED, encode(stream))
    journal.rotate()
    mover.move()
    mover.move()
    (left,) = journal_segments(tmp_path / "journal")
    assert left.is_open
    assert len(every(files)) == 201


def test_what_a_dead_process_left_open_is_interrupted(tmp_path: Path) -> None:
    files = DayFiles(tmp_path / "usage")
    told: list[tuple[Record, Record]] = []
    mover = Mover(tmp_path / "journal", files, lambda opened, closed: told.append((opened, closed)))
    journal = Journal(tmp_path / "journal", "a")
    opened = record(prompt_tokens=7, reserved_micros=9)
    journal.append(OPENED, encode(opened))
    for _ in range(3):
        assert mover.move().interrupted == 0
    del journal
    assert [mover.move().interrupted for _ in range(3)] == [0, 1, 0]
    ((was, closed),) = told
    assert was == opened
    assert (closed.code, closed.status, closed.prompt_tokens) == (INTERRUPTED, 499, 7)
    assert every(files) == [closed]
    assert journal_segments(tmp_path / "journal") == []


def test_damage_is_counted_and_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    good = record()
    journal.append(CLOSED, b"no record")
    journal.append(CLOSED, encode(good))
    files = DayFiles(tmp_path / "usage")
    assert Mover(tmp_path / "journal", files).move().damaged == 1
    assert every(files) == [good]


def test_one_process_moves(tmp_path: Path) -> None:
    one, two = (Mover(tmp_path, DayFiles(tmp_path)) for _ in range(2))
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    one.release()
    assert two.acquire()
    two.release()


@pytest.mark.parametrize("round", range(6))
def test_kill_loses_nothing_that_a_client_saw(tmp_path: Path, round: int) -> None:
    journal, files = tmp_path / "journal", DayFiles(tmp_path / "usage")
    mover = Mover(journal, files)
    writers = [
        subprocess.Popen([sys.executable, WRITER, journal, f"w{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    seen: set[str] = set()
    try:
        for writer in writers:
            assert writer.stdout is not None
            seen.add(writer.stdout.readline().strip())
        until = time.monotonic() + 0.03 * round
        while True:
            mover.move()
            if time.monotonic() >= until:
                break
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
    for writer in writers:
        out, _ = writer.communicate()
        # The last line may be cut off: then nobody has read that it ended.
        seen.update(line.strip() for line in out.splitlines(keepends=True) if line.endswith("\n"))
    # As after a restart: somebody else goes on, and knows nothing of what was read.
    mover = Mover(journal, files)
    while mover.move().interrupted or journal_segments(journal):
        pass
    found = every(files)
    ids = [one.id for one in found]
    assert len(ids) == len(set(ids))
    by_id = {one.id: one for one in found}
    assert seen <= by_id.keys()
    assert all(by_id[id].code is None for id in seen)
    hours = files.hours(Filter())
    assert sum(hour.requests for hour in hours) == len(found)
    assert sum(hour.micros for hour in hours) == sum(one.micros for one in found)
