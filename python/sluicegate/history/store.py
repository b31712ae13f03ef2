"""Kept conversations in the database, as requests read and write them."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from msgspec import Struct
from sqlalchemy import ColumnElement, CursorResult, Row, case, delete, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sluicegate.history.model import NOBODY, Match, Name, New, Node, Own, Past, Place, Scope, Thread
from sluicegate.ids import IdSource
from sluicegate.storage import schema
from sluicegate.storage.codec import decode
from sluicegate.storage.transaction import View

# Of one conversation: more than any context window holds.
MOST_MESSAGES = 2_000
# Answers that may still wait for results of tools, the newest first.
_MOST_PENDING = 50
# Values of one statement; SQLite takes 32,766.
_STEP = 500

_ids = IdSource("thread_")
_message_ids = IdSource("msg_")
_threads = schema.history_threads
_messages = schema.history_messages
_node_columns = [
    _messages.c[name] for name in ("chain", "parent", "depth", "role", "branch", "complete", "body", "calls")
]
_thread_columns = [_threads.c[name] for name in ("id", "ref", "name", "tip", "updated_at")]
# The same beside those of a message.
_of_thread = [column.label(f"of_{column.name}") for column in _thread_columns]


async def find(view: View, scope: Scope, name: Name) -> Thread | None:
    """The thread of a name; one without a name has its id for one."""
    query = select(*_thread_columns).where(_mine(scope), _is_called(name))
    row = (await view.execute(query)).first()
    return None if row is None else Thread(**row._mapping)


async def continued(view: View, scope: Scope, name: Name) -> tuple[Thread | None, list[Node]]:
    """The thread of a name, and the messages that lead to its last answer: both in one query."""
    tip = (_messages.c.thread == _threads.c.id) & (_messages.c.chain == _threads.c.tip)
    start = select(*_node_columns, *_of_thread, literal(1).label("back"))
    start = start.select_from(_threads).outerjoin(_messages, tip).where(_mine(scope), _is_called(name))
    rows = (await view.execute(_way(start, [column.name for column in _of_thread]))).all()
    if not rows:
        return None, []
    thread = Thread(**{column.name[3:]: getattr(rows[0], column.name) for column in _of_thread})
    return thread, [_node(row) for row in rows if row.chain is not None]


async def path(view: View, thread: str, tip: bytes) -> list[Node]:
    """The messages that lead to one, oldest first: the last `MOST_MESSAGES` of them."""
    mine = _messages.c.thread == thread
    start = select(*_node_columns, _messages.c.thread.label("of_id"), literal(1).label("back"))
    rows = (await view.execute(_way(start.where(mine, _messages.c.chain == tip), ["of_id"]))).all()
    return [_node(row) for row in rows]


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
    row: dict[str, Any] = {"updated_at": view.now}
    if whole is not None:
        row |= {"tip": _later(place, whole), "turns": _threads.c.turns + 1}
    done: CursorResult[Any] = await view.execute(
        update(_threads).where(_threads.c.id == place.thread).values(**row)
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


def _later(place: Place, answer: New) -> Any:
    """The new tip, unless the conversation has gone further while this answer was on its way."""
    tip = _threads.c.tip
    same = tip.is_(None) if place.seen is None else tip == place.seen
    depth = select(_messages.c.depth).where(_messages.c.thread == _threads.c.id, _messages.c.chain == tip)
    return case((or_(same, depth.scalar_subquery() <= place.depth), answer.chain), else_=tip)


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
    await view.execute(_kind(view)(_threads).values(**row).on_conflict_do_nothing())
    if name is None:
        return made, None
    # Somebody else may have made it at the same time.
    query = select(_threads.c.id).where(_mine(scope), _threads.c.ref == name.ref)
    found: str = (await view.execute(query)).scalar_one()
    return found, None if found == made else await _children(view, found, past.base)


async def _there(view: View, thread: str, parent: bytes) -> dict[bytes, str] | None:
    """As `_children`; None where the thread is not there any more. It stays until the transaction ends."""
    below = (_messages.c.thread == _threads.c.id) & (_messages.c.parent == parent)
    query = select(_messages.c.chain, _messages.c.branch).select_from(_threads).outerjoin(_messages, below)
    query = query.where(_threads.c.id == thread).with_for_update(read=True, of=_threads)
    rows = (await view.execute(query)).all()
    return {row.chain: row.branch for row in rows if row.chain is not None} if rows else None


async def _children(view: View, thread: str, parent: bytes) -> dict[bytes, str]:
    """What follows a message: the digests, with their branches."""
    query = select(_messages.c.chain, _messages.c.branch)
    rows = await view.execute(query.where(_messages.c.thread == thread, _messages.c.parent == parent))
    return {row.chain: row.branch for row in rows.all()}


async def _insert(view: View, thread: str, message: New, place: tuple[bytes, int, str]) -> None:
    parent, depth, branch = place
    row = {"thread": thread, "parent": parent, "depth": depth, "branch": branch, "created_at": view.now}
    row |= {
        "id": _message_ids.next(),
        "chain": message.chain,
        "role": message.role,
        "complete": message.complete,
    }
    row |= {"body": message.body, "thoughts": message.thoughts}
    row["calls"] = orjson.dumps(message.calls).decode() if message.calls else None
    made = _kind(view)(_messages).values(**row)
    if message.complete:
        # It may be there as an answer that broke off.
        place_of = [_messages.c.chain, _messages.c.thread]
        made = made.on_conflict_do_update(index_elements=place_of, set_={"complete": True})
    else:
        made = made.on_conflict_do_nothing()
    await view.execute(made)


def _kind(view: View) -> Any:
    return sqlite.insert if view.connection.dialect.name == "sqlite" else postgresql.insert


def _rank(row: "Row[Any]", known: int, own: Own) -> tuple[Any, ...]:
    length = row.depth + 1
    return (row.id == own.thread and length >= known, min(length, known), row.updated_at, row.id, length)


def _way(start: Any, more: list[str]) -> Any:
    """From the message of `start` back to the first, in the order in which they were said."""
    way = start.cte("way", recursive=True)
    same = (_messages.c.thread == way.c.of_id) & (_messages.c.chain == way.c.parent)
    before = select(*_node_columns, *(way.c[name] for name in more), way.c.back + 1)
    way = way.union_all(before.join(way, same).where(way.c.back < MOST_MESSAGES))
    columns = [way.c[name] for name in (*(column.name for column in _node_columns), *more)]
    return select(*columns).order_by(way.c.depth)


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
    calls = tuple(orjson.loads(row.calls)) if row.calls else ()
    values = row._mapping
    return Node(**{column.name: values[column.name] for column in _node_columns[:-1]}, calls=calls)


class _Retention(Struct):
    """Of a workspace's settings."""

    retention_days: int | None = None


def _mine(scope: Scope) -> "ColumnElement[bool]":
    columns = _threads.c
    same = (columns.workspace == scope.workspace) & (columns.owner == scope.owner)
    return same & (columns.assistant == scope.assistant)
