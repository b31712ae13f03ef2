"""What a suite hands on: runs with their figures, and what stood behind each name. Kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One target in one scenario in one round."""

    scenario: str
    target: str
    round: int
    figures: Mapping[str, float]
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Behind:
    """What a target's name stands for; `absent` says why it was not measured."""

    version: str = ""
    settings: str = ""
    absent: str = ""


@dataclass(frozen=True)
class Outcome:
    """All that one suite measured."""

    suite: str
    quick: bool
    rounds: int
    command: str
    host: Mapping[str, str]
    targets: Mapping[str, Behind]
    scenarios: Mapping[str, str]
    """Name → how it is made."""
    skipped: Mapping[str, str]
    """Scenario → why it was not run."""
    runs: tuple[Run, ...]

    def figures(self, scenario: str, target: str, name: str) -> dict[int, float]:
        """Round → figure."""
        return {
            run.round: run.figures[name]
            for run in self.runs
            if (run.scenario, run.target) == (scenario, target) and name in run.figures
        }


def save(outcome: Outcome, path: Path) -> None:
    """Writes one file, readable and stable under version control."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(outcome), indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> Outcome:
    """Reads what `save` wrote."""
    data: dict[str, Any] = json.loads(path.read_text())
    data["targets"] = {name: Behind(**behind) for name, behind in data["targets"].items()}
    data["runs"] = tuple(Run(**run) for run in data["runs"])
    return Outcome(**data)
