"""What limits, budgets and usage records cost: CPU of a plain request with them and without, in turns.

`python -m bench.limits [--rounds N] [--seconds S] [--binary PATH]` starts gateways of one worker: one without
limits and records, one with limits alone, one with a database and so with records, one with all of it, and
one with all of it whose records stay in the journal: the difference of the last two is what runs beside the
requests and moves records into the database. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import children
from bench.tenants import MODEL, load
from sluicegate.keys.model import mint
from sluicegate.storage.location import Location
from sluicegate.usage.day_files import DayFiles
from sluicegate.usage.move import Mover

LIMITS = "requests_per_minute = 100000000, tokens_per_minute = 10000000000, concurrent_requests = 1000"


def settings(key: str, port: int, *, limited: bool) -> str:
    """A settings file; `limited`: with limits of key and workspace, budgets of both, and prices."""
    limits = f"limits = {{ {LIMITS} }}\nbudget = {{ usd_per_month = 1000000.0 }}\n" if limited else ""
    prices = 'prices = { "*" = { prompt = 1.0, completion = 2.0 } }\n' if limited else ""
    return (
        f"[workspace]\n{limits}"
        f'[[keys]]\nname = "load"\nkey = "{key}"\n{limits}'
        f'[[upstreams]]\nname = "up"\nbase_url = "http://127.0.0.1:{port}/v1"\nmodels = ["{MODEL}"]\n{prices}'
    )


def hold_back_mover(stack: ExitStack, data: Path) -> None:
    """Be the one that moves the records of this data directory, and move none."""
    location = Location(data_dir=data)
    location.make_data_dir()
    mover = Mover(location.journal_dir, DayFiles(location.usage_dir))
    stack.callback(mover.release)
    if not mover.acquire():
        raise children.BenchError(f"records of {data} are being moved already")


def gateway(stack: ExitStack, folder: Path, text: str, *, recorded: bool, moved: bool) -> children.Server:
    """`sluicegate serve` with one worker, ready to answer; not `moved`: its records stay in the journal."""
    folder.mkdir()
    if not moved:
        hold_back_mover(stack, folder / "data")
    (folder / "sluicegate.toml").write_text(text)
    port = children.free_port()
    command = [sys.executable, "-m", "sluicegate", "serve", "--port", str(port)]
    command += ["--config", str(folder / "sluicegate.toml")]
    place = "SLUICEGATE_DATA_DIR" if recorded else "XDG_DATA_HOME"
    environment = {place: str(folder / "data")}
    running = children.running(command, port, "/readyz", folder / "gateway.log", environment)
    return stack.enter_context(running)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.limits", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--binary", type=Path, help="a built bench-upstream; left out, it is built")
    given = parser.parse_args()
    binary = given.binary or children.build()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        upstream, key = stack.enter_context(children.upstream(binary, folder)), mint()
        runs = {
            "neither": (False, False, True),
            "limits and budgets: 8 counters": (True, False, True),
            "database and records": (False, True, True),
            "all": (True, True, True),
            "all, records stay in the journal": (True, True, False),
        }
        servers = {}
        for number, (name, (limited, recorded, moved)) in enumerate(runs.items()):
            text, place = settings(key, upstream.port, limited=limited), folder / str(number)
            servers[name] = gateway(stack, place, text, recorded=recorded, moved=moved)
        costs: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(given.rounds):
            # Who begins turns with each round.
            order = list(runs)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                costs[name].append(load(binary, servers[name], key, MODEL, given.seconds))
    print("| with | CPU, us a request, median of the rounds | more than neither, median of the differences |")
    print("|---|---|---|")
    for name, found in costs.items():
        more = statistics.median(a - b for a, b in zip(found, costs["neither"], strict=True))
        print(f"| {name} | {statistics.median(found):.1f} | {more:.1f} |")


if __name__ == "__main__":
    main()
