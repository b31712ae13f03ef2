"""The two clocks: one for durations, which never steps back, and one for dates."""

import time

# Aliases, not wrappers: both are called several times a request.
monotonic = time.monotonic
wall_ns = time.time_ns


def wall_seconds() -> int:
    """Whole seconds since 1970, for `created` and log lines."""
    return wall_ns() // 1_000_000_000
