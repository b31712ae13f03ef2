"""What metrics, phases and traces cost: CPU of a plain request with them and without, in turns.

`python -m bench.telemetry [--rounds N] [--seconds S] [--binary PATH] [--traces] [--before FOLDER]` starts
gateways of one worker: with `metrics = false`, with metrics, and with traces to a collector that throws them
away. `--before` names the `python` folder of another checkout with a built module in it, such as of the
commit before: the clock is read also without metrics. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench import children
from bench.tenants import MODEL, load
from sluicegate.keys.model import mint


def settings(key: str, port: int, *, metrics: bool | None) -> str:
    """A settings file without limits; `metrics`: None where the gateway does not know the word."""
    server = "" if metrics is None else f"[server]\nmetrics = {str(metrics).lower()}\n"
    return (
        f'{server}[[keys]]\nname = "load"\nkey = "{key}"\n'
        f'[[upstreams]]\nname = "up"\nbase_url = "http://127.0.0.1:{port}/v1"\nmodels = ["{MODEL}"]\n'
    )


def gateway(stack: ExitStack, folder: Path, text: str, environment: dict[str, str]) -> children.Server:
    """`sluicegate serve` with one worker, ready to answer."""
    folder.mkdir()
    (folder / "sluicegate.toml").write_text(text)
    port = children.free_port()
    command = [sys.executable, "-m", "sluicegate", "serve", "--port", str(port)]
    command += ["--config", str(folder / "sluicegate.toml")]
    log = folder / "gateway.log"
    return stack.enter_context(children.running(command, port, "/readyz", log, environment))


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Spans, which go nowhere."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def collector() -> Iterator[int]:
    """The port of a collector in this process, whose CPU is not counted."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Taking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--binary", type=Path, help="a built bench-upstream; left out, it is built")
    parser.add_argument("--before", type=Path, help="the `python` folder of another checkout")
    parser.add_argument("--traces", action="store_true", help="with traces too")
    given = parser.parse_args()
    binary = given.binary or children.build()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        upstream, key = stack.enter_context(children.upstream(binary, folder)), mint()
        runs: dict[str, tuple[bool | None, dict[str, str]]] = {}
        if given.before is not None:
            runs["the other checkout"] = (None, {"PYTHONPATH": str(given.before)})
        runs["without metrics"] = (False, {})
        runs["with metrics"] = (True, {})
        if given.traces:
            endpoint = f"http://127.0.0.1:{stack.enter_context(collector())}"
            runs["with metrics and traces"] = (True, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
            sampled = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
            runs["the same, 1 of 100 sampled"] = (True, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **sampled})
        servers = {}
        for number, (name, (metrics, environment)) in enumerate(runs.items()):
            place = folder / str(number)
            text = settings(key, upstream.port, metrics=metrics)
            servers[name] = gateway(stack, place, text, {"XDG_DATA_HOME": str(place / "none"), **environment})
        costs: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(given.rounds):
            # Who begins turns with each round.
            order = list(runs)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                costs[name].append(load(binary, servers[name], key, MODEL, given.seconds))
    first = next(iter(costs))
    print(f"| with | CPU, us a request, median of the rounds | least | more than {first}, median |")
    print("|---|---|---|---|")
    for name, found in costs.items():
        more = statistics.median(a - b for a, b in zip(found, costs[first], strict=True))
        print(f"| {name} | {statistics.median(found):.1f} | {min(found):.1f} | {more:.1f} |")


if __name__ == "__main__":
    main()
