"""Builds the bench crate, runs both suites, writes bench/RESULTS.md; exits 1 if a limit is broken."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import children, outcome, report
from bench.locust import run as locust
from bench.peers import run as peers
from bench.progress import to_stderr
from bench.verdict import SUITES, ThresholdError, read_limits


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a short pass, about two minutes; keeps no results"
    )
    parser.add_argument("--only", choices=SUITES, help="one suite; the other's results stay as they are")
    parser.add_argument("--rounds", type=int, help="rounds of the peers suite (3; 1 with --quick)")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    rounds = given.rounds or (1 if given.quick else 3)
    prefix = "quick-" if given.quick else ""
    page = report.RESULTS / "quick-RESULTS.md" if given.quick else report.BENCH / "RESULTS.md"
    try:
        read_limits()
        to_stderr("Building the upstream and the load generator (a minute the first time).")
        binary = children.build()
        if given.only != "locust":
            # First, because its figures are the finer ones.
            found = peers.measure(binary, quick=given.quick, rounds=rounds)
            keep(found, prefix)
        if given.only != "peers":
            keep(locust.measure(binary, quick=given.quick), prefix)
        return report.write(report.RESULTS, page, prefix)
    except (children.BenchError, ThresholdError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def keep(found: outcome.Outcome, prefix: str) -> Path:
    path = report.RESULTS / f"{prefix}{found.suite}.json"
    outcome.save(found, path)
    return path


if __name__ == "__main__":
    raise SystemExit(main())
