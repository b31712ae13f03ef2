"""What limits cost that several machines count in Redis: CPU of this process, and how long a decision takes.

`python -m bench.shared_limits [--requests N]` starts a `redis-server` and asks it for one request at a time,
then for many at once, and kills it to count in shares. Two rates, places and a budget of a workspace and of a
key are eight counters. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sluicegate import engine
from sluicegate.limits.admit import Limiter, Together, scope, together
from sluicegate.limits.alone import Alone
from sluicegate.limits.model import Budget, Limits
from sluicegate.limits.shared import SharedLimits
from sluicegate.storage.redis_link import RedisLink
from sluicegate.telemetry.logs import Log

LIMITS = Limits(requests_per_minute=10**9, tokens_per_minute=10**12, concurrent_requests=10**6)
BUDGET = Budget(usd_per_month=1e6)
# Tokens, and millionths of a dollar.
DEMAND = 200, 10


def limited() -> Together:
    """A workspace and a key."""
    made = scope("workspace", "w", "w", LIMITS, BUDGET), scope("key", "k", "k", LIMITS, BUDGET)
    return together(*(one for one in made if one is not None))


async def ask(limiter: Limiter, clients: int, requests: int) -> tuple[float, float]:
    """Microseconds of CPU for a request, and the median of milliseconds for a decision."""
    took: list[float] = []
    asked = limited()

    async def client() -> None:
        for _ in range(requests // clients):
            begun = time.perf_counter()
            held = await limiter.hold(asked, *DEMAND)
            took.append(time.perf_counter() - begun)
            held.settle(150, 10)
            await asyncio.sleep(0)

    before = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    return (time.process_time() - before) / len(took) * 1e6, statistics.median(took) * 1e3


async def measure(url: str, server: subprocess.Popen[bytes], requests: int) -> None:
    """Print a line for each number of clients, and one without the server."""
    alone = Alone(lambda processes: engine.Limits(None, processes), 2)
    # A busy machine is no outage here.
    shared = SharedLimits(RedisLink(url), alone, Log(), source="", deadline=1.0)
    await shared.start()
    limiter = Limiter(engine.Limits(None), lambda _scope, _percent: None, shared)
    sys.stdout.write("| at once | CPU of a request, us | decision, median ms |\n|---|---|---|\n")
    for clients in (1, 8, 64):
        cpu, median = await ask(limiter, clients, requests)
        sys.stdout.write(f"| {clients} | {cpu:.1f} | {median:.2f} |\n")
    server.kill()
    await asyncio.sleep(0.3)
    cpu, median = await ask(limiter, 1, requests)
    sys.stdout.write(f"| in shares | {cpu:.1f} | {median:.3f} |\n")
    await shared.stop()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.shared_limits", description=__doc__)
    parser.add_argument("--requests", type=int, default=8000, help="for each line")
    options = parser.parse_args()
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        sys.exit("redis-server is missing: run scripts/services")
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as folder:
        path = Path(folder) / "socket"
        command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.02)
            asyncio.run(measure(f"unix://{path}", server, options.requests))
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
