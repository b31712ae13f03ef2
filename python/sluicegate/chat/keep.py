"""Chats that a client wants stored (`store: true`): kept before the last byte of the answer leaves."""

from typing import TYPE_CHECKING, Any, Protocol

import orjson

from sluicegate.chat.prepare import Ask
from sluicegate.errors import GatewayError, Header
from sluicegate.http.door import Owner, metadata_of
from sluicegate.ids import IdSource
from sluicegate.keys.model import Principal
from sluicegate.storage.shelf import Shelf

if TYPE_CHECKING:
    from sluicegate.engine import Outcome

_ids = IdSource("chatcmpl-sg")
_DONE = b"data: [DONE]\n\n"


class Keeping(Protocol):
    """What is done with an answer beside sending it."""

    @property
    def options(self) -> dict[str, Any]:
        """Of the call upstream."""

    @property
    def headers(self) -> list[Header]:
        """Of the answer."""

    async def keep(self, answer: bytes, outcome: "Outcome | None") -> None:
        """Store a whole answer. Raises 503."""

    async def last(self, outcome: "Outcome") -> bytes:
        """The last bytes of a stream, once it is stored."""


class Kept:
    """One chat that is stored under an id of ours: upstreams' ids are not unique, some have three digits."""

    def __init__(self, shelf: Shelf, ask: Ask, owner: Owner) -> None:
        """Raises 400 for metadata that cannot be."""
        self.id = _ids.next()
        self._shelf = shelf
        self._owner = owner
        self._model = ask.plan.name
        body = orjson.loads(ask.request.body)
        self._messages: list[Any] = body["messages"]
        self._metadata = metadata_of(body.get("metadata"))
        # What the answer does not repeat, and the API shows.
        self._asked = {name: body[name] for name in _SHOWN if body.get(name) is not None}

    @property
    def options(self) -> dict[str, Any]:
        """Of the call upstream."""
        return {"public_id": self.id, "keep": True}

    @property
    def headers(self) -> list[Header]:
        """None of its own."""
        return []

    async def keep(self, answer: bytes, outcome: "Outcome | None") -> None:
        """Store the whole answer. Raises 503."""
        from sluicegate.chat import store  # noqa: PLC0415 (imports SQLAlchemy)

        whole = {**self._asked, **orjson.loads(answer), "metadata": self._metadata}
        if "usage" not in whole and outcome is not None and outcome.prompt_tokens is not None:
            # The client did not ask for it, so that the stream had none.
            prompt, said = outcome.prompt_tokens, outcome.completion_tokens or 0
            whole["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": said,
                "total_tokens": prompt + said,
            }
        chat = store.Chat(
            id=self.id,
            model=self._model,
            metadata=self._metadata,
            messages=self._messages,
            body=orjson.dumps(whole).decode(),
        )
        await self._shelf.write(lambda view: store.save(view, self._owner, chat))

    async def last(self, outcome: "Outcome") -> bytes:
        """The last bytes of the stream; an error event instead of the marker where it could not be stored."""
        if outcome.answer is None or outcome.state != "finished":
            return outcome.tail
        try:
            await self.keep(outcome.answer, outcome)
        except GatewayError as error:
            return not_kept(outcome.tail, error)
        return outcome.tail


def not_kept(tail: bytes, error: GatewayError) -> bytes:
    """The end of a stream that could not be stored: an error event instead of the marker."""
    return tail.removesuffix(_DONE) + b"data: " + error.to_body() + b"\n\n"


_SHOWN: tuple[str, ...] = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "tools",
    "tool_choice",
)
_SHOWN += ("response_format", "user")


class StoredChats:
    """Decides which chats are stored: those that say so, where there is a database."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def begin(self, ask: Ask, principal: Principal) -> Kept | None:
        """None: not stored here: there is no database, or the workspace keeps nothing.

        Then `store` goes to the upstream, which may have one.
        """
        if not ask.request.store or not self._shelf.configured or ask.plan.view.settings.retention_days == 0:
            return None
        return Kept(self._shelf, ask, Owner(principal.workspace, principal.id))
