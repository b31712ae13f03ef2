"""Streamed answers as iterators and context managers, one for each client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from sluicegate.client.blocking_transport import run_now
from sluicegate.client.errors import ClientError

if TYPE_CHECKING:
    from types import TracebackType

    from sluicegate.client.answer import Answer
    from sluicegate.client.steps import Streaming
    from sluicegate.engine import Chunk

T = TypeVar("T")
FindModel = Callable[[], Awaitable[str]]


class AsyncStream(Generic[T]):
    """The chunks of an answer: `async for`, best inside `async with`, which closes it when the block is
    left early.

    The request is sent at the first chunk that is asked for. After the last one, `answer` is the whole
    answer.
    """

    def __init__(self, steps: Streaming[T], model: FindModel) -> None:
        self._steps = steps
        self._model = model
        # The ready chunks, the next one last.
        self._ready: list[Chunk] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        ready = self._ready
        if not ready:
            ready = await self._steps.more(self._model)
            if not ready:
                raise StopAsyncIteration
            ready.reverse()
            self._ready = ready
        return ready.pop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it; the connection is closed if the answer has not come whole."""
        self._ready.clear()
        self._steps.close()

    async def until_end(self) -> Answer[T]:
        """Pass over the chunks that are left, and return the whole answer."""
        while await self._steps.more(self._model):
            pass
        self._ready.clear()
        return self.answer

    @property
    def answer(self) -> Answer[T]:
        """The whole answer. Raises ClientError before the end."""
        return _answer(self._steps)


class Stream(Generic[T]):
    """The chunks of an answer: `for`, best inside `with`, which closes it when the block is left early.

    The request is sent at the first chunk that is asked for. After the last one, `answer` is the whole
    answer.
    """

    def __init__(self, steps: Streaming[T], model: FindModel) -> None:
        self._steps = steps
        self._model = model
        self._ready: list[Chunk] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        ready = self._ready
        if not ready:
            ready = run_now(self._steps.more(self._model))
            if not ready:
                raise StopIteration
            ready.reverse()
            self._ready = ready
        return ready.pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; the connection is closed if the answer has not come whole."""
        self._ready.clear()
        self._steps.close()

    def until_end(self) -> Answer[T]:
        """Pass over the chunks that are left, and return the whole answer."""
        while run_now(self._steps.more(self._model)):
            pass
        self._ready.clear()
        return self.answer

    @property
    def answer(self) -> Answer[T]:
        """The whole answer. Raises ClientError before the end."""
        return _answer(self._steps)


def _answer(steps: Streaming[T]) -> Answer[T]:
    if steps.answer is None:
        raise ClientError("The answer is whole only after its last chunk: iterate to the end first.")
    return steps.answer
