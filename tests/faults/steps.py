"""What a scenario is made of: steps that the fault upstream takes one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from faults.content import Asked


class End(Enum):
    """How a scenario ends its connection."""

    CLOSE = "close"
    RESET = "reset"


CLOSE, RESET = End
# Longer than any limit of a test: the scenario ends when the peer leaves.
FOREVER = 3600.0
Step = bytes | float | int | End
Steps = Iterator[Step]


@dataclass(frozen=True)
class World:
    """What a scenario may know besides the request."""

    rng: random.Random
    ports: Mapping[str, int]


Scenario = Callable[[Asked, World], Steps]
BY_NAME: dict[str, Scenario] = {}
# Scenarios that begin before the request's body has arrived.
EARLY: set[str] = set()


def fault(*names: str, early: bool = False) -> Callable[[Scenario], Scenario]:
    """Register a scenario under these model names."""

    def register(scenario: Scenario) -> Scenario:
        for name in names:
            assert name not in BY_NAME, f"two scenarios are called {name}"
            BY_NAME[name] = scenario
        if early:
            EARLY.update(names)
        return scenario

    return register
