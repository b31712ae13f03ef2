"""Usage records into the journal: the end of a request before its last bytes leave."""

import asyncio
from typing import Protocol

from sluicegate.usage.model import CLOSED, OPENED, Record, encode

# A request that ends sooner has one record, its last. One that is open for so long has a first one too, so
# that a crash does not make it unheard of.
OPENED_AFTER = 0.05


class Writing(Protocol):
    """The part of the core's `Journal` that writes."""

    @property
    def waiting(self) -> int:
        """Records that the disk has not taken yet."""

    def append(self, kind: int, payload: bytes) -> bool:
        """False: it waits in memory, or is lost."""

    def flush(self) -> bool:
        """Try again."""


class Opening(Protocol):
    """A request under way that can tell what is known of it."""

    def record(self) -> Record:
        """As it stands."""


class Recorder:
    """Writes the records of one worker."""

    __slots__ = ("_journal", "_opening", "_strict", "_timer")

    def __init__(self, journal: Writing, *, strict: bool = False) -> None:
        """`strict`: while the disk takes no records, no requests are taken."""
        self._journal = journal
        self._strict = strict
        self._opening: dict[str, Opening] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_blocked(self) -> bool:
        """No request may begin. Looks whether the disk takes records again."""
        return self._strict and self._journal.waiting > 0 and not self._journal.flush()

    def opened(self, id: str, request: Opening) -> None:
        """A request was admitted."""
        self._opening[id] = request
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(OPENED_AFTER, self.note_open)

    def closed(self, record: Record) -> None:
        """It has ended; when this returns, the record survives the process."""
        self._opening.pop(record.id, None)
        self._journal.append(CLOSED, encode(record))

    def note_open(self) -> None:
        """Write down what is open and not yet on record."""
        self._timer = None
        opening, self._opening = self._opening, {}
        for request in opening.values():
            self._journal.append(OPENED, encode(request.record()))

    def stop(self) -> None:
        """No timer is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
