"""The scenarios of the comparison: what the load generator is told, and which figures come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Scenario:
    """One way to load a gateway."""

    name: str
    model: str
    stream: bool
    connections: int
    ramp: float
    warmup: float
    seconds: float
    fresh: bool = False
    """Each run gets a process of its own, because memory is compared with that before the run."""
    only: tuple[str, ...] = ()
    """Targets, where not all take part."""
    without: tuple[str, ...] = ()
    """Targets that do not take part."""
    at_most_rounds: int = 100
    """For what differs little between rounds, and takes long."""

    def arguments(self) -> list[str]:
        """For `bench-upstream load`."""
        return [
            *("--model", self.model, "--connections", str(self.connections)),
            *("--ramp", str(self.ramp), "--warmup", str(self.warmup), "--seconds", str(self.seconds)),
            *(["--stream"] if self.stream else []),
        ]

    def includes(self, target: str) -> bool:
        """Whether this target takes part."""
        return target not in self.without and (not self.only or target in self.only)

    @property
    def length(self) -> float:
        return self.ramp + self.warmup + self.seconds

    @property
    def open_files(self) -> int:
        """What a gateway needs: both sides of each connection, and some of its own."""
        return 2 * self.connections + 300


# That it logs nothing is told by two scenarios as well as by four.
QUIET = ("sglang-router-quiet",)
# What an assistant costs, one kind of request tells: it is done before the answer begins.
ASSISTANT = ("sluicegate-assistant",)
FULL = (
    Scenario("plain", "bench-n20-b40", False, 16, 0.0, 0.5, 3.5),
    # Twenty chunks at once, as fast as they can be had.
    Scenario("short", "bench-n20-b40", True, 16, 0.0, 0.5, 3.5, without=(*QUIET, *ASSISTANT)),
    # One second long each: the cost of a request is part of that of its 100 chunks.
    Scenario("stream20", "bench-n100-d10-t50-b40", True, 20, 0.5, 0.5, 5.0, without=(*QUIET, *ASSISTANT)),
    Scenario("stream200", "bench-n100-d10-t50-b40", True, 200, 0.5, 0.5, 4.0, without=ASSISTANT),
    # A chunk every two seconds: the streams are open, the machine is not busy.
    Scenario(
        "open5000",
        "bench-n100000-d2000-t0-b40",
        True,
        5000,
        8.0,
        1.0,
        3.0,
        fresh=True,
        only=("nginx", "sluicegate"),
        at_most_rounds=2,
    ),
)
QUICK = tuple(
    replace(
        scenario,
        connections=min(scenario.connections, 2000),
        ramp=min(scenario.ramp, 5.0),
        warmup=0.5,
        seconds=2.0,
    )
    for scenario in FULL
)


def figures(scenario: Scenario, report: Mapping[str, Any]) -> dict[str, float]:
    """The load generator's line, flat; what a scenario has not, it leaves out."""
    found = dict(named(scenario, report))
    return {name: float(value) for name, value in found.items() if value is not None}


def named(scenario: Scenario, report: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    process = report.get("process")
    if not scenario.fresh:
        yield "requests_per_s", report["requests_per_s"]
        yield "latency_p50_us", report["latency_us"]["p50"]
        yield "latency_p99_us", report["latency_us"]["p99"]
        yield "first_p50_us", report["first_us"]["p50"]
    if scenario.stream:
        yield "chunks_per_s", report["chunks_per_s"]
        yield "late_p50_us", report["late_us"]["p50"]
        yield "late_p99_us", report["late_us"]["p99"]
    if scenario.fresh:
        yield "missing_streams", scenario.connections - report["open_streams"]
    if process is None:
        return
    yield "rss_peak_mib", round(process["rss_peak_kib"] / 1024, 1)
    if scenario.fresh:
        more = process["rss_peak_kib"] - process["rss_begin_kib"]
        yield "kib_per_stream", round(more / scenario.connections, 2)
        return
    yield "cpu_us_per_request", process["cpu_us_per_request"]
    if scenario.stream:
        yield "cpu_us_per_chunk", process["cpu_us_per_chunk"]
