"""Choose the next upstream for a request, and decide whether another try is affordable."""

import random
from collections.abc import Sequence

from sluicegate import errors
from sluicegate.clock import monotonic
from sluicegate.upstreams.model import Candidate, Steps

# A fifth of the requests plus ten a second may be second tries: enough for one broken server of several,
# too little to double the load on all of them when all are down.
RETRY_SHARE = 0.2
RETRIES_PER_SECOND = 10.0
_LARGEST_BUDGET = 100.0


class RetryBudget:
    """A bucket of retries, filled by requests and by time."""

    __slots__ = ("_at", "_tokens")

    def __init__(self) -> None:
        self._tokens = RETRIES_PER_SECOND
        self._at = monotonic()

    def deposit(self) -> None:
        """A request came in. No clock here: this is on the path of every request."""
        if self._tokens < _LARGEST_BUDGET:
            self._tokens += RETRY_SHARE

    def withdraw(self, now: float | None = None) -> bool:
        """Take one retry, if there is one."""
        now = monotonic() if now is None else now
        self._tokens = min(self._tokens + (now - self._at) * RETRIES_PER_SECOND, _LARGEST_BUDGET)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def select(steps: Steps) -> Candidate:
    """The candidate to ask first: of the first step, by weight.

    Rate-limited ones are never asked early: if that leaves nobody, it is a 429 with the shortest wait.
    An open breaker only gives way to others, also of a later step: a guess about a server never refuses a
    request.
    """
    only = steps[0]
    if len(only) == 1 and only[0][0].health.is_spotless:
        return only[0]
    chosen = select_other(steps, ())
    if chosen is None:
        raise errors.rate_limited(
            shortest_wait_ms(steps) or 1,
            "Every upstream of this model is rate limited. Wait as Retry-After says, then try again.",
        )
    return chosen


def select_other(steps: Steps, tried: Sequence[Candidate]) -> Candidate | None:
    """The next one after failures; None when nobody is left that may be asked."""
    now = monotonic()
    doubtful: Sequence[Candidate] = ()
    for step in steps:
        ready = [c for c in step if c not in tried and not c[0].health.limited_for(c[1], now)]
        healthy = [c for c in ready if not c[0].health.is_open(now)]
        if healthy:
            return _weighted(healthy)
        doubtful = doubtful or ready
    return _weighted(doubtful) if doubtful else None


def shortest_wait_ms(steps: Steps) -> int | None:
    """Milliseconds until the first of them may be asked again; None when one may be asked now."""
    now = monotonic()
    waits = [upstream.health.limited_for(model, now) for step in steps for upstream, model in step]
    return int(min(waits) * 1000) + 1 if all(waits) else None


def _weighted(candidates: Sequence[Candidate]) -> Candidate:
    if len(candidates) == 1:
        return candidates[0]
    weights = [upstream.config.weight for upstream, _ in candidates]
    if not any(weights):
        return candidates[0]
    # Not a secret, only a share of the load.
    return random.choices(candidates, weights)[0]  # noqa: S311
