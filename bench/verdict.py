"""The limits of thresholds.toml, and whether an outcome keeps them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.outcome import Outcome

SUBJECT = "sluicegate"
THRESHOLDS = Path(__file__).with_name("thresholds.toml")
SUITES = ("peers", "locust")

State = Literal["held", "broken", "not measured"]


class ThresholdError(Exception):
    """thresholds.toml says something that cannot be meant."""


@dataclass(frozen=True)
class Limit:
    """One line that the gateway has to keep in one scenario."""

    suite: str
    scenario: str
    figure: str
    goal: str
    against: str = ""
    """The target that it is compared with; empty: the figure itself is limited."""
    compare: Literal["ratio", "difference", "value"] = "ratio"
    at_most: float | None = None
    at_least: float | None = None
    aim: float | None = None

    def __post_init__(self) -> None:
        where = f"{self.suite}/{self.scenario}/{self.figure}"
        if self.suite not in SUITES:
            raise ThresholdError(f"{where}: suite must be one of {', '.join(SUITES)}")
        if (self.at_most is None) == (self.at_least is None):
            raise ThresholdError(f"{where}: give either at_most or at_least")
        if self.compare not in ("ratio", "difference", "value"):
            raise ThresholdError(f"{where}: compare must be ratio, difference or value")
        if (self.compare == "value") == bool(self.against):
            raise ThresholdError(f"{where}: `against` belongs to ratio and difference, and only to them")

    def kept_by(self, value: float) -> bool:
        """Whether this value is within."""
        if self.at_most is not None:
            return value <= self.at_most
        return self.at_least is not None and value >= self.at_least


@dataclass(frozen=True)
class Verdict:
    """What became of one limit; `values` are those of the rounds."""

    limit: Limit
    state: State
    values: tuple[float, ...] = ()
    why: str = ""

    @property
    def value(self) -> float:
        return median(self.values)


def read_limits(path: Path = THRESHOLDS) -> tuple[Limit, ...]:
    """All limits of the file; a key that nobody knows is an error."""
    known = {field.name for field in fields(Limit)}
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text()).get("limit", [])
    for number, entry in enumerate(entries, 1):
        if unknown := set(entry) - known:
            raise ThresholdError(f"limit {number}: unknown key {', '.join(sorted(unknown))}")
        if missing := {"suite", "scenario", "figure", "goal"} - set(entry):
            raise ThresholdError(f"limit {number}: {', '.join(sorted(missing))} is missing")
    if not entries:
        raise ThresholdError(f"{path} holds no limit")
    return tuple(Limit(**entry) for entry in entries)


def judge(outcome: Outcome, limits: Iterable[Limit]) -> list[Verdict]:
    """A verdict for each limit of this suite, and one for the gateway's failed requests."""
    own = [limit for limit in limits if limit.suite == outcome.suite]
    return [*(verdict_of(outcome, limit) for limit in own), failed_requests(outcome)]


def broken(verdicts: Iterable[Verdict]) -> bool:
    """Whether the run as a whole failed."""
    return any(verdict.state == "broken" for verdict in verdicts)


def verdict_of(outcome: Outcome, limit: Limit) -> Verdict:
    """The median over the rounds of ratio, difference or value decides."""
    if reason := outcome.skipped.get(limit.scenario):
        return Verdict(limit, "not measured", why=reason)
    values = tuple(compared(outcome, limit))
    if values:
        return Verdict(limit, "held" if limit.kept_by(median(values)) else "broken", values)
    # A peer that is not there breaks nothing. The gateway's own figures must be there.
    if not outcome.figures(limit.scenario, SUBJECT, limit.figure):
        return Verdict(limit, "broken", why=f"no figures of {SUBJECT}")
    behind = outcome.targets.get(limit.against)
    return Verdict(limit, "not measured", why=(behind and behind.absent) or f"no figures of {limit.against}")


def compared(outcome: Outcome, limit: Limit) -> Iterator[float]:
    """Round by round: neighbours in time are compared, so a slow drift of the machine cancels out."""
    own = outcome.figures(limit.scenario, SUBJECT, limit.figure)
    if limit.compare == "value":
        yield from own.values()
        return
    other = outcome.figures(limit.scenario, limit.against, limit.figure)
    for number in sorted(own.keys() & other.keys()):
        if limit.compare == "difference":
            yield own[number] - other[number]
        elif other[number] > 0:
            yield own[number] / other[number]


def failed_requests(outcome: Outcome) -> Verdict:
    """Speed with failed requests is no speed: every failure of the gateway breaks the run."""
    limit = Limit(outcome.suite, "all", "errors", "no failed request", compare="value", at_most=0)
    failed = [
        f"{run.scenario}: {count} times {what}"
        for run in outcome.runs
        if run.target == SUBJECT
        for what, count in run.errors.items()
    ]
    total = sum(sum(run.errors.values()) for run in outcome.runs if run.target == SUBJECT)
    return Verdict(limit, "broken" if failed else "held", (float(total),), "; ".join(failed))
