"""What cached records cost: start, look-ups and memory with 10 keys and with 100,000.

`python -m bench.records [KEYS]` makes a database of its own for each (with a tenth as many assistants, and a
hundredth as many workspaces), and measures in a fresh process. Prints a table; asserts nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from sluicegate.assistants.model import AssistantSpec
from sluicegate.keys import store as keys
from sluicegate.keys.cache import KeyReader
from sluicegate.keys.model import KeyDraft
from sluicegate.keys.secret import new_kid
from sluicegate.storage import schema
from sluicegate.storage.codec import encode
from sluicegate.storage.database import Database
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import SYSTEM, Change
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft

PER_WORKSPACE = 100
IN_USE = 1000
PEEKS = 200_000
CHANGES = 200


async def fill(folder: Path, count: int) -> list[str]:
    """Make the records; returns the texts of the keys that will be in use, at most `IN_USE`."""
    database = await Database.open(Location(data_dir=folder))
    texts: list[str] = []
    for first in range(0, count, PER_WORKSPACE):
        workspace = f"w{first}"
        async with database.change(SYSTEM) as change:
            await workspaces.create(change, workspace, WorkspaceDraft(name=workspace))
            mine = min(PER_WORKSPACE, count)
            used = max(mine * IN_USE // max(count, IN_USE), 1)
            for number in range(used):
                _, text = await keys.create(change, workspace, KeyDraft(name=f"used{number}"))
                texts.append(text)
            await add_rows(change, workspace, mine - used)
    await database.close()
    return texts


async def add_rows(change: Change, workspace: str, count: int) -> None:
    """Keys that nobody uses and assistants, many at once: the stores' checks for each would take an hour."""
    stamps = {"workspace": workspace, "version": 1, "created_at": change.now, "updated_at": change.now}
    kids = [new_kid() for _ in range(count)]
    key = {"kind": "client", "scopes": "[]", "created_by": "bench"} | stamps
    secret = {"pepper": 1, "last4": "", "created_at": change.now}
    spec = encode(AssistantSpec(model=("u/m",), system_prompt="x" * 500))
    made = [
        {"id": f"asst_{new_kid()}", "name": f"a{n}", "spec": spec} | stamps
        for n in range(PER_WORKSPACE // 10)
    ]
    await change.execute(insert(schema.assistants), made)
    if kids:
        await change.execute(
            insert(schema.keys), [{"id": f"key_{kid}", "name": kid, "kid": kid} | key for kid in kids]
        )
        await change.execute(
            insert(schema.key_secrets),
            [
                {"id": f"ks_{kid}", "key": f"key_{kid}", "lookup": kid, "digest": os.urandom(32)} | secret
                for kid in kids
            ],
        )


def rss_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def measure(folder: Path, texts: list[bytes]) -> dict[str, float]:
    """Open, look each key up, look one up again and again, and make changes."""
    found: dict[str, float] = {}
    began = time.perf_counter()
    database = await Database.open(Location(data_dir=folder))
    reader = KeyReader(database, Freshness(database))
    await reader.find(texts[0])
    found["open and first look-up, ms"] = (time.perf_counter() - began) * 1e3
    found["memory then, MiB"] = rss_mib()
    began = time.perf_counter()
    for text in texts:
        await reader.find(text)
    found["first look-up of a key, us"] = (time.perf_counter() - began) / len(texts) * 1e6
    found["memory with all used keys in it, MiB"] = rss_mib()
    began = time.process_time()
    for number in range(PEEKS):
        assert reader.peek(texts[number % len(texts)]) is not None
    found["cached look-up, us of CPU"] = (time.process_time() - began) / PEEKS * 1e6
    shared = database.shared
    began = time.perf_counter()
    for _ in range(PEEKS):
        shared.generation  # noqa: B018 (what is measured)
    found["reading the generation, ns"] = (time.perf_counter() - began) / PEEKS * 1e9
    name = f"m{os.getpid()}"
    async with database.change(SYSTEM) as change:
        await workspaces.create(change, name, WorkspaceDraft(name=name))
    began = time.perf_counter()
    for number in range(CHANGES):
        async with database.change(SYSTEM) as change:
            await workspaces.replace(change, name, WorkspaceDraft(name=f"n{number}"))
    found["a change, ms"] = (time.perf_counter() - began) / CHANGES * 1e3
    began = time.perf_counter()
    assert await reader.find(texts[0]) is not None
    found["look-up after a change, us"] = (time.perf_counter() - began) * 1e6
    await database.close()
    return found


def measured(folder: Path, texts: Path) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "bench.records", "--measure", str(folder), str(texts)]
    result: dict[str, float] = json.loads(subprocess.check_output(command))
    return result


def main() -> None:
    """Measure with few keys and with many."""
    if sys.argv[1:2] == ["--measure"]:
        texts = [text.encode() for text in json.loads(Path(sys.argv[3]).read_text())]
        print(json.dumps(asyncio.run(measure(Path(sys.argv[2]), texts))))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as name:
        columns = {}
        for number in (10, count):
            folder = Path(name, str(number))
            texts = Path(name, f"{number}.json")
            texts.write_text(json.dumps(asyncio.run(fill(folder, number))))
            columns[number] = measured(folder, texts)
        few, many = columns.values()
        print(f"| | 10 keys | {count:,} keys |\n|---|---|---|")
        for (row, small), (_, large) in zip(few.items(), many.items(), strict=True):
            print(f"| {row} | {small:,.1f} | {large:,.1f} |")


if __name__ == "__main__":
    main()
