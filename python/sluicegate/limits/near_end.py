"""Says that a budget comes to its end, to whoever reads the log."""

from sluicegate.clock import wall_seconds
from sluicegate.limits.admit import Scope
from sluicegate.telemetry.logs import Log


class BudgetWarnings:
    """Once an hour for each budget: its owner may want to act before it ends."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._warned: dict[object, int] = {}

    def __call__(self, scope: Scope, percent: int) -> None:
        """So much of it is spent."""
        hour = wall_seconds() // 3600
        if self._warned.get(scope.rules) != hour:
            self._warned = {rules: at for rules, at in self._warned.items() if at == hour}
            self._warned[scope.rules] = hour
            self._log.warning("budget_near_its_end", of=scope.subject, name=scope.name, percent=percent)
