"""Hooks around each request: to log, to cache, to change what is sent or handed out, and to try again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sluicegate.client.answer import Answer, Embeddings
from sluicegate.client.errors import ClientError

if TYPE_CHECKING:
    from sluicegate.client.request import Request
    from sluicegate.engine import Chunk

Result = Answer[Any] | Embeddings


class Middleware:
    """All hooks do nothing. Each may be `async def`; the blocking client runs only those that wait for
    nothing.

    The first of the list is the outermost: its `before` runs first, its `after` last. An answer given by a
    `before` is seen by the `after` of those outside of it.
    """

    def before(self, request: Request) -> Request | Result | Awaitable[Request | Result | None] | None:
        """Before a request is sent: another request to send, an answer to give instead, or None."""

    def after(self, request: Request, result: Any) -> Any:
        """After an answer: another one to give, or None. A stream's is the whole answer, at its end."""

    def on_chunk(self, request: Request, chunk: Chunk) -> Chunk | Awaitable[Chunk | None] | None:  # noqa: ARG002
        """For each chunk of a stream: the chunk to hand out, or None to leave this one out.

        The whole answer is not changed by it.
        """
        return chunk

    def on_error(
        self, request: Request, error: ClientError, attempt: int
    ) -> float | Awaitable[float | None] | None:
        """After the failure of try number `attempt`: the seconds to wait before another, or None for no
        other.

        Not asked once chunks of a stream were handed out.
        """


class Retry(Middleware):
    """Tries again what may succeed later: no connection, a timeout, 429, 5xx, a broken answer.

    Waits as long as the server says (Retry-After), else `first` seconds, doubled each time, up to
    `longest`, and less by up to a half at random, so that many clients do not come back at once. A server
    that wants a longer wait than `longest` ends it.
    """

    def __init__(self, tries: int = 3, *, first: float = 0.5, longest: float = 60.0) -> None:
        """`tries` counts the first one."""
        if tries < 1 or first < 0 or longest < 0:
            raise ValueError("Retry: tries must be at least 1, first and longest not negative")
        self._tries: Final = tries
        self._first: Final = first
        self._longest: Final = longest

    def on_error(self, request: Request, error: ClientError, attempt: int) -> float | None:  # noqa: ARG002
        if attempt >= self._tries or not error.retryable:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self._longest else None
        wait = min(self._first * 2.0 ** (attempt - 1), self._longest)
        return wait * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class Chain:
    """The middleware of one client; hooks that nobody overrides cost nothing."""

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        def with_hook(name: str) -> tuple[Middleware, ...]:
            base = getattr(Middleware, name)
            return tuple(m for m in middleware if getattr(type(m), name, base) is not base)

        self._all = tuple(middleware)
        self._before = with_hook("before")
        self._after = with_hook("after")[::-1]
        self._on_error = with_hook("on_error")[::-1]
        self._on_chunk = with_hook("on_chunk")[::-1]
        self.sees_chunks = bool(self._on_chunk)

    async def before(self, request: Request) -> tuple[Request, Result | None]:
        """The request to send, or an answer that makes it needless, as those outside of its giver see it."""
        for middleware in self._before:
            said = await _settled(middleware.before(request))
            if isinstance(said, Answer | Embeddings):
                outer = self._all[: self._all.index(middleware)]
                return request, await self._seen_by(outer, request, said)
            if said is not None:
                request = said
        return request, None

    async def after(self, request: Request, result: Any) -> Any:
        """The answer to give, where the server gave one."""
        return await self._seen_by(self._all, request, result)

    async def _seen_by(self, some: Sequence[Middleware], request: Request, result: Any) -> Any:
        for middleware in self._after:
            if middleware not in some:
                continue
            said = await _settled(middleware.after(request, result))
            result = result if said is None else said
        return result

    async def on_chunks(self, request: Request, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks to hand out."""
        kept: list[Chunk] = []
        for chunk in chunks:
            seen: Chunk | None = chunk
            for middleware in self._on_chunk:
                if seen is not None:
                    seen = await _settled(middleware.on_chunk(request, seen))
            if seen is not None:
                kept.append(seen)
        return kept

    async def wait_before_retry(self, request: Request, error: ClientError, attempt: int) -> float | None:
        """The seconds of the first hook that wants another try."""
        for middleware in self._on_error:
            wait: float | None = await _settled(middleware.on_error(request, error, attempt))
            if wait is not None:
                return wait
        return None


async def _settled(said: Any) -> Any:
    return await said if isinstance(said, Awaitable) else said
