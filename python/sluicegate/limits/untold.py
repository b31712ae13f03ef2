"""What a process has to tell where several machines count: what has ended, and what was spent unheard."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from sluicegate.limits.lease import Holding

Op = list[Any]
Charge = list[Any]


class Untold:
    """Nothing counts twice: the script knows whether a round that had no answer was done."""

    def __init__(self) -> None:
        # Safe in threads, at both ends.
        self._ops: deque[Op] = deque()
        # Spent while there was no connection, by key and period.
        self._owed: dict[tuple[str, str], int] = {}
        # Names of this process that have not been given up.
        self._before: list[str] = []
        # Charges that count unless one of these rounds was done: (name, number).
        self._unsure: list[tuple[list[tuple[str, int]], list[Charge]]] = []

    def __bool__(self) -> bool:
        return bool(self._ops)

    def add(self, *ops: Op) -> None:
        """To be told next."""
        self._ops.extend(ops)

    def take(self, most: int) -> list[Op]:
        """The oldest ones, to be told now."""
        return [self._ops.popleft() for _ in range(min(len(self._ops), most))]

    def owe(self, key: str, every: str, spent: int) -> None:
        """Spent, to be told when this process joins."""
        self._owed[key, every] = self._owed.get((key, every), 0) + spent

    def unsent(self, ops: Iterable[Op] = ()) -> None:
        """These and all that wait go with the next joining: what is held is told anew, spending is owed."""
        everything = [*ops, *self._ops]
        self._ops.clear()
        for op in everything:
            if op[0] == "budget":
                self.owe(op[1], op[2], op[4])
            elif op[0] != "place":
                self._ops.append(op)

    def unanswered(self, name: str, number: int, ops: Iterable[Op]) -> None:
        """A round that was done or was not. What budgets have read of the records can be told twice."""
        charges = [[op[1], op[2], op[4]] for op in ops if op[0] == "budget" and op[4]]
        self._unsure.append(([(name, number)], charges))
        self._ops.extend(op for op in ops if op[0] == "seed")
        self.unsent()
        self._before.append(name)

    def forgotten(self, name: str, ops: Iterable[Op]) -> None:
        """A round that was not done, because nobody knew the name."""
        self.unsent(ops)
        self._before.append(name)

    def news(self, open_ones: Iterable[Holding]) -> dict[str, Any]:
        """What joining tells. What is owed from here on is not in it."""
        spent = [[key, every, amount] for (key, every), amount in self._owed.items() if amount]
        self._owed = {}
        return {"unsure": self._unsure, "before": self._before, "spent": spent, "holds": _holds(open_ones)}

    def not_joined(self, name: str, news: dict[str, Any]) -> None:
        """No answer to it. Perhaps it was done: then what it told counts already."""
        for rounds, _ in self._unsure:
            rounds.append((name, 1))
        self._unsure.append(([(name, 1)], news["spent"]))
        self._before.append(name)

    def joined(self) -> None:
        """All of it is told, but for what came meanwhile."""
        self._before, self._unsure = [], []
        late, self._owed = self._owed, {}
        self._ops.extend(["budget", key, every, 0, amount] for (key, every), amount in late.items())


def _holds(open_ones: Iterable[Holding]) -> list[list[Any]]:
    """What they hold together, by key."""
    found: dict[tuple[str, str], int] = {}
    for holding in open_ones:
        for _, key, every, amount in holding.held():
            found[key, every] = found.get((key, every), 0) + amount
    return [[key, every, amount] for (key, every), amount in found.items()]
