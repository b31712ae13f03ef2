"""A kept conversation as people see it, whoever keeps it: an assistant, or a client by /v1/conversations."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

# Of one conversation that is exported.
MOST_EXPORTED = 100_000

Number = Annotated[int, Meta(ge=0)]
# `thread`: of an assistant with chat history. `conversation`: made by a client at /v1/conversations.
Kind = Literal["thread", "conversation"]


class ThreadView(Struct, frozen=True, kw_only=True):
    """A conversation. Times are milliseconds since 1970; `turns` counts whole answers."""

    id: str
    kind: Kind
    workspace: str
    # The key.
    owner: str
    # None: it belongs to none.
    assistant: str | None
    name: str | None
    title: str
    turns: Number
    created_at: int
    updated_at: int


class MessageView(Struct, frozen=True, kw_only=True):
    """A message. `parent` is the one before it on its way; None: it is a first one.

    Of a `conversation` it is an item, as the Responses API has them; nobody knows when it came.
    """

    id: str
    parent: str | None
    depth: Number
    branch: str
    # `incomplete`: an answer that broke off.
    status: str
    created_at: int | None
    message: dict[str, Any]
    thoughts: Any = None


class Wanted(Struct, frozen=True, kw_only=True):
    """Which conversations are wanted; what is given has to match."""

    kind: Kind | None = None
    owner: str | None = None
    assistant: str | None = None
    # A part of any message, without case.
    text: str | None = None

    def takes(self, kind: Kind) -> bool:
        """Whether one of this kind can match; those of clients have no assistant."""
        return self.kind in (None, kind) and (kind == "thread" or self.assistant is None)


EVERYTHING = Wanted()


class Deleted(Struct, frozen=True):
    """How many conversations are gone."""

    deleted: Number


class Exported(Struct, frozen=True, kw_only=True):
    """A conversation with everything in it."""

    thread: ThreadView
    messages: tuple[MessageView, ...]
