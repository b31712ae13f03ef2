"""Kept conversations in the database, as requests read and write them."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from msgspec import Struct
from sqlalchemy import ColumnElement, CursorResult, Row, delete, or_, select, update

from sluicegate.history import statement_store as statements
from sluicegate.history.model import NOBODY, Match, Name, New, Node, Own, Past, Place, Scope, Thread
from sluicegate.history.statement_store import NODE, THREAD, kind, mine
from sluicegate.ids import IdSource
from sluicegate.storage import kept_schema, schema
from sluicegate.storage.codec import decode
from sluicegate.storage.transaction import View

# Answers that may still wait for results of tools, the newest first.
_MOST_PENDING = 50
# Values of one statement; SQLite takes 32,766.
_STEP = 500

_ids = IdSource("thread_")
_message_ids = IdSource("msg_")
_threads = kept_schema.history_threads
_messages = kept_schema.history_messages
_thread_columns = statements.thread_columns


async def find(view: View, scope: Scope, name: Name) -> Thread | None:
    """The thread of a name; one without a name has its id for one."""
    query = select(*_thread_columns).where(_mine(scope), _is_called(name))
    row = (await view.execute(query)).first()
    return None if row is None else Thread(**row._mapping)


async def known(view: View, scope: Scope, thread: str) -> Thread | None:
    """The thread of an id."""
    row = (await view.execute(select(*_thread_columns).where(_mine(scope), _threads.c.id == thread))).first()
    return None if row is None else Thread(**row._mapping)


async def continued(view: View, scope: Scope, name: Name) -> tuple[Thread | None, list[Node]]:
    """The thread of a name, and the messages that lead to its last answer: both in one query."""
    given = {**scope._asdict(), "ref": name.ref}
    if name.shown is None:
        found = await statements.CONTINUED.run(view, **given)
    else:
        found = await statements.CONTINUED_BY_ID.run(view, **given, shown=name.shown)
    rows = found.all()
    if not rows:
        return None, []
    thread = Thread(**dict(zip(THREAD, rows[0][len(NODE) :], strict=True)))
    return thread, [_node(row) for row in rows if row[0] is not None]


async def path(view: View, thread: str, tip: bytes) -> list[Node]:
    """The messages that lead to one, oldest first: the last `MOST_MESSAGES` (statement_store.py) of them."""
    return [_node(row) for row in (await statements.PATH.run(view, thread=thread, chain=tip)).all()]


async def pending(view: View, thread: str, calls: frozenset[str]) -> bytes | None:
    """The newest answer of a thread that has exactly these calls."""
    query = select(_messages.c.chain, _messages.c.calls).where(
        _messages.c.thread == thread, _messages.c.calls.is_not(None), _messages.c.complete
    )
    query = query.order_by(_messages.c.id.desc()).limit(_MOST_PENDING)
    for row in (await view.execute(query)).all():
        if frozenset(orjson.loads(row.calls)) == calls:
            found: bytes = row.chain
            return found
    return None


async def longest(
    view: View, scope: Scope, chains: Sequence[bytes], known: int, own: Own = NOBODY
) -> Match | None:
    """The longest conversation that begins as `chains` do.

    Many begin alike: of those that have the first `known` messages, which are all that was said before, the
    thread of `own` is meant, else the one that was used last.
    """
    for some in _from_the_end(chains):
        columns = [_messages.c.chain, _messages.c.depth, _messages.c.branch, _messages.c.complete]
        query = select(*columns, *_thread_columns).join(_threads, _threads.c.id == _messages.c.thread)
        query = query.where(_mine(scope), _messages.c.chain.in_(some))
        if own.alone:
            query = query.where(_threads.c.id == own.thread)
        rows = (await view.execute(query)).all()
        if rows:
            best = max(rows, key=lambda row: _rank(row, known, own))
            broken = tuple(row.chain for row in rows if row.id == best.id and not row.complete)
            found = Thread(**{column.name: getattr(best, column.name) for column in _thread_columns})
            return Match(found, best.chain, best.branch, broken)
    return None


async def begin(view: View, past: Past, title: str) -> Place:
    """Store what a request adds; where its answer belongs."""
    thread, beside = await _thread(view, past, title)
    # Below a message that was not there before, nothing is.
    is_new = beside is None
    if past.adopted:
        adopted = _messages.c.chain.in_(past.adopted)
        broken = update(_messages).where(_messages.c.thread == thread, adopted)
        await view.execute(broken.values(complete=True))
    parent, depth, branch = past.base, past.depth, past.branch
    for message in past.new:
        if beside is None and not is_new:
            beside = await _children(view, thread, parent)
        if beside is not None:
            same = beside.get(message.chain)
            is_new = same is None
            branch = same or (_name_of(message.chain) if beside else branch)
            beside = None
        if is_new:
            await _insert(view, thread, message, (parent, depth, branch))
        parent, depth = message.chain, depth + 1
    if not is_new and await _children(view, thread, parent):
        # Answered before: another answer, so another branch.
        branch = f"b{_ids.next()[-8:]}"
    return Place(thread, parent, depth, branch, None if past.thread is None else past.thread.tip)


async def finish(view: View, place: Place, answers: Sequence[New]) -> bool:
    """Store an answer; the first is what a new message follows. False: the thread was deleted meanwhile."""
    whole = next((answer for answer in answers if answer.complete), None)
    done: CursorResult[Any]
    if whole is None:
        touched = update(_threads).where(_threads.c.id == place.thread)
        done = await view.execute(touched.values(updated_at=view.now))
    else:
        done = await statements.FINISH.run(
            view,
            thread=place.thread,
            seen=place.seen,
            first=place.seen is None,
            depth=place.depth,
            answer=whole.chain,
            now=view.now,
        )
    if not done.rowcount:
        return False
    for number, answer in enumerate(answers):
        branch = place.branch if number == 0 else _name_of(answer.chain)
        await _insert(view, place.thread, answer, (place.parent, place.depth, branch))
    return True


async def retentions(view: View) -> dict[str, int]:
    """The workspaces that say how many days they keep conversations; one that was deleted keeps none."""
    table = schema.workspaces
    rows = (await view.execute(select(table.c.id, table.c.settings, table.c.deleted_at))).all()
    found = {row.id: 0 if row.deleted_at else decode(row.settings, _Retention).retention_days for row in rows}
    return {workspace: days for workspace, days in found.items() if days is not None}


async def expire(view: View, workspace: str, before: int, most: int) -> int:
    """Delete a workspace's threads without a message since `before`, at most so many; how many they were."""
    old = select(_threads.c.id).where(_threads.c.workspace == workspace, _threads.c.updated_at < before)
    refs = list((await view.execute(old.order_by(_threads.c.updated_at).limit(most))).scalars())
    await erase(view, refs)
    return len(refs)


async def erase(view: View, threads: Sequence[str]) -> None:
    """Delete threads and all that is in them."""
    for some in _from_the_end(threads):
        # First the thread: an answer that comes meanwhile finds that it is gone.
        await view.execute(delete(_threads).where(_threads.c.id.in_(some)))
        await view.execute(delete(_messages).where(_messages.c.thread.in_(some)))


async def _thread(view: View, past: Past, title: str) -> tuple[str, dict[bytes, str] | None]:
    """The id of the thread, and what follows the message that is gone on from.

    The thread is made where it is not there; then nothing follows: None.
    """
    if past.thread is not None:
        if past.released:
            freed = update(_threads).where(_threads.c.id == past.thread.id)
            await view.execute(freed.values(ref=None))
        beside = await _there(view, past.thread.id, past.base)
        if beside is not None:
            return past.thread.id, beside
    if past.retired is not None:
        await view.execute(update(_threads).where(_threads.c.id == past.retired).values(ref=None))
    scope, name = past.scope, past.name
    made = _ids.next()
    row: dict[str, Any] = {"id": made, **scope._asdict(), "title": title, "turns": 0, "tip": None}
    row |= {"ref": name and name.ref, "name": name and name.shown}
    row |= {"created_at": view.now, "updated_at": view.now}
    await view.execute(kind(view.connection.dialect.name)(_threads).values(**row).on_conflict_do_nothing())
    if name is None:
        return made, None
    # Somebody else may have made it at the same time.
    query = select(_threads.c.id).where(_mine(scope), _threads.c.ref == name.ref)
    found: str = (await view.execute(query)).scalar_one()
    return found, None if found == made else await _children(view, found, past.base)


async def _there(view: View, thread: str, parent: bytes) -> dict[bytes, str] | None:
    """As `_children`; None where the thread is not there any more. It stays until the transaction ends."""
    rows = (await statements.THERE.run(view, thread=thread, parent=parent)).all()
    return {row.chain: row.branch for row in rows if row.chain is not None} if rows else None


async def _children(view: View, thread: str, parent: bytes) -> dict[bytes, str]:
    """What follows a message: the digests, with their branches."""
    rows = await statements.CHILDREN.run(view, thread=thread, parent=parent)
    return {row.chain: row.branch for row in rows.all()}


async def _insert(view: View, thread: str, message: New, place: tuple[bytes, int, str]) -> None:
    parent, depth, branch = place
    statement = statements.INSERT if message.complete else statements.INSERT_BROKEN
    await statement.run(
        view,
        new_id=_message_ids.next(),
        new_thread=thread,
        new_chain=message.chain,
        new_parent=parent,
        new_depth=depth,
        new_branch=branch,
        new_role=message.role,
        new_complete=message.complete,
        new_body=message.body,
        new_thoughts=message.thoughts,
        new_calls=orjson.dumps(message.calls).decode() if message.calls else None,
        new_created_at=view.now,
    )


def _rank(row: "Row[Any]", known: int, own: Own) -> tuple[Any, ...]:
    length = row.depth + 1
    return (row.id == own.thread and length >= known, min(length, known), row.updated_at, row.id, length)


def _is_called(name: Name) -> "ColumnElement[bool]":
    ref = _threads.c.ref == name.ref
    return ref if name.shown is None else or_(ref, _threads.c.id == name.shown)


def _name_of(chain: bytes) -> str:
    """A branch is called after its first message."""
    return f"b{chain.hex()[:8]}"


def _from_the_end(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for end in range(len(values), 0, -_STEP):
        yield values[max(end - _STEP, 0) : end]


def _node(row: "Row[Any]") -> Node:
    chain, parent, depth, role, branch, complete, body, calls = row[: len(NODE)]
    return Node(
        chain=chain,
        parent=parent,
        depth=depth,
        role=role,
        branch=branch,
        complete=bool(complete),
        body=body,
        calls=tuple(orjson.loads(calls)) if calls else (),
    )


class _Retention(Struct):
    """Of a workspace's settings."""

    retention_days: int | None = None


def _mine(scope: Scope) -> "ColumnElement[bool]":
    return mine(scope.workspace, scope.owner, scope.assistant)
