"""Limits while the other machines cannot be asked: each process counts one share of every limit."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sluicegate.engine import Admission, LimitRules, LimitSets
from sluicegate.errors import Header
from sluicegate.limits.admit import Counting, Scope
from sluicegate.limits.counted import Counted
from sluicegate.limits.model import Rule

# On answers and refusals that were decided so.
COUNTED_ALONE: Header = (b"x-limits-counted", b"alone")
_MOST_KNOWN = 10_000


class _Share(NamedTuple):
    """The rules of a scope: rates and places last over outages, of budgets there is what was left."""

    lasting: LimitRules
    places: LimitRules | None
    budgets: LimitRules | None

    @property
    def rules(self) -> list[LimitRules]:
        return [self.lasting] if self.budgets is None else [self.lasting, self.budgets]


class Alone:
    """The shares of one process."""

    def __init__(self, make: Callable[[int], Counting], processes: int) -> None:
        """`make`: limits of this process, each one share of so many; `processes`: until more is known."""
        self._make = make
        self._processes = processes
        self._counting = make(processes)
        # What budgets stood at when they were heard of last, by their keys.
        self._used: dict[str, int] = {}
        self._shares: dict[LimitRules, _Share] = {}
        self._outage = 0

    @property
    def processes(self) -> int:
        """Into how many shares the limits are divided."""
        return self._processes

    def begin(self, processes: int) -> None:
        """An outage begins; so many processes counted together at last, 0 where nobody knows."""
        self._outage += 1
        self._shares.clear()
        if processes and processes != self._processes:
            self._processes = processes
            self._counting = self._make(processes)

    def note_used(self, key: str, used: int) -> None:
        """What a budget stands at."""
        if len(self._used) >= _MOST_KNOWN:
            self._used.clear()
        self._used[key] = used

    def learn(self, key: str, spent: int) -> None:
        """What the records say of a budget that nothing was heard of."""
        if key not in self._used:
            self.note_used(key, spent)
            self._shares.clear()

    def unknown(self, rules: Iterable[Counted]) -> bool:
        """Whether a budget is among them that nothing is known of."""
        return any(one.code == "budget" and one.key not in self._used for one in rules)

    def admit(
        self, scopes: tuple[Scope, ...], rules: "list[tuple[Counted, ...]]", tokens: int, micros: int
    ) -> tuple[Admission, int]:
        """The admission, and of a refused one the number of the scope that refuses."""
        sets: list[LimitRules] = []
        numbers: list[int] = []
        for number, (scope, counted) in enumerate(zip(scopes, rules, strict=True)):
            found = self._share(scope, counted).rules
            sets += found
            numbers += [number] * len(found)
        admission = self._counting.admit(LimitSets(sets), tokens, micros)
        return admission, 0 if admission.refused is None else numbers[admission.refused[0]]

    def hold_places(self, scopes: tuple[Scope, ...], rules: "list[tuple[Counted, ...]]") -> Admission | None:
        """What began before the outage takes places of the share too, as far as there are some."""
        shares = [self._share(scope, counted) for scope, counted in zip(scopes, rules, strict=True)]
        sets = [share.places for share in shares if share.places is not None]
        if not sets:
            return None
        admission = self._counting.admit(LimitSets(sets), 0, 0)
        return admission if admission.refused is None else None

    def _share(self, scope: Scope, counted: tuple[Counted, ...]) -> _Share:
        found = self._shares.get(scope.rules)
        if found is None:
            if len(self._shares) >= _MOST_KNOWN:
                self._shares.clear()
            found = self._shares[scope.rules] = self._made(scope, counted)
        return found

    def _made(self, scope: Scope, counted: tuple[Counted, ...]) -> _Share:
        owner = f"{scope.subject}:{scope.id}"
        lasting: list[Rule] = [
            (one.kind, one.most, one.burst or None) for one in counted if one.code != "budget"
        ]
        places: list[Rule] = [(one.kind, one.most, None) for one in counted if one.code == "place"]
        budgets: list[Rule] = [
            (one.kind, max(one.most - self._used.get(one.key, 0), 0), None)
            for one in counted
            if one.code == "budget"
        ]
        return _Share(
            LimitRules(owner, lasting),
            LimitRules(owner, places) if places else None,
            LimitRules(f"{owner}:{self._outage}", budgets) if budgets else None,
        )
