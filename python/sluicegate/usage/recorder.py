"""Usage records into the journal: the end of a request before its last bytes leave."""

import asyncio
from typing import TYPE_CHECKING

from sluicegate.usage.closed import write
from sluicegate.usage.model import OPENED, encode

if TYPE_CHECKING:
    from sluicegate.engine import Journal
    from sluicegate.usage.settle import Entry
    from sluicegate.usage.tell import End

# A request that ends sooner has one record, its last. One that is open for so long has a first one too, so
# that a crash does not make it unheard of.
OPENED_AFTER = 0.05


class Recorder:
    """Writes the records of one worker."""

    __slots__ = ("_journal", "_opening", "_strict", "_timer")

    def __init__(self, journal: "Journal", *, strict: bool = False) -> None:
        """`strict`: while the disk takes no records, no requests are taken."""
        self._journal = journal
        self._strict = strict
        self._opening: dict[str, Entry] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_blocked(self) -> bool:
        """No request may begin. Looks whether the disk takes records again."""
        return self._strict and self._journal.waiting > 0 and not self._journal.flush()

    def opened(self, entry: "Entry") -> None:
        """A request was admitted."""
        self._opening[entry.request_id] = entry
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(OPENED_AFTER, self.note_open)

    def closed(self, entry: "Entry", end: "End", message: str | None) -> None:
        """It has ended; when this returns, the record survives the process."""
        self._opening.pop(entry.request_id, None)
        write(self._journal, entry, end, message)

    def note_open(self) -> None:
        """Write down what is open and not yet on record."""
        self._timer = None
        opening, self._opening = self._opening, {}
        for entry in opening.values():
            self._journal.append(OPENED, encode(entry.record()))

    def stop(self) -> None:
        """No timer is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
