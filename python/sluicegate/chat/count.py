"""Counting with the tokenizer of the model: beside the event loop, within a time, else estimated."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sluicegate.chat.meter import Meter
from sluicegate.chat.prepare import Operation
from sluicegate.chat.window import Prompt, TokenCount, estimate
from sluicegate.clock import monotonic
from sluicegate.tokens.core import Said, count_prompt
from sluicegate.upstreams.tokenizers import open_tokenizer, tokenizer_name

if TYPE_CHECKING:
    from sluicegate.telemetry.logs import Log
    from sluicegate.tokens.encoding import Encoding
    from sluicegate.upstreams.model import Candidate

T = TypeVar("T")

# What takes longer is estimated. Bundled encodings count 30 to 400 MB in it, and 5 MB of the worst text.
BUDGET_SECONDS = 1.0
# Counted on the loop: 10 µs as a rule and 0.7 ms at worst, where a thread costs 100 µs.
INLINE_BYTES = 4 * 1024
# Short prompts have a thread of their own and do not wait behind long ones; one takes 25 ms at worst.
SHORT_BYTES = 128 * 1024
SHORT_FILE_BYTES = 16 * 1024
# While so much waits for a thread, more would not have its turn in time.
WAITING_BYTES = 4 * 1024 * 1024
# The library for `tokenizer.json` counts a megabyte a second, and cannot be stopped within a text.
FILE_BYTES = 1024 * 1024
# A tokenizer that cannot be loaded is tried again after so long: its file may have been put right.
RETRY_SECONDS = 60.0
MOST_KEPT = 64


class PromptCounter:
    """Counts exactly where the tokenizer is known and there is time. The rest it estimates, and says so.

    Nothing is loaded, and no thread is started, before a prompt has to be counted. A chat that is sent again
    is not counted again: the core remembers the count of each message by a keyed hash.
    """

    def __init__(self, log: "Log", *, budget: float = BUDGET_SECONDS) -> None:
        self._log = log
        self._budget = budget
        self._loading = _Lane("load-tokenizer")
        self._short = _Lane("count-short")
        self._long = _Lane("count-long")
        self._kept: dict[str, _Kept] = {}

    def knows(self, candidate: "Candidate") -> bool:
        """The tokenizer of this model is known, so that `count` needs the body."""
        upstream, model = candidate
        return tokenizer_name(upstream.config, model) is not None

    async def count(self, prompt: Prompt) -> TokenCount:
        """The tokens of the prompt, within the budget whatever it is."""
        kept = self._known(prompt.candidate)
        if kept is None:
            return estimate(prompt)
        found = await self._within(kept, len(prompt.body), partial(_counted, prompt))
        return estimate(prompt) if found is None else found

    def meter(self, operation: Operation, candidate: "Candidate", body: bytes) -> Meter | None:
        """For a call whose upstream may not tell what was used. None: its tokenizer is not known."""
        kept = self._known(candidate)
        if kept is None or kept.failed:
            return None
        # One that is being loaded is there when the answer ends.
        return Meter(self, Prompt(candidate, operation, body, 0, 0), Said(kept.tokenizer))

    async def count_said(self, prompt: Prompt, said: Said) -> int | None:
        """The tokens of an answer, within the budget; None: there was no time, or no tokenizer."""
        kept = self._known(prompt.candidate)
        if kept is None:
            return None
        return await self._within(kept, said.pending_bytes, partial(_count_said, said))

    def count_now(self, prompt: Prompt, said: Said) -> tuple[int | None, int | None]:
        """The tokens of prompt and answer, as far as that holds up nobody; None for the rest."""
        kept = self._known(prompt.candidate)
        tokenizer = None if kept is None else kept.tokenizer
        if tokenizer is None or tokenizer.is_file:
            return None, None
        of_prompt = None
        if 0 < len(prompt.body) < INLINE_BYTES:
            found = _counted(prompt, tokenizer, self._budget)
            of_prompt = found.tokens if found.counted else None
        short = said.pending_bytes < INLINE_BYTES
        return of_prompt, _count_said(said, tokenizer, self._budget) if short else None

    def close(self) -> None:
        """Leave what waits undone; what is being counted ends within the budget."""
        for lane in (self._loading, self._short, self._long):
            lane.close()
        self._kept.clear()

    async def _within(self, kept: "_Kept", size: int, work: "Callable[[Encoding, float], T]") -> "T | None":
        """`work`, told the seconds that are left: at once where that holds up nobody, else beside the loop.

        None: there was no time, or no tokenizer.
        """
        found = kept.tokenizer
        if found is not None and size < INLINE_BYTES and not found.is_file:
            return work(found, self._budget)
        until = monotonic() + self._budget
        try:
            async with asyncio.timeout(self._budget):
                if not kept.loading.done():
                    # A load goes on when this request has waited for long enough: the next one finds it.
                    await asyncio.shield(asyncio.wrap_future(kept.loading))
                tokenizer = kept.tokenizer
                if tokenizer is None or (tokenizer.is_file and size > FILE_BYTES):
                    return None
                lane = self._lane_of(tokenizer, size)
                if lane is None:
                    return None
                return await asyncio.wrap_future(
                    lane.submit(lambda: work(tokenizer, until - monotonic()), size)
                )
        except TimeoutError:
            return None

    def _lane_of(self, tokenizer: "Encoding", size: int) -> "_Lane | None":
        """None: it would not have its turn in time."""
        short = SHORT_FILE_BYTES if tokenizer.is_file else SHORT_BYTES
        lane = self._short if size < short else self._long
        return None if lane.waiting >= WAITING_BYTES else lane

    def _known(self, candidate: "Candidate") -> "_Kept | None":
        upstream, model = candidate
        name = tokenizer_name(upstream.config, model)
        return None if name is None else self._find(name, candidate)

    def _find(self, name: str, candidate: "Candidate") -> "_Kept":
        kept = self._kept.get(name)
        if kept is None or (kept.failed and monotonic() >= kept.retry_at):
            kept = _Kept(self._loading.submit(lambda: self._load(name, candidate)))
            self._kept[name] = kept
            if len(self._kept) > MOST_KEPT:
                # The oldest; upstreams that are no more are in nobody's way, but a file has some 100 MB.
                self._kept.pop(next(iter(self._kept)))
        return kept

    def _load(self, name: str, candidate: "Candidate") -> "Encoding | None":
        try:
            return open_tokenizer(name)
        except (ValueError, OSError, RuntimeError):
            upstream, model = candidate
            self._log.warning(
                "tokenizer_unusable",
                upstream=upstream.name,
                model=model,
                message="The tokenizer of this model cannot be loaded, so its prompts are estimated. "
                "`sluicegate check` says what is wrong.",
            )
            return None


class _Kept:
    """A tokenizer that is there, on its way, or could not be loaded."""

    __slots__ = ("loading", "retry_at")

    def __init__(self, loading: "Future[Encoding | None]") -> None:
        self.loading = loading
        self.retry_at = monotonic() + RETRY_SECONDS

    @property
    def tokenizer(self) -> "Encoding | None":
        return self.loading.result() if self.loading.done() else None

    @property
    def failed(self) -> bool:
        return self.loading.done() and self.loading.result() is None


class _Lane:
    """A thread, started when it is first needed, and how many bytes wait for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self.waiting = 0

    def submit(self, work: Callable[[], T], size: int = 0) -> Future[T]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, self._name)
        self._add(size)
        future = self._pool.submit(work)
        # Also where nobody waits any more: work that has begun goes on.
        future.add_done_callback(lambda _: self._add(-size))
        return future

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _add(self, size: int) -> None:
        with self._lock:
            self.waiting += size


def _counted(prompt: Prompt, tokenizer: "Encoding", seconds: float) -> TokenCount:
    """Count, in whatever thread; what the tokenizer cannot take is estimated."""
    model = prompt.candidate[1]
    try:
        found = count_prompt(prompt.operation, prompt.body, model, tokenizer, seconds)
    except (ValueError, RuntimeError):
        return estimate(prompt)
    if found is None:
        return estimate(prompt)
    return TokenCount(found.tokens, exact=found.exact, counted=True)


def _count_said(said: Said, tokenizer: "Encoding", seconds: float) -> int | None:
    """Count, in whatever thread; None for what the tokenizer cannot take."""
    try:
        return said.count(tokenizer, max(seconds, 0.0))
    except (ValueError, RuntimeError):
        return None
