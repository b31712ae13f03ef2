"""The tokens of a request that its upstream does not tell: counted at its end, if the tokenizer is known."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from sluicegate.tokens.core import Said
from sluicegate.usage.tell import Used

if TYPE_CHECKING:
    from sluicegate.chat.window import Prompt, TokenCount

# A longer prompt is counted when its stream begins: it must not stay in memory for as long as that lasts.
KEPT_BYTES = 32 * 1024


class Counting(Protocol):
    """The part of `PromptCounter` that counts what has ended."""

    async def count(self, prompt: "Prompt") -> "TokenCount":
        """The tokens of a prompt, or an estimate."""

    async def count_said(self, prompt: "Prompt", said: Said) -> int | None:
        """The tokens of an answer; None: there was no time, or no tokenizer."""

    def count_now(self, prompt: "Prompt", said: Said) -> tuple[int | None, int | None]:
        """Both, as far as they cost the event loop nothing; None for the rest."""


class Meter:
    """One call of an upstream. What it holds is let go when it has been counted."""

    __slots__ = ("_ahead", "_counting", "_prompt", "said")

    def __init__(self, counting: Counting, prompt: "Prompt", said: Said) -> None:
        """`said` gets the texts of the answer from the core."""
        self._counting = counting
        self._prompt: Prompt | None = prompt
        self._ahead: asyncio.Task[int | None] | None = None
        self.said = said

    def begin(self) -> None:
        """The answer is a stream, which has begun."""
        prompt = self._prompt
        if prompt is not None and len(prompt.body) > KEPT_BYTES:
            self._ahead = asyncio.create_task(self._count(prompt))
            self._prompt = prompt._replace(body=b"")

    async def measure(self, estimated: int) -> Used:
        """What was used. `estimated`: the tokens of the prompt, where they cannot be counted."""
        prompt = self._prompt
        if prompt is None:
            return Used(estimated, 0)
        try:
            of_prompt = await (self._ahead or self._count(prompt))
            said = await self._counting.count_said(prompt, self.said)
        finally:
            self._drop()
        return _used(of_prompt, said, estimated)

    def measure_now(self, estimated: int) -> Used:
        """The same where nobody can wait: what takes long is estimated."""
        prompt, ahead = self._prompt, self._ahead
        if prompt is None:
            return Used(estimated, 0)
        of_prompt, said = self._counting.count_now(prompt, self.said)
        if ahead is not None and ahead.done() and not ahead.cancelled():
            of_prompt = ahead.result()
        self._drop()
        return _used(of_prompt, said, estimated)

    async def _count(self, prompt: "Prompt") -> int | None:
        found = await self._counting.count(prompt)
        return found.tokens if found.counted else None

    def _drop(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        self._prompt = self._ahead = None


def _used(prompt: int | None, said: int | None, estimated: int) -> Used:
    """Both were counted, or it is an estimate."""
    known = prompt is not None and said is not None
    return Used(
        estimated if prompt is None else prompt, said or 0, source="counted" if known else "estimated"
    )
