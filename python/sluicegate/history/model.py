"""What a kept conversation is made of: threads, messages, and the ways through them."""

from hashlib import sha256
from typing import NamedTuple

from msgspec import Struct

MAIN = "main"
# Of the default thread of a key: who comes back later begins anew.
IDLE_MS = 30 * 60 * 1000
LONGEST_TITLE = 120


class Scope(NamedTuple):
    """Whose conversations: of one key with one assistant. A name or an id alone opens nothing."""

    workspace: str
    owner: str
    assistant: str

    @property
    def root(self) -> bytes:
        """The digest before the first message, so that nobody else's conversation has the same ones."""
        return sha256("\0".join(self).encode()).digest()[:16]


class Name(Struct, frozen=True):
    """How a request says which thread it means."""

    # With the kind before it: `n:` by name, `u:` of a user, `k:` of the key.
    ref: str
    # As the client writes it; None for a default thread.
    shown: str | None = None
    # After so long without a message it names another thread.
    idle_ms: int | None = None

    @property
    def is_default(self) -> bool:
        """Nobody asked for it."""
        return self.shown is None


class Spot(NamedTuple):
    """An answer in a thread: what a response that was kept here is continued from."""

    thread: str
    chain: bytes

    def text(self) -> str:
        """As it is stored beside a response."""
        return f"{self.thread}:{self.chain.hex()}"

    @classmethod
    def of(cls, text: str) -> "Spot":
        """What `text` gave."""
        thread, _, chain = text.rpartition(":")
        return cls(thread, bytes.fromhex(chain))


class Thread(Struct, frozen=True, kw_only=True):
    """A thread as requests need it."""

    id: str
    ref: str | None
    name: str | None
    tip: bytes | None
    updated_at: int

    @property
    def is_default(self) -> bool:
        """It is found by who asks, not by what it is called."""
        return self.ref is not None and self.name is None


class Node(Struct, frozen=True, kw_only=True):
    """A stored message in its place."""

    chain: bytes
    parent: bytes
    depth: int
    role: str
    branch: str
    complete: bool
    body: str
    calls: tuple[str, ...] = ()


class New(Struct, frozen=True, kw_only=True):
    """A message to be stored."""

    chain: bytes
    role: str
    body: str
    thoughts: str | None = None
    calls: tuple[str, ...] = ()
    complete: bool = True


class Match(Struct, frozen=True):
    """How much of a conversation that a client sent is stored, and where."""

    thread: Thread
    chain: bytes
    branch: str
    # Answers that broke off, and that the client has made a part of its conversation all the same.
    adopted: tuple[bytes, ...] = ()


class Own(NamedTuple):
    """The thread that a request's name means."""

    thread: str | None
    # Nothing but it is looked at.
    alone: bool


NOBODY = Own(None, alone=False)


class Past(Struct, frozen=True, kw_only=True):
    """What a request continues, and what it adds."""

    scope: Scope
    name: Name | None
    # None: it begins with this request.
    thread: Thread | None
    # What the new messages follow: a digest, how many messages that is, and the branch.
    base: bytes
    depth: int
    branch: str
    # What the client has not sent, oldest first.
    before: list[Node]
    # Older ones of these that were not even read.
    unread: int = 0
    new: list[New] = []
    adopted: tuple[bytes, ...] = ()
    # A thread that gives its name to a new one.
    retired: str | None = None
    # The client sends everything it continues: a default thread found by its messages is none any more.
    released: bool = False


class Place(Struct, frozen=True):
    """Where an answer belongs."""

    thread: str
    parent: bytes
    depth: int
    branch: str
    # The thread's last answer when this one was asked for.
    seen: bytes | None = None
