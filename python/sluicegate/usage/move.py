"""Journal → database: records in batches, each once; what a dead process left open is interrupted."""

import fcntl
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from sluicegate.engine import JournalSegment, journal_segments
from sluicegate.usage.model import CLOSED, OPENED, Packed, Record, interrupted, packed, unpacked

BATCH_BYTES = 1 << 20
# A process that changes to a new segment shows none for a moment: it is gone when it was not there twice.
_LOOKS = 2
_BATCH = 5000
MOST_IN_MEMORY = 50_000


class Store(Protocol):
    """Where records go."""

    def write(self, records: Packed) -> int:
        """Add those that are not there. Raises what its database raises, and is then asked again."""


class Moved(Struct, frozen=True):
    """What one round did."""

    records: int = 0
    interrupted: int = 0
    removed: int = 0
    # Bytes that were no record, and records that cannot be read.
    damaged: int = 0


class _Known:
    """How far a segment has been read, and which requests are open in it."""

    __slots__ = ("is_done", "offset", "opened")

    def __init__(self) -> None:
        self.offset = 0
        self.is_done = False
        self.opened: dict[bytes, bytes] = {}


class Mover:
    """Moves the records of all processes of a machine. Blocking; one at a time, which a lock sees to."""

    def __init__(
        self, folder: Path, store: Store, on_interrupted: Callable[[Record, Record], None] | None = None
    ) -> None:
        """`on_interrupted` is told of each request that a crash ended: as it was opened, and as it ends."""
        self._folder = folder
        self._store = store
        self._on_interrupted = on_interrupted
        self._known: dict[int, _Known] = {}
        # Read, and not yet taken by the store.
        self._closed: dict[bytes, bytes] = {}
        # How often a process was not seen to live.
        self._missing: dict[str, int] = {}
        self._lock: int | None = None

    def acquire(self) -> bool:
        """Become the one that moves. False: another process of this machine does."""
        if self._lock is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / "mover.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                return False
            self._lock = lock
        return True

    def release(self) -> None:
        """Let another one move."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def move(self) -> Moved:
        """One round. Raises what the store raises; nothing is forgotten that the store has not taken."""
        segments = journal_segments(self._folder)
        damaged = 0
        for segment in segments:
            # While the database takes nothing, the journal is the better place to wait than the memory.
            if len(self._closed) < MOST_IN_MEMORY:
                damaged += self._read(segment)
        records = self._write()
        ended = self._end(segments, self._gone_writers(segments))
        removed = sum(self._remove(segment) for segment in segments)
        return Moved(records, ended, removed, damaged)

    def _write(self) -> int:
        closed = iter(self._closed.items())
        written = 0
        while batch := dict(islice(closed, _BATCH)):
            written += self._store.write(batch)
        for known in self._known.values():
            for id in known.opened.keys() & self._closed.keys():
                del known.opened[id]
        self._closed.clear()
        return written

    def _read(self, segment: JournalSegment) -> int:
        known = self._known.setdefault(segment.inode, _Known())
        damaged = 0
        is_last = known.is_done
        while not is_last:
            try:
                records, known.offset, is_last, skipped = segment.read(known.offset, BATCH_BYTES)
            except FileNotFoundError:
                return damaged
            damaged += skipped
            for kind, id, payload in records:
                if kind == CLOSED:
                    self._closed[id] = payload
                elif kind == OPENED:
                    known.opened[id] = payload
        # It was closed before it was read: nothing is appended any more.
        known.is_done = not segment.is_open
        return damaged

    def _gone_writers(self, segments: Sequence[JournalSegment]) -> set[str]:
        names = {writer_of(segment.path) for segment in segments}
        living = {writer_of(segment.path) for segment in segments if segment.is_open}
        self._missing = {name: self._missing.get(name, 0) + 1 for name in names - living}
        return {name for name, looks in self._missing.items() if looks >= _LOOKS}

    def _end(self, segments: Sequence[JournalSegment], gone: set[str]) -> int:
        """Close what dead processes left open."""
        ended = 0
        for segment in segments:
            known = self._known.get(segment.inode)
            if known is None or not known.is_done or writer_of(segment.path) not in gone:
                continue
            for id, payload in list(known.opened.items()):
                (opened,) = unpacked({id: payload})
                record = interrupted(opened)
                # One that is there was closed, in a segment that is gone.
                if self._store.write(packed([record])):
                    ended += 1
                    if self._on_interrupted is not None:
                        self._on_interrupted(opened, record)
                del known.opened[id]
        return ended

    def _remove(self, segment: JournalSegment) -> bool:
        known = self._known.get(segment.inode)
        if known is None or not known.is_done or known.opened:
            return False
        del self._known[segment.inode]
        return segment.remove()


def writer_of(path: Path) -> str:
    """The name of the process that wrote a segment."""
    return path.stem.rpartition("-")[0]
