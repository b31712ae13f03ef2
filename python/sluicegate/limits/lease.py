"""A request whose limits several machines count together: what it holds, or why it is refused."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sluicegate.errors import Header
from sluicegate.limits.counted import Counted, level_headers

if TYPE_CHECKING:
    from sluicegate.engine import Admission
    from sluicegate.limits.admit import Scope

Reason = Literal["rate", "too_large", "concurrent", "budget", "full"]


class Wish(NamedTuple):
    """What a request asks for: whose limits, and how much."""

    scopes: "tuple[Scope, ...]"
    # Of each scope.
    rules: list[tuple[Counted, ...]]
    tokens: int
    micros: int

    @property
    def all_rules(self) -> list[Counted]:
        """Of all scopes, in order."""
        return [one for counted in self.rules for one in counted]


class Refused:
    """A request that holds nothing."""

    __slots__ = ("headers", "reason", "refused", "retry_after_ms")
    budget = None

    def __init__(
        self,
        refused: tuple[int, str],
        reason: Reason | None,
        retry_after_ms: int | None,
        headers: list[Header],
    ) -> None:
        """`refused`: the number of the scope, and the kind of its limit."""
        self.refused = refused
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.headers = headers

    def settle(self, tokens: int, micros: int) -> None:
        """Nothing was reserved."""


class Holding:
    """What a request that is under way holds."""

    __slots__ = ("alone", "at", "joined", "marks", "wish")

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        # What was owed to each rate after it, and when (microseconds of the server); None: not counted there.
        self.marks: list[float] | None = None
        self.at = 0
        # The name of this process under which places and budgets are held; "" where they are not.
        self.joined = ""
        # The same, or its places alone, in the share of this process.
        self.alone: Admission | None = None

    def held(self) -> Iterator[tuple[str, str, str, int]]:
        """Its places and what it has reserved of budgets: the code, the key, the period and the amount."""
        tokens, micros = self.wish.tokens, self.wish.micros
        for one in self.wish.all_rules:
            if one.code != "rate":
                yield one.code, one.key, one.every, one.amount(tokens, micros)

    def settled_rates(self, tokens: int, micros: int) -> list[list[Any]]:
        """What its rates have to be told at its end."""
        if self.marks is None:
            return []
        told = []
        for one, mark in zip(self.wish.all_rules, self.marks, strict=True):
            reserved, used = one.amount(self.wish.tokens, self.wish.micros), one.amount(tokens, micros)
            if one.code == "rate" and reserved != used:
                told.append(["rate", one.key, one.most, one.period, one.burst, reserved, used, mark, self.at])
        return told


class Lease:
    """An admitted request, to whoever answers it. One that is dropped is settled as it was reserved."""

    __slots__ = ("_end", "_holding", "budget", "headers")
    refused = None
    reason = None
    retry_after_ms = None

    def __init__(
        self,
        holding: Holding,
        headers: list[Header],
        budget: tuple[int, int] | None,
        end: Callable[[Holding, int, int], None],
    ) -> None:
        self._holding: Holding | None = holding
        self._end = end
        self.headers = headers
        self.budget = budget

    def settle(self, tokens: int, micros: int) -> None:
        """The answer has ended: what was used, instead of what was reserved. Later calls do nothing."""
        holding, self._holding = self._holding, None
        if holding is not None:
            self._end(holding, tokens, micros)

    def __del__(self) -> None:
        holding = getattr(self, "_holding", None)
        if holding is not None:
            self._end(holding, holding.wish.tokens, holding.wish.micros)


def refused_of(wish: Wish, answer: list[Any]) -> Refused:
    """The script's `[false, rule, reason, wait, owed]`."""
    _, number, reason, wait, owed = answer
    for index, counted in enumerate(wish.rules):
        if number < len(counted):
            one = counted[number]
            headers = level_headers([(one, owed)]) if one.code == "rate" else []
            wait_ms = -int(-wait // 1000) if reason == "rate" else None
            return Refused((index, one.kind), reason, wait_ms, headers)
        number -= len(counted)
    raise IndexError(number)


def levels_of(wish: Wish, levels: list[float]) -> tuple[list[Header], tuple[int, int] | None]:
    """Headers, and the budget that is used up furthest."""
    pairs = list(zip(wish.all_rules, levels, strict=True))
    furthest: tuple[int, int] | None = None
    for one, used in pairs:
        if one.code != "budget":
            continue
        if furthest is None or used * furthest[1] > furthest[0] * one.most:
            furthest = (int(used), one.most)
    return level_headers([(one, owed) for one, owed in pairs if one.code == "rate"]), furthest
