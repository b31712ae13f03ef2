"""Limits as `storage/limits.lua` counts them: what it is asked, and what its answers mean."""

from typing import Any, NamedTuple

from sluicegate.engine import rate_headers
from sluicegate.errors import Header
from sluicegate.limits.model import Budget, Limits, Rule, Subject, rules_of

_MINUTE_US = 60_000_000
_DAY_US = 1440 * _MINUTE_US
# Lua counts in doubles: beyond it they are not whole. No request uses so much.
_MOST = 1 << 53
# Refusals name kinds as `limits/model.py` does; of the core these are those of rates.
_UNITS = {"requests_per_minute": "requests", "requests_per_day": "requests"}


class Counted(NamedTuple):
    """One limit: its key in Redis, and what the script has to know of it."""

    code: str  # "rate", "place", "budget"
    key: str
    kind: str
    # "requests", "tokens" or "micros".
    unit: str
    most: int
    # Of a rate.
    burst: int = 0
    period: int = 0
    # Of a budget: "day", "week", "month" or "total".
    every: str = ""

    def amount(self, tokens: int, micros: int) -> int:
        """How much of it a request takes."""
        if self.unit == "tokens":
            return min(tokens, _MOST)
        return min(micros, _MOST) if self.unit == "micros" else 1

    def asked(self, tokens: int, micros: int) -> list[Any]:
        """As `admit` of the script reads it."""
        amount = self.amount(tokens, micros)
        if self.code == "rate":
            return ["rate", self.key, amount, self.most, self.burst, self.period]
        if self.code == "place":
            return ["place", self.key, self.most]
        return ["budget", self.key, amount, self.most, self.every]


def counted(subject: Subject, id: str, limits: Limits, budget: Budget) -> tuple[Counted, ...]:
    """All limits of one object, in the order of `rules_of`."""
    return tuple(_counted(f"sluicegate:{subject}:{id}:{rule[0]}", rule) for rule in rules_of(limits, budget))


def _counted(key: str, rule: Rule) -> Counted:
    kind, most, burst = rule
    if kind == "concurrent_requests":
        return Counted("place", key, kind, "requests", most)
    if kind.startswith(("usd", "budget")):
        unit = "micros" if kind.startswith("usd") else "tokens"
        return Counted("budget", key, kind, unit, most, every=kind.rpartition("_")[2])
    period = _MINUTE_US if kind.endswith("minute") else _DAY_US
    unit = _UNITS.get(kind, "tokens")
    return Counted("rate", key, kind, unit, most, burst or most, period)


def spent_key(subject: Subject, id: str, kind: str) -> str:
    """The key of a budget."""
    return f"sluicegate:{subject}:{id}:{kind}"


def level_headers(rates: list[tuple[Counted, float]]) -> list[Header]:
    """`x-ratelimit-*` of the rates with the least left; with each rate comes what is owed to it."""
    return rate_headers([(one.unit, one.most, one.burst, one.period, owed) for one, owed in rates])
