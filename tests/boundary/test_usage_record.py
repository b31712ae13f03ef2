"""The record of a request that has ended: what the core writes is what `usage.model` reads."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from sluicegate.engine import Journal, Marks, journal_segments, record_rows, record_sums
from sluicegate.ids import request_ids
from sluicegate.usage.day_search import NAMES
from sluicegate.usage.model import (
    CLOSED,
    HOUR_MS,
    LARGEST,
    PHASES,
    SOURCES,
    Record,
    id_bytes,
    id_text,
    packed,
    time_of,
    unpacked,
)

# What JSON and headers can hold: all but half surrogate pairs.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
MAYBE = st.none() | TEXT
NUMBER = st.integers(0, 2**64 - 1)
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
SCORED = ("score", "failed_checks", "score_method", "score_reason")

# The arguments of `close` after the id, by the fields of `Record` that they become.
BEFORE = {
    "workspace": TEXT,
    "key": TEXT,
    "operation": TEXT,
    "stream": st.booleans(),
    "model": MAYBE,
    "assistant": MAYBE,
    "assistant_version": st.none() | NUMBER,
    "upstream": MAYBE,
    "upstream_model": MAYBE,
    "status": st.integers(0, 999),
    "code": MAYBE,
    "error": MAYBE,
    "attempts": NUMBER,
    **dict.fromkeys(TOKENS, NUMBER),
    "source": st.sampled_from(["upstream", "counted", "estimated"]),
    "micros": NUMBER,
}
AFTER = {
    "bytes_in": NUMBER,
    "bytes_out": NUMBER,
    "client": MAYBE,
    "finish": MAYBE,
    "conversation": MAYBE,
    "thinking": MAYBE,
}
FOUND = st.none() | st.tuples(st.none() | st.integers(0, 100), MAYBE, MAYBE, MAYBE)

names = count()


def read(folder: Path) -> list[tuple[int, Record]]:
    found = []
    for segment in journal_segments(folder):
        records, _, is_last, damaged = segment.read(0, 1 << 20)
        assert is_last
        assert not damaged
        for kind, id, payload in records:
            (record,) = unpacked({id: payload})
            assert id == id_bytes(record.id)
            found.append((kind, record))
    return found


@given(st.fixed_dictionaries(BEFORE), st.fixed_dictionaries(AFTER), FOUND, st.none() | NUMBER)
def test_every_field_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, object],
    after: dict[str, object],
    scored: tuple[int | None, str | None, str | None, str | None] | None,
    first_us: int | None,
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"journal-{next(names)}"
    journal = Journal(folder, "a")
    id = request_ids.next()
    marks = Marks(
        10.0, known=10.1, read=10.2, planned=10.3, admitted=10.4, asked=10.5, answered=10.9, waited=0.4
    )
    first, last = [before[name] for name in BEFORE], [after[name] for name in AFTER]
    args = (CLOSED, id, *first, first_us, None, marks, 11.0, *last, scored)
    assert journal.close(*args)  # type: ignore[arg-type]
    ((kind, record),) = read(folder)
    assert kind == CLOSED
    expected = before | after | {"id": id, "model": before["model"] or ""}
    for name in (*TOKENS, "micros"):
        expected[name] = min(before[name], LARGEST)  # type: ignore[call-overload]
    expected |= dict(zip(SCORED, scored or (None,) * 4, strict=True))
    assert {name: getattr(record, name) for name in expected} == expected
    assert (record.first_us, record.duration_us) == (first_us, 1_000_000)
    # A tenth of a second was the client's, four were the upstream's.
    assert record.overhead_us == 500_000
    assert record.phases is not None
    assert len(record.phases.split(",")) == len(PHASES)
    assert record.phases.startswith("100000,100000,100000,100000,")


def test_what_cannot_be_a_record_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "a")
    with pytest.raises(TypeError):
        journal.close(CLOSED)  # type: ignore[call-arg]
    assert read(tmp_path) == []


RECORDS = st.lists(
    st.builds(
        Record,
        id=st.binary(min_size=14, max_size=14).map(id_text),
        workspace=TEXT,
        key=TEXT,
        operation=TEXT,
        stream=st.booleans(),
        model=TEXT,
        assistant=MAYBE,
        status=st.integers(0, 999),
        code=MAYBE,
        prompt_tokens=st.integers(0, LARGEST),
        source=st.sampled_from(SOURCES),
        first_us=st.none() | st.integers(0, 2**63 - 1),
        score=st.none() | st.integers(0, 100),
        phases=MAYBE,
    ),
    unique_by=lambda record: record.id,
    max_size=30,
)


@given(
    st.integers(0, 40),
    st.integers(0, 45),
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT | st.lists(st.none()),
)
def test_what_is_let_through_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, length: int, place: int, value: object
) -> None:
    """Else a database's mover would be held up by it for ever."""
    fields: list[object] = list(astuple(Record(id=request_ids.next(), workspace="w", key="k", operation="o")))
    fields = (fields + [None] * 10)[:length]
    fields[place:] = [value, *fields[place + 1 :]]
    folder = tmp_path_factory.getbasetemp() / f"journal-{next(names)}"
    Journal(folder, "a").append(CLOSED, msgspec.msgpack.encode(fields))
    (segment,) = journal_segments(folder)
    found, _, _, damaged = segment.read(0, 1 << 20)
    assert len(found) + damaged == 1
    for _, id, payload in found:
        (record,) = unpacked({id: payload})
        same, different, (values,) = record_rows([payload], 1)
        row = dict(zip([*same, *different], values, strict=True))
        assert (id_bytes(record.id), record.stream) == (id, row[NAMES.index("stream")])


@given(RECORDS, st.integers(1, 12))
def test_rows_have_once_what_is_the_same_in_all(records: list[Record], at_once: int) -> None:
    same, different, groups = record_rows(list(packed(records).values()), at_once)
    whole = [(id_bytes(record.id), *astuple(record)[1:]) for record in records]
    alike = {n for n in range(1, len(NAMES)) if len({row[n] for row in whole}) <= 1}
    assert same == [n for n in sorted(alike) if any(row[n] is not None for row in whole)]
    assert different == [n for n in range(len(NAMES)) if n not in alike]
    width, rows = len(different), []
    for shared, own in ((values[: len(same)], values[len(same) :]) for values in groups):
        assert all(shared == tuple(row[n] for n in same) for row in whole)
        rows += [own[at : at + width] for at in range(0, len(own), width)]
    assert rows == [tuple(row[n] for n in different) for row in whole]
    assert all(len(values) == len(same) + at_once * width for values in groups[:-1])


@given(RECORDS, st.sampled_from([("model",), ("workspace", "code"), ()]))
def test_sums_are_those_of_the_records(records: list[Record], dimensions: tuple[str, ...]) -> None:
    numbers = [NAMES.index(name) for name in dimensions]
    expected: dict[tuple[object, ...], list[int]] = {}
    for record in records:
        hour = time_of(id_bytes(record.id)) // HOUR_MS
        key = (hour, *(getattr(record, name) for name in dimensions))
        sums = expected.setdefault(key, [0, 0, 0])
        for place, value in enumerate((1, record.prompt_tokens, record.first_us or 0)):
            # What no database takes stays the largest that one takes.
            sums[place] = min(sums[place] + value, 2**63 - 1)
    found = record_sums(
        list(packed(records).values()), numbers, [NAMES.index("prompt_tokens"), NAMES.index("first_us")]
    )
    assert found == [(*key, *sums) for key, sums in expected.items()]


def test_what_is_no_record_makes_no_row() -> None:
    with pytest.raises(ValueError, match="not a record"):
        record_rows([b"no record"], 1)
    with pytest.raises(ValueError, match="not a record"):
        record_sums([b"no record"], [], [])
