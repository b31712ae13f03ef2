"""The record of a request that has ended: what the core writes is what `usage.model` reads."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.engine import Journal, Marks, journal_segments
from sluicegate.ids import request_ids
from sluicegate.usage.model import CLOSED, LARGEST, PHASES, Record, decode

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


def read(folder: Path) -> list[tuple[int, Record | None]]:
    found = []
    for segment in journal_segments(folder):
        records, _, is_last, damaged = segment.read(0, 1 << 20)
        assert is_last
        assert not damaged
        found += [(kind, decode(payload)) for kind, payload in records]
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
    assert record is not None
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
