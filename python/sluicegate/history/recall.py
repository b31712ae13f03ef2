"""What a request continues, and what is kept of it: a read and a commit before the call, a commit after."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from sluicegate.engine import Message, chain
from sluicegate.history import merge
from sluicegate.history.merge import Shape
from sluicegate.history.model import MAIN, NOBODY, Name, New, Node, Own, Past, Place, Scope, Spot, Thread
from sluicegate.storage.shelf import Shelf
from sluicegate.storage.transaction import View


class Request:
    """A request as far as conversations are concerned."""

    __slots__ = ("at", "body", "keep_ms", "name", "said", "scope", "shape", "thoughts")

    def __init__(  # noqa: PLR0913 (what a request says, and what its workspace says of it)
        self,
        scope: Scope,
        name: Name | None,
        messages: Sequence[Message],
        body: bytes,
        keep_ms: int | None,
        *,
        thoughts: bool,
        at: Spot | None = None,
    ) -> None:
        """`keep_ms`: what is older is forgotten. `thoughts`: what the model thinks is stored, apart.

        `at`: the answer that the request itself says it continues.
        """
        self.scope = scope
        self.name = name
        self.said = [message for message in messages if not message.is_system]
        self.body = body
        self.keep_ms = keep_ms
        self.thoughts = thoughts
        self.at = at
        self.shape = merge.shape_of(self.said)

    def news(self, base: bytes, skip: int = 0) -> list[New]:
        """Its messages, the first `skip` left out, behind `base`."""
        return merge.news(self.said[skip:], self.body, base, thoughts=self.thoughts)


class History:
    """The kept conversations of one process. Raises 503 where the database does not answer."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    @property
    def configured(self) -> bool:
        """There is a database to keep them in."""
        return self._shelf.configured

    async def recall(self, request: Request) -> Past | None:
        """What came before; None where the request has nothing to do with any conversation."""
        if request.shape is Shape.NOTHING:
            return None
        if request.at is not None:
            spot = request.at
            return await self._shelf.read(lambda view: _recall_at(view, request, spot))
        if request.name is None and request.shape is not Shape.WHOLE:
            # Results without a name: whoever asks has the calls, or the upstream will say so.
            return _fresh(request, None)
        return await self._shelf.read(lambda view: _recall(view, request))

    async def begin(self, past: Past) -> Place:
        """Store what the request adds. When this returns, it is committed."""
        title = merge.title_of(past.new)
        store = _store()
        place: Place = await self._shelf.write(lambda view: store.begin(view, past, title))
        return place

    async def finish(self, place: Place, answers: Sequence[New]) -> None:
        """Store an answer. When this returns, it is committed."""
        if answers:
            await self._shelf.write(lambda view: _store().finish(view, place, answers))


async def _recall(view: View, request: Request) -> Past:
    store = _store()
    named = request.name
    thread: Thread | None = None
    path: list[Node] = []
    if named is not None and request.shape is Shape.WHOLE:
        thread = await store.find(view, request.scope, named)
    elif named is not None:
        thread, path = await store.continued(view, request.scope, named)
    if thread is not None and _is_over(thread, request, view.now):
        return await _without(view, request, thread)
    if request.shape is Shape.WHOLE:
        return await _whole(view, request, thread)
    if thread is None or thread.tip is None:
        if request.shape is Shape.RESULTS:
            raise merge.no_such_calls(merge.results_of(request.said), ())
        return _fresh(request, thread)
    if request.shape is Shape.RESULTS:
        path = await _path_to_calls(view, request, thread, path)
    else:
        path = merge.settled(path)
    return _behind(request, thread, path)


async def _recall_at(view: View, request: Request, spot: Spot) -> Past | None:
    """What led to an answer; None where it is not kept any more."""
    store = _store()
    thread: Thread | None = await store.known(view, request.scope, spot.thread)
    if thread is None or _is_over(thread, request, view.now):
        return None
    path = list(await store.path(view, thread.id, spot.chain))
    if not path:
        return None
    if request.shape is Shape.RESULTS:
        wanted = merge.results_of(request.said)
        if frozenset(path[-1].calls) != wanted:
            raise merge.no_such_calls(wanted, path[-1].calls)
    else:
        path = merge.settled(path)
    # Who says what it continues has no default conversation: its next lone message begins a new one.
    name = None if thread.ref is None or thread.name is None else Name(thread.ref, thread.name)
    return replace(_behind(request, thread, path), name=name, released=thread.is_default)


async def _without(view: View, request: Request, over: Thread) -> Past:
    """The thread of that name has ended, so that its name is free for another."""
    if request.shape is Shape.WHOLE:
        return _taking(await _whole(view, request, None), over)
    if request.shape is Shape.RESULTS:
        raise merge.no_such_calls(merge.results_of(request.said), ())
    return _taking(_fresh(request, None), over)


def _taking(past: Past, over: Thread) -> Past:
    """The same, and the name of `over` goes to the thread that it begins."""
    return past if past.thread is not None else replace(past, retired=over.id)


async def _whole(view: View, request: Request, thread: Thread | None) -> Past:
    """The client keeps its own history: find where it is stored, and add the rest."""
    scope, named = request.scope, request.name
    chains = chain(scope.root, [message.digest for message in request.said])
    if named is not None and not named.is_default and thread is None:
        # It names a thread that is not there yet: whatever is stored elsewhere is another one.
        return _fresh(request, None)
    # Up to the last answer, the rest is new.
    known = max((n for n, m in enumerate(request.said, 1) if m.role != "user"), default=0)
    own = NOBODY if thread is None else Own(thread.id, alone=not thread.is_default)
    match = await _store().longest(view, scope, chains, known, own)
    if match is None:
        found = thread if own.alone else None
        # Under a default name the next lone message would continue it, and this client sends everything.
        nameless = named is None or named.is_default
        return _fresh(request, found, nameless=nameless)
    matched = chains.index(match.chain) + 1
    return Past(
        scope=scope,
        name=named,
        thread=match.thread,
        base=match.chain,
        depth=matched,
        branch=match.branch,
        before=[],
        new=request.news(match.chain, matched),
        adopted=match.adopted,
        released=match.thread.is_default and any(m.role == "assistant" for m in request.said[:matched]),
    )


async def _path_to_calls(view: View, request: Request, thread: Thread, path: list[Node]) -> list[Node]:
    """The way to the answer whose calls these are the results of. Raises 400."""
    store, wanted = _store(), merge.results_of(request.said)
    calls = path[-1].calls if path else ()
    if frozenset(calls) == wanted:
        return path
    tip = await store.pending(view, thread.id, wanted)
    if tip is None:
        raise merge.no_such_calls(wanted, calls)
    return list(await store.path(view, thread.id, tip))


def _behind(request: Request, thread: Thread, path: list[Node]) -> Past:
    if not path:
        return _fresh(request, thread)
    last = path[-1]
    return Past(
        scope=request.scope,
        name=request.name,
        thread=thread,
        base=last.chain,
        depth=last.depth + 1,
        branch=last.branch,
        before=path,
        unread=path[0].depth,
        new=request.news(last.chain),
    )


def _fresh(request: Request, thread: Thread | None, *, nameless: bool = False) -> Past:
    """Nothing came before."""
    root = request.scope.root
    return Past(
        scope=request.scope,
        name=None if nameless else request.name,
        thread=thread,
        base=root,
        depth=0,
        branch=MAIN,
        before=[],
        new=request.news(root),
    )


def _is_over(thread: Thread, request: Request, now: int) -> bool:
    """Nobody has said anything for too long: for a default thread, or for the workspace's retention."""
    idle = request.name.idle_ms if request.name is not None and thread.is_default else None
    limits = [limit for limit in (idle, request.keep_ms) if limit is not None]
    return bool(limits) and now - thread.updated_at > min(limits)


def _store() -> Any:
    # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
    from sluicegate.history import store  # noqa: PLC0415

    return store
