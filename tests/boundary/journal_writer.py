"""A process that writes usage records as a worker does, and says which ones a client has seen end."""

from __future__ import annotations

import sys

from sluicegate.engine import Journal
from sluicegate.ids import request_ids
from sluicegate.usage.model import CLOSED, OPENED, Record, encode


def main() -> None:
    journal = Journal(sys.argv[1], sys.argv[2], 16 * 1024)
    number = 0
    while True:
        number += 1
        record = Record(id=request_ids.next(), workspace="w", key="k", operation="chat", micros=number)
        # Every third is short enough to have one record only.
        if number % 3:
            journal.append(OPENED, encode(record))
        # Every seventh never ends.
        if number % 7:
            journal.append(CLOSED, encode(record))
            sys.stdout.write(f"{record.id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
