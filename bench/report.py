"""Renders outcomes as Markdown: host, versions, commands, tables of medians with their range, verdicts.

`python -m bench.report` renders again what is kept in bench/results, and exits as `make bench` would.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from bench.outcome import Outcome, load
from bench.verdict import SUITES, Limit, ThresholdError, Verdict, broken, judge, read_limits

BENCH = Path(__file__).parent
TIMES, DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
RESULTS = BENCH / "results"
# Figures of a scenario in the order of their columns: title, unit divisor, digits.
COLUMNS = {
    "cpu_us_per_request": ("CPU/request, µs", 1, 1),
    "cpu_us_per_chunk": ("CPU/chunk, µs", 1, 2),
    "requests_per_s": ("requests/s", 1, 0),
    "chunks_per_s": ("chunks/s", 1, 0),
    "latency_p50_us": ("latency p50, ms", 1000, 2),
    "latency_p99_us": ("p99, ms", 1000, 2),
    "first_p50_us": ("first chunk p50, ms", 1000, 2),
    "late_p50_us": ("late p50, ms", 1000, 2),
    "late_p99_us": ("late p99, ms", 1000, 2),
    "kib_per_stream": ("KiB/stream", 1, 1),
    "rss_peak_mib": ("peak RSS, MiB", 1, 0),
    "missing_streams": ("streams missing", 1, 0),
    "start_ms": ("start, ms", 1, 0),
}
# Beside a median, where there is an nginx to compare with.
RATIO_TO = "nginx"
RATIOS = ("cpu_us_per_request", "cpu_us_per_chunk", "kib_per_stream")
# The floor does the same work each time: if its own figure varies more than this, the machine was not quiet.
NOISY = 1.25


def render(outcomes: Sequence[Outcome], verdicts: Sequence[Verdict]) -> str:
    """The whole page."""
    lines = ["# Results", ""]
    lines += ["Written by `make bench`; do not edit. How to read it: [README.md](README.md).", ""]
    if any(outcome.quick for outcome in outcomes):
        lines += ["**A quick pass: short runs, for trying the bench. The figures mean little.**", ""]
    lines += ["## Goals", "", f"| goal | limit | measured (min{DASH}max) | |", "|---|---|---|---|"]
    lines += [goal_row(verdict) for verdict in verdicts]
    lines += ["", "Measured: the median over the rounds, each compared within its round.", ""]
    for outcome in outcomes:
        lines += suite_section(outcome)
    return "\n".join(lines).rstrip() + "\n"


def goal_row(verdict: Verdict) -> str:
    limit = verdict.limit
    if verdict.values:
        spread = "" if len(verdict.values) == 1 else f" ({low_high(limit, verdict.values)})"
        measured = short(limit, verdict.value) + spread
    else:
        measured = DASH
    state = {"held": "held", "broken": "**BROKEN**"}.get(verdict.state, verdict.state)
    if limit.aim is not None and verdict.values and verdict.state == "held":
        bound = limit.at_most is not None
        reached = verdict.value <= limit.aim if bound else verdict.value >= limit.aim
        state += ", aim reached" if reached else ", aim missed"
    why = f": {verdict.why}" if verdict.why else ""
    return f"| {limit.suite}, {limit.scenario}: {limit.goal} | {bounds(limit)} | {measured} | {state}{why} |"


def bounds(limit: Limit) -> str:
    sign, value = ("≤", limit.at_most) if limit.at_most is not None else ("≥", limit.at_least)
    text = f"{sign} {short(limit, value or 0.0)}"
    if limit.against:
        text += f" {TIMES if limit.compare == 'ratio' else 'more than'} {limit.against}"
    return text + (f", aim {short(limit, limit.aim)}" if limit.aim is not None else "")


def short(limit: Limit, value: float) -> str:
    if limit.compare == "ratio":
        return f"{value:.2f}"
    unit = "µs" if limit.figure.endswith("_us") else ""
    unit = "ms" if limit.figure.endswith("_ms") else unit
    return (
        f"{value:.0f} {unit}".strip()
        if abs(value) >= 100 or value == int(value)
        else f"{value:.1f} {unit}".strip()
    )


def low_high(limit: Limit, values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{short(limit, ordered[0])}{DASH}{short(limit, ordered[-1])}"


def suite_section(outcome: Outcome) -> list[str]:
    """Host, versions, and a table for each scenario."""
    title = {"peers": "Beside other gateways", "locust": "Locust: beside the upstream called directly"}
    lines = [f"## {title[outcome.suite]}", ""]
    lines += [f"`{outcome.command}`, {outcome.rounds} interleaved round{'s' * (outcome.rounds != 1)}.", ""]
    lines += ["| host | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in outcome.host.items()]
    lines += ["", "| measured | version | settings |", "|---|---|---|"]
    for name, behind in outcome.targets.items():
        what = f"**not measured**: {behind.absent}" if behind.absent else behind.settings
        lines.append(f"| {name} | {behind.version or DASH} | {what} |")
    for scenario, how in outcome.scenarios.items():
        lines += ["", f"### {scenario}", "", f"`{how}`" if how.startswith("load ") else how, ""]
        reason = outcome.skipped.get(scenario)
        lines += [f"**Not run**: {reason}."] if reason else scenario_table(outcome, scenario)
    return [*lines, ""]


def scenario_table(outcome: Outcome, scenario: str) -> list[str]:
    """A row for each target, a column for each figure that any of them has."""
    runs = [run for run in outcome.runs if run.scenario == scenario]
    names = [name for name in outcome.targets if any(run.target == name for run in runs)]
    columns = [figure for figure in COLUMNS if any(figure in run.figures for run in runs)]
    lines = ["| | " + " | ".join(COLUMNS[figure][0] for figure in columns) + " | errors |"]
    lines.append("|---|" + "---|" * (len(columns) + 1))
    for name in names:
        failed: dict[str, int] = {}
        for run in runs:
            if run.target == name:
                for what, count in run.errors.items():
                    failed[what] = failed.get(what, 0) + count
        cells = [cell(outcome, scenario, name, figure) for figure in columns]
        errors = ", ".join(f"{count} times {what}" for what, count in sorted(failed.items())) or "0"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {errors.replace('|', '/')} |")
    return lines + noise(outcome, scenario)


def cell(outcome: Outcome, scenario: str, target: str, figure: str) -> str:
    """Median, range, and the ratio to the floor where it says something."""
    _, divisor, digits = COLUMNS[figure]
    own = outcome.figures(scenario, target, figure)
    if not own:
        return DASH
    values = sorted(value / divisor for value in own.values())
    text = f"{median(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({values[0]:.{digits}f}{DASH}{values[-1]:.{digits}f})"
    floor = outcome.figures(scenario, RATIO_TO, figure)
    ratios = [own[number] / floor[number] for number in own if floor.get(number, 0) > 0]
    if figure in RATIOS and target != RATIO_TO and ratios:
        text += f", {median(ratios):.2f} {TIMES}"
    return text


def noise(outcome: Outcome, scenario: str) -> list[str]:
    """A warning where the floor itself was not steady."""
    for figure in ("cpu_us_per_chunk", "cpu_us_per_request"):
        values = outcome.figures(scenario, RATIO_TO, figure).values()
        if len(values) > 1 and min(values) > 0 and max(values) / min(values) > NOISY:
            share = round((max(values) / min(values) - 1) * 100)
            return ["", f"Noisy: {RATIO_TO}'s own figure varied by {share} % between rounds."]
    return []


def write(folder: Path, page: Path, prefix: str = "") -> int:
    """Renders what is kept in the folder; 1 if a limit is broken, 2 if nothing can be judged."""
    outcomes = [load(path) for suite in SUITES if (path := folder / f"{prefix}{suite}.json").exists()]
    if not outcomes:
        print(f"nothing to render in {folder}", file=sys.stderr)
        return 2
    limits = read_limits()
    verdicts = [verdict for outcome in outcomes for verdict in judge(outcome, limits)]
    page.write_text(render(outcomes, verdicts))
    print(f"wrote {page}")
    for verdict in verdicts:
        limit = verdict.limit
        value = short(limit, verdict.value) if verdict.values else DASH
        what = f"{limit.suite}/{limit.scenario}  {limit.goal}: {value}  {verdict.why}"
        print(f"{verdict.state:12}  {what}".rstrip())
    return 1 if broken(verdicts) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--page", type=Path, default=BENCH / "RESULTS.md", help="the Markdown file to write")
    given = parser.parse_args()
    try:
        return write(given.results, given.page)
    except (ThresholdError, ValueError, TypeError, KeyError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
