"""The statements of a request that has a conversation: each is prepared once."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from sluicegate.storage import kept_schema
from sluicegate.storage.prepared import Prepared

# Of one conversation: more than any context window holds.
MOST_MESSAGES = 2_000

threads = kept_schema.history_threads
messages = kept_schema.history_messages
NODE = ("chain", "parent", "depth", "role", "branch", "complete", "body", "calls")
THREAD = ("id", "ref", "name", "tip", "updated_at")
node_columns = [messages.c[name] for name in NODE]
thread_columns = [threads.c[name] for name in THREAD]
# The same beside those of a message.
_of_thread = [column.label(f"of_{column.name}") for column in thread_columns]


def mine(workspace: Any, owner: Any, assistant: Any) -> "ColumnElement[bool]":
    """The threads of a key with an assistant."""
    columns = threads.c
    return and_(columns.workspace == workspace, columns.owner == owner, columns.assistant == assistant)


def kind(dialect: str) -> Any:
    """The `insert` that knows conflicts."""
    return sqlite.insert if dialect == "sqlite" else postgresql.insert


def _mine() -> "ColumnElement[bool]":
    return mine(bindparam("workspace"), bindparam("owner"), bindparam("assistant"))


def _way(start: Any, more: list[str]) -> Any:
    """From the message of `start` back to the first, in the order in which they were said."""
    way = start.cte("way", recursive=True)
    same = (messages.c.thread == way.c.of_id) & (messages.c.chain == way.c.parent)
    before = select(*node_columns, *(way.c[name] for name in more), way.c.back + 1)
    way = way.union_all(before.join(way, same).where(way.c.back < MOST_MESSAGES))
    columns = [way.c[name] for name in (*NODE, *more)]
    return select(*columns).order_by(way.c.depth)


def _continued(*, by_id: bool) -> Any:
    """The thread of a name, which may be its id, and the messages that lead to its last answer."""
    called = threads.c.ref == bindparam("ref")
    if by_id:
        called = or_(called, threads.c.id == bindparam("shown"))
    tip = (messages.c.thread == threads.c.id) & (messages.c.chain == threads.c.tip)
    start = select(*node_columns, *_of_thread, literal(1).label("back"))
    start = start.select_from(threads).outerjoin(messages, tip).where(_mine(), called)
    return _way(start, [column.name for column in _of_thread])


def _path() -> Any:
    here = (messages.c.thread == bindparam("thread")) & (messages.c.chain == bindparam("chain"))
    start = select(*node_columns, messages.c.thread.label("of_id"), literal(1).label("back"))
    return _way(start.where(here), ["of_id"])


def _there() -> Any:
    below = (messages.c.thread == threads.c.id) & (messages.c.parent == bindparam("parent"))
    query = select(messages.c.chain, messages.c.branch).select_from(threads).outerjoin(messages, below)
    return query.where(threads.c.id == bindparam("thread")).with_for_update(read=True, of=threads)


def _children() -> Any:
    below = (messages.c.thread == bindparam("thread")) & (messages.c.parent == bindparam("parent"))
    return select(messages.c.chain, messages.c.branch).where(below)


MESSAGE: tuple[str, ...] = ("id", "thread", "chain", "parent", "depth", "branch", "role", "complete")
MESSAGE += ("body", "thoughts", "calls", "created_at")


def _insert(dialect: str, *, complete: bool) -> Any:
    made = kind(dialect)(messages).values({name: bindparam(f"new_{name}") for name in MESSAGE})
    if not complete:
        return made.on_conflict_do_nothing()
    # It may be there as an answer that broke off.
    place = [messages.c.chain, messages.c.thread]
    return made.on_conflict_do_update(index_elements=place, set_={"complete": true()})


def _finish() -> Any:
    """The new tip, unless the conversation has gone further while this answer was on its way."""
    tip, seen = threads.c.tip, bindparam("seen", type_=threads.c.tip.type)
    same = or_(tip == seen, and_(tip.is_(None), bindparam("first")))
    # The answer that came meanwhile belongs to the same question, or to an earlier one.
    last = (messages.c.thread == threads.c.id) & (messages.c.chain == tip)
    behind = (
        select(literal(1)).where(last, messages.c.depth <= bindparam("depth")).correlate(threads).exists()
    )
    answer = bindparam("answer", type_=threads.c.tip.type)
    values = {"tip": case((or_(same, behind), answer), else_=tip), "turns": threads.c.turns + 1}
    done = update(threads).where(threads.c.id == bindparam("thread"))
    return done.values(**values, updated_at=bindparam("now"))


CONTINUED = Prepared(lambda _: _continued(by_id=False))
CONTINUED_BY_ID = Prepared(lambda _: _continued(by_id=True))
PATH = Prepared(lambda _: _path())
THERE = Prepared(lambda _: _there())
CHILDREN = Prepared(lambda _: _children())
INSERT = Prepared(lambda dialect: _insert(dialect, complete=True))
INSERT_BROKEN = Prepared(lambda dialect: _insert(dialect, complete=False))
FINISH = Prepared(lambda _: _finish())
