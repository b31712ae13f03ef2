"""Spans of time on the command line: `30m`, `24h`, `7d`."""

import re

from sluicegate.cli.refuse import refuse

_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def milliseconds(text: str, option: str) -> int:
    """The span, or one line that says what is expected."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        refuse(f"{option}: expected a number and s, m, h or d, such as 24h")
    return int(match[1]) * _UNITS[match[2]]
