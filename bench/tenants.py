"""What a gateway with a database costs: the start and a request, with 10 keys and with 100,000.

`python -m bench.tenants [--keys N] [--rounds N] [--binary PATH]` makes two databases (a tenth as many
assistants as keys, a hundredth as many workspaces), starts a gateway on each, and one on the two variables
alone. They are loaded in turns; the figures are CPU of the gateways. Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import children, records
from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft, mint
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import SYSTEM
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import UpstreamDraft
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft

MODEL = "bench-n20-b40"
ASSISTANT = "Bench"
WORKSPACE = "bench"
PROMPT = "You are a patient assistant of a company that sells gardening tools. " * 8


async def prepare(folder: Path, count: int, upstream_port: int) -> str:
    """A database of `count` keys, and in it the workspace that is loaded; the text of its key."""
    await records.fill(folder, count)
    database = await Database.open(Location(data_dir=folder))
    async with database.change(SYSTEM) as change:
        await workspaces.create(change, WORKSPACE, WorkspaceDraft(name=WORKSPACE))
        draft = UpstreamDraft(name="up", base_url=f"http://127.0.0.1:{upstream_port}/v1", models=(MODEL,))
        await upstreams.create(change, WORKSPACE, draft)
        spec = AssistantSpec(model=(f"up/{MODEL}",), system_prompt=PROMPT, temperature=0.2)
        await assistants.create(change, WORKSPACE, AssistantDraft(name=ASSISTANT, spec=spec))
        _, text = await keys.create(change, WORKSPACE, KeyDraft(name="load"))
    await database.close()
    return text


def gateway(stack: ExitStack, folder: Path, environment: dict[str, str]) -> children.Server:
    """`sluicegate serve` with one worker, ready to answer."""
    port = children.free_port()
    command = [sys.executable, "-m", "sluicegate", "serve", "--port", str(port)]
    return stack.enter_context(
        children.running(command, port, "/readyz", folder / f"gateway-{port}.log", environment)
    )


def load(binary: Path, server: children.Server, key: str, model: str, seconds: float) -> float:
    """CPU of the gateway in microseconds a request."""
    command = [str(binary), "load", "--to", f"127.0.0.1:{server.port}", "--key", key, "--model", model]
    command += ["--connections", "16", "--warmup", "0.5", "--seconds", str(seconds)]
    command += ["--watch", str(server.process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    report = json.loads(done.stdout)
    if report["errors"]:
        raise children.BenchError(f"{model}: {report['errors']}")
    cost: float = report["process"]["cpu_us_per_request"]
    return cost


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.tenants", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--binary", type=Path, help="a built bench-upstream; left out, it is built")
    given = parser.parse_args()
    binary = given.binary or children.build()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        upstream = stack.enter_context(children.upstream(binary, folder))
        texts = {n: asyncio.run(prepare(folder / str(n), n, upstream.port)) for n in (10, given.keys)}
        base_url, own = f"http://127.0.0.1:{upstream.port}/v1", mint()
        plain = {"OPENAI_COMPATIBLE_BASE_URL": base_url, "SLUICEGATE_API_KEYS": own}
        servers = {0: gateway(stack, folder, {**plain, "XDG_DATA_HOME": str(folder / "none")})}
        for n in texts:
            given_dir = {"SLUICEGATE_DATA_DIR": str(folder / str(n))}
            servers[n] = gateway(
                stack, folder, {**given_dir, "SLUICEGATE_ALLOW_PRIVATE_NETWORKS": "127.0.0.1"}
            )
        cpu = {n: cpu_ms(server.process.pid) for n, server in servers.items()}
        runs = {
            "two variables, plain": (servers[0], own, MODEL),
            "10 keys, plain": (servers[10], texts[10], MODEL),
            f"{given.keys:,} keys, plain": (servers[given.keys], texts[given.keys], MODEL),
            f"{given.keys:,} keys, assistant": (servers[given.keys], texts[given.keys], ASSISTANT),
        }
        costs: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(given.rounds):
            # Who begins turns with each round.
            order = list(runs)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                server, key, model = runs[name]
                costs[name].append(load(binary, server, key, model, given.seconds))
        show({n: (server.start_ms, cpu[n]) for n, server in servers.items()}, costs)


def cpu_ms(pid: int) -> float:
    """CPU of a process and those below it so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = sum(map(int, fields[11:15])) * 1000 / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_ms(int(child)) for child in below)


def show(starts: dict[int, tuple[float, float]], costs: dict[str, list[float]]) -> None:
    """Two tables."""
    print("| keys | start to ready, ms | CPU of it, ms |\n|---|---|---|")
    for n, (milliseconds, cpu) in starts.items():
        print(f"| {n or 'no database'} | {milliseconds:,.0f} | {cpu:,.0f} |")
    print("\n| request | CPU, us, median of the rounds | least | times the first | times the second |")
    print("|---|---|---|---|---|")
    first, second = list(costs)[:2]
    for name, found in costs.items():
        # Compared round by round: what else the machine does changes from round to round.
        ratios = [
            statistics.median(mine / other for mine, other in zip(found, costs[base], strict=True))
            for base in (first, second)
        ]
        middle, least = statistics.median(found), min(found)
        print(f"| {name} | {middle:.1f} | {least:.1f} | {ratios[0]:.3f} | {ratios[1]:.3f} |")


if __name__ == "__main__":
    main()
