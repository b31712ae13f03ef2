"""A key is revoked under load; nobody may come in with it after that was acknowledged.

`python -m bench.revocation [TRIES]` (100,000) starts a gateway of 4 workers on a SQLite database, and asks
from 8 threads on ever new connections. Prints how many tries succeeded after it; exits 1 if any did.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.tenants import Tenants
from processes import answers, free_port, running
from served import Load, served
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location

WORKERS = 4
THREADS = 8


async def set_up(location: Location, base_url: str) -> tuple[str, str]:
    """A workspace that answers; the id and the text of its key."""
    database = await Database.open(location)
    tenants = Tenants(database)
    await tenants.workspace("acme")
    await tenants.upstream("acme", "demo", base_url, models=("demo-fast",))
    await tenants.assistant("acme", "Helper", "demo/demo-fast")
    found = await tenants.key("acme")
    await database.close()
    return found


async def revoke(location: Location, key: str) -> None:
    """By a process that is no worker."""
    database = await Database.open(location)
    await Tenants(database).revoke("acme", key)
    await database.close()


def main() -> int:
    """Ask, revoke, go on asking, and count."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        port = free_port()
        demo = stack.enter_context(
            running(
                ["sluicegate.demo", "--port", str(port)],
                port,
                folder / "demo.log",
                ready=lambda p: answers(p, "/v1/models"),
            )
        )
        location = Location(data_dir=folder / "data")
        key, text = asyncio.run(set_up(location, demo.base_url))
        gateway = stack.enter_context(served(location, folder, workers=WORKERS))
        load = Load(gateway.port, text, threads=THREADS, per_connection=20)
        load.start()
        time.sleep(5)
        asyncio.run(revoke(location, key))
        load.revoked.set()
        while len(load.after) < tries:
            time.sleep(0.1)
        load.stop()
    successes = sum(status < 400 for status in load.after)
    print(f"before: {dict(Counter(load.before))}; after: {dict(Counter(load.after))}; broken: {load.broken}")
    print(f"{successes} successes in {len(load.after):,} tries after the acknowledged revocation")
    return int(successes > 0)


if __name__ == "__main__":
    raise SystemExit(main())
