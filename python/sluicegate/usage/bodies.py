"""Requests and answers of the workspaces that keep them: copied up to a size, written beside the requests."""

from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Protocol

from msgspec import Struct

# Copies that wait to be written, in one worker; what finds no room is not kept, and is counted.
MOST_WAITING = 16 * 1024 * 1024
_BATCH = 200


class Body(Struct, frozen=True, kw_only=True):
    """What a client sent, and what it got; of a stream the whole answer as one object."""

    id: str
    workspace: str
    request: bytes
    # Empty where it was not whole.
    answer: bytes = b""
    # Whether one of the two was longer.
    cut: bool = False


class Rules(Protocol):
    """`workspaces.model.BodyRules` is one."""

    @property
    def days(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...


class Copy(Struct, gc=False):
    """The bodies of one request under way."""

    most: int
    request: bytes = b""
    answer: bytes = b""
    cut: bool = False

    def asked(self, body: bytes) -> None:
        """The request, up to the size that is kept."""
        self.request = body[: self.most]
        self.cut = len(body) > self.most

    def answered(self, body: bytes) -> None:
        """The answer, up to the size that is kept."""
        self.answer = body[: self.most]
        self.cut = self.cut or len(body) > self.most


def copy_of(rules: Rules, request: bytes) -> Copy | None:
    """None where nothing is kept, which is the rule."""
    if not rules.days:
        return None
    made = Copy(rules.max_bytes)
    made.asked(request)
    return made


class Bodies:
    """Those of one worker that wait to be written. `put` is for the loop, `write` for a thread."""

    def __init__(self, store: Callable[[Iterable[Body]], None], most: int = MOST_WAITING) -> None:
        """`store` raises UnavailableError where it takes none now."""
        self._store = store
        self._most = most
        self._waiting: deque[Body] = deque()
        # Bytes that came and that left: each is counted by one thread alone.
        self._came = 0
        self._left = 0
        self._writing = Lock()
        self.dropped = 0

    def put(self, body: Body) -> None:
        """Takes microseconds, and never waits."""
        size = len(body.request) + len(body.answer)
        if self._came - self._left + size > self._most:
            self.dropped += 1
            return
        self._came += size
        self._waiting.append(body)

    @property
    def is_empty(self) -> bool:
        """Nothing waits."""
        return not self._waiting

    def write(self) -> None:
        """Write what waits. Raises what the store raises; what it has not taken goes on waiting."""
        with self._writing:
            while self._waiting:
                # Only this takes from the left, so that the first ones stay the same while others come.
                batch = [self._waiting[at] for at in range(min(_BATCH, len(self._waiting)))]
                self._store(batch)
                for body in batch:
                    self._waiting.popleft()
                    self._left += len(body.request) + len(body.answer)
