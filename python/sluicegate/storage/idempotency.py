"""Answers to creations, kept a day by Idempotency-Key: a second try creates nothing twice."""

import hashlib

from msgspec import Struct
from sqlalchemy import delete, insert, select

from sluicegate.storage import schema
from sluicegate.storage.errors import InvalidError, StorageError
from sluicegate.storage.transaction import Change, View
from sluicegate.storage.vault import place_of

KEEP_MS = 86_400_000
_LONGEST_KEY = 255

_table = schema.idempotency


class Replay(Struct, frozen=True):
    """The answer that was given before."""

    status: int
    body: bytes


class OtherRequestError(StorageError):
    """The Idempotency-Key was used for another request: a 422."""


async def replay(view: View, workspace: str, key: str, request: bytes, *, actor: str) -> Replay | None:
    """What was answered to the same request with this key; None where it is new.

    Inside the change that creates, so that two tries at once come one after the other: the second finds the
    answer of the first. Raises OtherRequestError, InvalidError.
    """
    if not 1 <= len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise InvalidError("Idempotency-Key", f"expected 1 to {_LONGEST_KEY} printable ASCII characters")
    mine = (_table.c.workspace == workspace) & (_table.c.actor == actor) & (_table.c.key == key)
    query = select(_table).where(mine, _table.c.created_at > view.now - KEEP_MS)
    row = (await view.execute(query)).first()
    if row is None:
        return None
    if row.request != _digest(request):
        raise OtherRequestError("This Idempotency-Key was used for another request. Take a new one for each.")
    return Replay(row.status, await view.unseal(workspace, row.answer, _place(workspace, actor, key)))


async def keep(change: Change, workspace: str, key: str, request: bytes, answer: Replay) -> None:
    """Remember the answer, in the change that created. It is sealed: it may hold the text of a new key."""
    actor = change.actor.name
    old = (_table.c.workspace == workspace) & (_table.c.actor == actor) & (_table.c.key == key)
    await change.execute(delete(_table).where(old | (_table.c.created_at <= change.now - KEEP_MS)))
    sealed = await change.seal(workspace, answer.body, _place(workspace, actor, key))
    row: dict[str, object] = {"workspace": workspace, "actor": actor, "key": key}
    row |= {"request": _digest(request), "status": answer.status}
    row |= {"answer": sealed, "created_at": change.now}
    await change.execute(insert(_table).values(row))


def _digest(request: bytes) -> bytes:
    return hashlib.sha256(request).digest()


def _place(workspace: str, actor: str, key: str) -> str:
    return place_of("idempotency", f"{actor}/{key}", "answer", workspace)
