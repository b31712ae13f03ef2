"""Ask upstreams that have no configured list which models they serve, in the background."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from sluicegate.clock import monotonic
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams.model import Upstream

if TYPE_CHECKING:
    from sluicegate.engine import Engine

LIMIT = 5.0
PERIOD = 300.0
# After a failure: soon again, since the server may just be starting.
FIRST_RETRY = 5.0
# More models than any server has; the list is kept in memory and copied into each answer.
_MOST_MODELS = 10_000
LONGEST_CONTEXT = 100_000_000
# The end of the year 9999: what is beyond is no time in seconds.
_LAST_SECOND = 253_402_300_799

# Model id → when the upstream says it was made (Unix seconds), or None; in the order of its list.
Models = Mapping[str, int | None]
Learn = Callable[[str, Models | None], None]


class Card(Struct):
    """One entry of a list of models, as far as it is read."""

    id: str
    # Some servers write a float or a text here: that is no reason to refuse the list.
    created: Any = None
    # vLLM; OpenRouter, Together and others; Groq; llama.cpp in `meta.n_ctx`. Some put texts or nulls there.
    max_model_len: object = None
    context_length: object = None
    context_window: object = None
    meta: object = None

    def tokens(self) -> int | None:
        """The length of the model's context, where the card tells it."""
        meta = self.meta.get("n_ctx") if isinstance(self.meta, dict) else None
        for given in (self.max_model_len, self.context_length, self.context_window, meta):
            if type(given) is int and 0 < given <= LONGEST_CONTEXT:
                return given
        return None


class _List(Struct):
    data: list[Card]


_decoder = msgspec.json.Decoder(_List)


class Discovery:
    """Keeps the model lists of `upstreams` fresh; `learn(upstream name, models or None)` takes them."""

    def __init__(self, engine: "Engine", upstreams: Sequence[Upstream], learn: Learn, log: Log) -> None:
        self._engine = engine
        self._upstreams = upstreams
        self._learn = learn
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending = {upstream.name for upstream in upstreams}
        self._failed: set[str] = set()
        self._running: dict[str, asyncio.Task[bool]] = {}
        self._asked_at: dict[str, float] = {}

    def start(self) -> None:
        """Begin; returns at once, so that listening never waits for an upstream."""
        for upstream in self._upstreams:
            self._tasks.add(asyncio.create_task(self._keep(upstream)))

    async def stop(self) -> None:
        """End the background work."""
        tasks = [*self._tasks, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_settled(self) -> bool:
        """Every upstream has been asked once, with whatever result."""
        return not self._pending

    async def settle(self) -> None:
        """For a request that needs the default model: wait for the first answers, ask failed ones again.

        Bounded by `LIMIT`, and by one question per upstream every `FIRST_RETRY` seconds.
        """
        now = monotonic()
        due = [
            upstream
            for upstream in self._upstreams
            if upstream.name in self._pending
            or (upstream.name in self._failed and now - self._asked_at.get(upstream.name, 0) >= FIRST_RETRY)
            or upstream.name in self._running
        ]
        if due:
            await asyncio.wait([self._ask_once(upstream) for upstream in due], timeout=LIMIT)

    async def _keep(self, upstream: Upstream) -> None:
        pause = FIRST_RETRY
        while True:
            found = await asyncio.shield(self._ask_once(upstream))
            if found:
                pause = FIRST_RETRY
                await asyncio.sleep(PERIOD)
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, PERIOD)

    def _ask_once(self, upstream: Upstream) -> "asyncio.Task[bool]":
        """The question under way, or a new one: callers share it."""
        running = self._running.get(upstream.name)
        if running is None:
            running = asyncio.create_task(self._ask(upstream))
            self._running[upstream.name] = running
            running.add_done_callback(lambda _: self._running.pop(upstream.name, None))
        return running

    async def _ask(self, upstream: Upstream) -> bool:
        self._asked_at[upstream.name] = monotonic()
        models, cause = await self._list(upstream)
        first = upstream.name in self._pending
        self._pending.discard(upstream.name)
        if models:
            self._failed.discard(upstream.name)
            self._learn(upstream.name, models)
            return True
        if first or upstream.name not in self._failed:
            self._log.warning(
                "discovery_failed",
                upstream=upstream.name,
                cause=cause,
                message="GET /models below its base URL gave no list of models",
            )
        self._failed.add(upstream.name)
        self._learn(upstream.name, None)
        return False

    async def _list(self, upstream: Upstream) -> tuple[Models, str]:
        """What the upstream lists, or nothing and the cause."""
        reply = await self._engine.call(
            upstream.handle, "models", None, first_event_timeout=LIMIT, total_timeout=LIMIT
        )
        if reply.failure is not None:
            return {}, reply.failure.cause
        found = read_cards(reply.body)
        if found is None:
            return {}, "upstream_invalid_answer"
        lengths = {model: tokens for model, card in found.items() if (tokens := card.tokens()) is not None}
        upstream.learn_context(lengths)
        return {model: _seconds(card.created) for model, card in found.items()}, "upstream_empty"


def read_cards(body: bytes) -> dict[str, Card] | None:
    """The entries of a list of models by their ids; None for what is no such list."""
    try:
        cards = _decoder.decode(body).data
    except msgspec.MsgspecError:
        return None
    found: dict[str, Card] = {}
    for card in cards[:_MOST_MODELS]:
        if card.id and card.id.isprintable():
            found.setdefault(card.id, card)
    return found


def _seconds(created: Any) -> int | None:
    # Not isinstance: `true` is no time.
    is_time = type(created) in (int, float) and 0 < created <= _LAST_SECOND
    return int(created) if is_time else None
