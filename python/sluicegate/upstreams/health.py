"""How one upstream is doing, judged by the answers that pass anyway: a breaker and rate-limit penalties."""

from sluicegate.clock import monotonic

# Five in a row: one broken connection or one bad answer says nothing about a server.
FAILURES_TO_OPEN = 5
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 60.0
# The core cuts Retry-After at 120 s; this is only the net below.
LONGEST_PENALTY = 120.0
_MOST_PENALTIES = 1024
# Causes with which a server answers nothing else either. A missing list of models says nothing.
OUT = frozenset(
    {
        "upstream_connect_error",
        "upstream_dns_error",
        "upstream_address_forbidden",
        "upstream_tls_error",
        "upstream_timeout",
        "upstream_auth_error",
    }
)


class Health:
    """The changing part of an upstream, in one worker."""

    __slots__ = ("_failures", "_limited", "_open_until", "_pause", "_reported")

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0
        # The last question for its models found nobody there.
        self._reported = False
        # By upstream model: providers limit each model on its own.
        self._limited: dict[str, float] = {}

    def succeeded(self) -> None:
        """An answer began as it should."""
        if self._failures or self._reported:
            self._reported = False
            self._failures = 0
            self._pause = FIRST_PAUSE
            self._open_until = 0.0

    def failed(self, now: float | None = None) -> None:
        """A call failed in a way that speaks against the server."""
        self._failures += 1
        if self._failures < FAILURES_TO_OPEN:
            return
        now = monotonic() if now is None else now
        # After the pause one more failure opens it again, twice as long: the count stays up until a success.
        # Calls that were already under way when it opened do not double the pause.
        if now >= self._open_until:
            self._open_until = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def limited(self, model: str, seconds: float, now: float | None = None) -> None:
        """The server said 429 for `model` and asked for a pause."""
        now = monotonic() if now is None else now
        if len(self._limited) >= _MOST_PENALTIES:
            self._limited = {m: until for m, until in self._limited.items() if until > now}
        if len(self._limited) < _MOST_PENALTIES:
            self._limited[model] = now + min(seconds, LONGEST_PENALTY)

    def limited_for(self, model: str, now: float) -> float:
        """Seconds until `model` may be asked again; 0 when it may now."""
        until = self._limited.get(model)
        if until is None:
            return 0.0
        if until <= now:
            del self._limited[model]
            return 0.0
        return until - now

    def is_open(self, now: float) -> bool:
        """The breaker is open: ask somebody else if there is somebody."""
        return self._reported or now < self._open_until

    def report(self, error: str | None) -> None:
        """What the last question for its models gave; until the next one, or until an answer begins."""
        self._reported = error in OUT

    @property
    def is_spotless(self) -> bool:
        """Nothing is held against this server; the usual case, and one attribute check."""
        return not self._failures and not self._limited and not self._reported
