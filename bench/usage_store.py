"""Usage records at size: `python -m bench.usage_store [--rows 10000000] [--days 4] [--database-url URL]`.

With a URL on that PostgreSQL, whose database must be migrated and empty; else on SQLite. Writes so many
records into a temporary folder (2 GB for 10 million), then asks for pages, facets and sums, three times
each, and deletes a day. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sized
from pathlib import Path

from sluicegate.settings import Secret
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import Logbook, open_logbook
from sluicegate.usage.model import DAY_MS, Filter, Record, packed

BATCH = 10_000
KEYS = [f"key_{number:012x}" for number in range(50)]


def record(number: int, at_ms: float, chance: random.Random) -> Record:
    """Of five workspaces, fifty keys, eight models and three upstreams; three of a hundred fail."""
    failed = chance.random() < 0.03
    model = f"model-{number * 7 % 8}"
    return Record(
        id=f"req_{int(at_ms * 1_000_000):016x}{chance.getrandbits(48):012x}",
        workspace=f"ws-{number % 5}",
        key=KEYS[number % 50],
        operation="chat",
        model=model,
        upstream=f"up{number % 3}",
        upstream_model=model,
        status=502 if failed else 200,
        code="upstream_timeout" if failed else None,
        error="The upstream did not answer in time (first_event_timeout)." if failed else None,
        attempts=1,
        prompt_tokens=100,
        completion_tokens=200,
        source="upstream",
        micros=31,
        first_us=1000,
        duration_us=chance.randrange(1_000_000),
        finish=None if failed else "stop",
        client="127.0.0.1",
    )


def fill(files: Logbook, rows: int, begin: int, span: int) -> float:
    """Seconds that the writing took."""
    chance, took = random.Random(1), 0.0
    for start in range(0, rows, BATCH):
        numbers = range(start, min(rows, start + BATCH))
        batch = [record(number, begin + number * span / rows, chance) for number in numbers]
        before = time.perf_counter()
        files.write(packed(batch))
        took += time.perf_counter() - before
    return took


def questions(files: Logbook, middle: int) -> dict[str, Callable[[], Sized]]:
    """What an operator asks."""

    def page(**wanted: object) -> Callable[[], Sized]:
        return lambda: files.page(Filter(**wanted)).records  # type: ignore[arg-type]

    def facet(name: str, **wanted: object) -> Callable[[], Sized]:
        return lambda: files.facets(Filter(**wanted), name)  # type: ignore[arg-type]

    return {
        "newest page": page(),
        "of a key": page(key=KEYS[3]),
        "failed, of a key": page(key=KEYS[3], failed=True),
        "a code in a workspace": page(workspace="ws-1", code="upstream_timeout"),
        "a status that nothing has": page(status=404),
        "a workspace, in the middle": page(workspace="ws-2", until=middle),
        "slower than 0.999 s": page(least_us=999_000),
        "a text that nothing has": page(text="nothing like it"),
        "facet: status": facet("status"),
        "facet: key": facet("key"),
        "facet: model, of a workspace's failures": facet("model", workspace="ws-1", failed=True),
        "sums by the hour of a workspace": lambda: files.hours(Filter(workspace="ws-1")),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.usage_store", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--database-url", default=None)
    given = parser.parse_args()
    begin = 20_000 * DAY_MS
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as folder:
        url = None if given.database_url is None else Secret(given.database_url)
        files = open_logbook(Location(data_dir=Path(folder), database_url=url))
        took = fill(files, given.rows, begin, given.days * DAY_MS)
        print(f"{given.rows / took:,.0f} rows/s written\n")
        print("| question | ms, median | most | found |\n|---|---|---|---|")
        for name, ask in questions(files, begin + given.days * DAY_MS // 2).items():
            times = []
            for _ in range(3):
                before = time.perf_counter()
                found = ask()
                times.append((time.perf_counter() - before) * 1000)
            print(f"| {name} | {sorted(times)[1]:.1f} | {max(times):.1f} | {len(found)} |")
        before = time.perf_counter()
        files.delete_before(begin + DAY_MS)
        print(f"\n{(time.perf_counter() - before) * 1000:.1f} ms for the deletion of a day")


if __name__ == "__main__":
    main()
