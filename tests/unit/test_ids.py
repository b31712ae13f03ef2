"""Ids sort by the time they were made, whatever the wall clock does."""

from __future__ import annotations

import re

from sluicegate.ids import IdSource, request_ids


def test_ids_sort_also_when_the_clock_steps_back() -> None:
    times = iter([1_700_000_000_000_000_000, 1_600_000_000_000_000_000, 1_600_000_000_000_000_001])
    source = IdSource("x_", lambda: next(times))
    made = [source.next() for _ in range(3)]
    assert made == sorted(made)
    assert len(set(made)) == 3


def test_shape_and_no_repetition() -> None:
    made = [request_ids.next() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert all(re.fullmatch(r"req_[0-9a-f]{28}", one) for one in made[:10])


def test_two_processes_do_not_make_the_same_ids() -> None:
    one, two = IdSource("x_", lambda: 5), IdSource("x_", lambda: 5)
    assert one.next() != two.next()
