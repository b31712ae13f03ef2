"""Limits and budgets, as an operator writes them."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["BUDGETS", "MICROS", "NO_BUDGET", "NO_LIMITS", "Budget", "Limits", "Rule", "Subject", "rules_of"]

# Of a dollar: money is counted in whole millionths.
MICROS = 1_000_000

Requests = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
Places = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000_000)]
Spendable = Annotated[int, Meta(ge=0, le=1 << 50)]
Percent = Annotated[int, Meta(ge=1, le=100)]

# Whose limits they are.
Subject = Literal["workspace", "key", "assistant", "upstream"]
# Kind, the most, and the burst of a rate: what the core's LimitRules take.
Rule = tuple[str, int, int | None]


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much at a time. None: no limit of this kind."""

    requests_per_minute: Requests | None = None
    requests_per_day: Requests | None = None
    tokens_per_minute: Tokens | None = None
    tokens_per_day: Tokens | None = None
    concurrent_requests: Places | None = None
    # Of the request's body.
    request_bytes: Bytes | None = None
    # At once, after a quiet time. None: as much as in a minute; of a limit per day, as much as in a day.
    request_burst: Requests | None = None
    token_burst: Tokens | None = None

    @property
    def largest_demand(self) -> int | None:
        """Tokens beyond which a request could never be admitted."""
        bursts = [self.tokens_per_day]
        if self.tokens_per_minute is not None:
            bursts.append(self.token_burst or self.tokens_per_minute)
        return min((burst for burst in bursts if burst is not None), default=None)


class Budget(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much in all: money and tokens of a calendar period in UTC. None: no budget; 0: nothing at all."""

    usd_per_day: Dollars | None = None
    usd_per_week: Dollars | None = None
    usd_per_month: Dollars | None = None
    usd_total: Dollars | None = None
    tokens_per_day: Spendable | None = None
    tokens_per_week: Spendable | None = None
    tokens_per_month: Spendable | None = None
    tokens_total: Spendable | None = None
    # From this share on answers carry a warning.
    warn_percent: Percent = 80


NO_LIMITS = Limits()
NO_BUDGET = Budget()

_MONEY = ("usd_per_day", "usd_per_week", "usd_per_month", "usd_total")
_TOKENS = ("tokens_per_day", "tokens_per_week", "tokens_per_month", "tokens_total")


# The kinds of budgets, as rules have them.
BUDGETS = (*_MONEY, *(f"budget_{kind}" for kind in _TOKENS))


def rules_of(limits: Limits, budget: Budget = NO_BUDGET) -> list[Rule]:
    """What the core counts for them, cheapest first."""
    rules: list[Rule] = []
    if limits.concurrent_requests is not None:
        rules.append(("concurrent_requests", limits.concurrent_requests, None))
    for kind, most, burst in (
        ("requests_per_minute", limits.requests_per_minute, limits.request_burst),
        ("requests_per_day", limits.requests_per_day, None),
        ("tokens_per_minute", limits.tokens_per_minute, limits.token_burst),
        ("tokens_per_day", limits.tokens_per_day, None),
    ):
        if most is not None:
            rules.append((kind, most, burst))
    for kind in _MONEY:
        dollars: float | None = getattr(budget, kind)
        if dollars is not None:
            rules.append((kind, round(dollars * MICROS), None))
    for kind in _TOKENS:
        tokens: int | None = getattr(budget, kind)
        if tokens is not None:
            rules.append((f"budget_{kind}", tokens, None))
    return rules
