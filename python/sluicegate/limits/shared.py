"""Limits that several machines count together: one question for all limits of a request, and never a hang.

One task asks; requests wait for it, so that one that is cancelled leaves no answer behind on a connection.
What waits at a time is one question. Without an answer in time each process counts its share.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from sluicegate.clock import monotonic
from sluicegate.limits.admit import Scope
from sluicegate.limits.alone import COUNTED_ALONE, Alone
from sluicegate.limits.counted import Counted, counted
from sluicegate.limits.lease import Holding, Lease, Refused, Wish, levels_of, refused_of
from sluicegate.limits.untold import Untold
from sluicegate.storage.errors import LinkError
from sluicegate.telemetry.logs import Log

BEAT_SECONDS = 1.0
# A process that has not been heard of for so long is dead: its places are free.
LEASE_US = 5_000_000
START_SECONDS = 1.0
# The records of a budget are read again after so long, if nothing came of it.
READ_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_JOIN_SECONDS = 1.0
# Of one round: it has to be done well within its deadline.
_MOST_AT_ONCE, _MOST_OPS = 64, 512
_MOST_SCOPES = 10_000

Admitted = Lease | Refused
_encode = msgspec.msgpack.encode
_Answer = tuple[bool, str, int, list[list[Any]]]


class Link(Protocol):
    """The connection; `storage.redis_link.RedisLink` is one."""

    async def open(self) -> None:
        """Connect anew. Raises LinkError."""

    async def call(self, payload: bytes, seconds: float) -> bytes:
        """An answer, or LinkError."""

    def close(self) -> None:
        """Drop the connection."""


class _Waiting(NamedTuple):
    wish: Wish
    answer: "asyncio.Future[Admitted | None]"


class SharedLimits:
    """The limits of one worker process, where they are counted in Redis or Valkey."""

    def __init__(self, link: Link, alone: Alone, log: Log, *, source: str, deadline: float) -> None:
        """`source`: names the usage records that budgets are read from; "" where none are kept."""
        self._link = link
        self._alone = alone
        self._log = log
        self._source = source
        self._deadline = deadline
        # Whether the machines count together at the moment, and how many processes do.
        self.is_shared = False
        self.processes = 0
        # How often a request was decided by the share of this process.
        self.counted_alone = 0
        # Told of a scope whose budgets are new there: `seed` is expected.
        self.on_unseeded: Callable[[Scope], None] | None = None
        self._name, self._number = "", 0
        self._waiting: deque[_Waiting] = deque()
        self._asking: list[_Waiting] = []
        self._open: set[Holding] = set()
        self._counted: dict[object, tuple[Counted, ...]] = {}
        # Budgets whose records are being read, and since when.
        self._seeding: dict[str, float] = {}
        self._untold = Untold()
        self._wake = asyncio.Event()
        self._joined = asyncio.Event()
        self._lost_at: float | None = None
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Begin; waits for the first contact, but not long."""
        self._task = asyncio.create_task(self._run())
        waiting = asyncio.create_task(self._joined.wait())
        await asyncio.wait([waiting], timeout=START_SECONDS)
        waiting.cancel()

    async def stop(self) -> None:
        """Tell what has ended, and that this process leaves."""
        self._is_stopping = True
        self._wake.set()
        if self._task is not None:
            # A round that is under way has its deadline.
            await asyncio.wait([self._task], timeout=START_SECONDS)
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._beat is not None:
            self._beat.cancel()
        if self.is_shared:
            # Without an answer the others find out by themselves.
            with suppress(LinkError):
                while self._untold:
                    await self._send([], self._untold.take(_MOST_OPS))
                leaving = {**Untold().news(()), "before": [self._name]}
                await self._link.call(self._payload(join=leaving, leaves=True), self._deadline)
        self.is_shared = False
        self._link.close()

    async def admit(self, scopes: tuple[Scope, ...], tokens: int, micros: int) -> Admitted:
        """Reserve all or nothing."""
        wish = Wish(scopes, [self._rules(scope) for scope in scopes], tokens, micros)
        if self.is_shared and not self._is_stopping:
            waiting = _Waiting(wish, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            self._wake.set()
            try:
                answer = await waiting.answer
            except asyncio.CancelledError:
                if waiting.answer.done() and not waiting.answer.cancelled():
                    given = waiting.answer.result()
                    if given is not None:
                        given.settle(0, 0)
                raise
            if answer is not None:
                return answer
        return self._admit_alone(wish)

    def seed(self, scope: Scope, kind: str, spent: int) -> None:
        """What the records say was spent of a budget before it was counted here."""
        for one in self._rules(scope):
            if one.kind == kind:
                self._seeding.pop(one.key, None)
                self._alone.learn(one.key, spent)
                self._untold.add(["seed", one.key, one.every, spent])
                self._wake.set()

    def correct(self, key: str, every: str, difference: int, opened_us: int) -> None:
        """A request of a dead process has used so much more than it had reserved. From any thread."""
        self._untold.add(["correct", key, every, difference, opened_us])

    def _rules(self, scope: Scope) -> tuple[Counted, ...]:
        found = self._counted.get(scope.rules)
        if found is None:
            if len(self._counted) >= _MOST_SCOPES:
                self._counted.clear()
            found = counted(scope.subject, scope.id, scope.limits, scope.budget)
            self._counted[scope.rules] = found
        return found

    def _admit_alone(self, wish: Wish) -> Admitted:
        self.counted_alone += 1
        for scope, rules in zip(wish.scopes, wish.rules, strict=True):
            if self._alone.unknown(rules):
                self._ask_records(scope, rules)
        admission, number = self._alone.admit(wish.scopes, wish.rules, wish.tokens, wish.micros)
        headers = [*admission.headers, COUNTED_ALONE]
        if admission.refused is not None:
            kind = admission.refused[1]
            return Refused((number, kind), admission.reason, admission.retry_after_ms, headers)
        holding = Holding(wish)
        holding.alone = admission
        self._open.add(holding)
        return Lease(holding, headers, admission.budget, self._end)

    def _ask_records(self, scope: Scope, rules: tuple[Counted, ...]) -> None:
        now, keys = monotonic(), [one.key for one in rules if one.code == "budget"]
        if self.on_unseeded is None or any(
            now - self._seeding.get(key, -READ_SECONDS) < READ_SECONDS for key in keys
        ):
            return
        if len(self._seeding) >= _MOST_SCOPES:
            self._seeding.clear()
        self._seeding |= dict.fromkeys(keys, now)
        self.on_unseeded(scope)

    def _end(self, holding: Holding, tokens: int, micros: int) -> None:
        """The answer of a request has ended."""
        self._open.discard(holding)
        if holding.alone is not None:
            holding.alone.settle(tokens, micros)
        untold = self._untold
        untold.add(*holding.settled_rates(tokens, micros))
        is_held = self.is_shared and holding.joined == self._name
        wish = holding.wish
        for one in wish.all_rules:
            if one.code == "place" and is_held:
                untold.add(["place", one.key])
            elif one.code == "budget":
                spent = one.amount(tokens, micros)
                if self.is_shared:
                    held = one.amount(wish.tokens, wish.micros) if is_held else 0
                    untold.add(["budget", one.key, one.every, held, spent])
                else:
                    untold.owe(one.key, one.every, spent)
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()

        def beat() -> None:
            self._wake.set()
            self._beat = loop.call_later(BEAT_SECONDS, beat)

        beat()
        try:
            while not self._is_stopping:
                try:
                    if not self.is_shared:
                        await self._return()
                    await self._wake.wait()
                    self._wake.clear()
                    await self._round()
                except Exception as error:  # noqa: BLE001 (nobody may wait for ever)
                    self._lose(f"internal:{type(error).__name__}", [])
                    await asyncio.sleep(_LONGEST_PAUSE)
        finally:
            # Whoever comes now would wait for nobody.
            self._is_stopping = True
            self._answer_nothing()

    async def _round(self) -> None:
        """One question with all that waits."""
        asking = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
        self._asking = asking
        ops = self._untold.take(_MOST_OPS)
        if self._waiting or self._untold:
            self._wake.set()
        try:
            is_known, now, self.processes, answers = await self._send([one.wish for one in asking], ops)
            if not is_known:
                # It was taken for dead, or the server has forgotten all: nothing of this round was done.
                self.is_shared = False
                self._untold.forgotten(self._name, ops)
                await self._join(self._deadline)
                self._waiting.extendleft(reversed(asking))
                self._asking = []
                return
        except LinkError as error:
            self._lose(str(error), ops)
            return
        at = int(now)
        for one, answer in zip(asking, answers, strict=True):
            found = self._answered(one.wish, answer, at)
            if one.answer.done():
                # Who asked has gone.
                found.settle(0, 0)
            else:
                one.answer.set_result(found)
        self._asking = []

    async def _send(self, wishes: list[Wish], ops: list[list[Any]]) -> _Answer:
        self._number += 1
        admits = [[one.asked(w.tokens, w.micros) for one in w.all_rules] for w in wishes]
        return _decoded(await self._link.call(self._payload(ops, admits), self._deadline))

    def _payload(self, ops: list[Any] | None = None, admits: list[Any] | None = None, **more: Any) -> bytes:
        return _encode(
            {
                "process": self._name,
                "source": self._source,
                "lease": LEASE_US,
                "number": self._number,
                "settles": ops or [],
                "admits": admits or [],
                **more,
            }
        )

    def _answered(self, wish: Wish, answer: list[Any], at: int) -> Admitted:
        if not answer[0]:
            return refused_of(wish, answer)
        _, levels, unseeded = answer
        holding = Holding(wish)
        holding.marks, holding.at, holding.joined = levels, at, self._name
        self._open.add(holding)
        rules = wish.all_rules
        for one, level in zip(rules, levels, strict=True):
            if one.code == "budget":
                self._alone.note_used(one.key, int(level) + one.amount(wish.tokens, wish.micros))
        if unseeded:
            new = {rules[number].key for number in unseeded}
            for scope, own in zip(wish.scopes, wish.rules, strict=True):
                if any(one.key in new for one in own):
                    self._ask_records(scope, own)
        headers, budget = levels_of(wish, levels)
        return Lease(holding, headers, budget, self._end)

    def _lose(self, cause: str, ops: list[list[Any]]) -> None:
        """No answer: from here on this process counts its share. What was asked last was done or was not."""
        self._link.close()
        if self.is_shared:
            self.is_shared = False
            self._untold.unanswered(self._name, self._number, ops)
        self._begin_alone(cause)
        self._answer_nothing()

    def _begin_alone(self, cause: str) -> None:
        if self._lost_at is not None:
            return
        self._lost_at = monotonic()
        self._alone.begin(self.processes)
        for holding in self._open:
            if holding.alone is not None:
                holding.alone.settle(0, 0)
            holding.alone = self._alone.hold_places(holding.wish.scopes, holding.wish.rules)
        self._log.warning(
            "limits_not_shared",
            cause=cause,
            shares=self._alone.processes,
            message="Redis does not answer: each process counts one share of every limit until it does.",
        )

    def _answer_nothing(self) -> None:
        """Who waits decides alone."""
        for one in (*self._asking, *self._waiting):
            if not one.answer.done():
                one.answer.set_result(None)
        self._asking = []
        self._waiting.clear()

    async def _return(self) -> None:
        """Until the machines count together again."""
        pause = _FIRST_PAUSE
        while not self.is_shared and not self._is_stopping:
            try:
                await self._link.open()
                await self._join(_JOIN_SECONDS)
            except LinkError as error:
                self._begin_alone(str(error))
                self._answer_nothing()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _join(self, seconds: float) -> None:
        """Under a new name, with what this process holds and has spent meanwhile. Raises LinkError."""
        holding = list(self._open)
        news = self._untold.news(holding)
        self._name, self._number = f"{os.getpid()}-{os.urandom(8).hex()}", 1
        try:
            _, _, self.processes, _ = _decoded(await self._link.call(self._payload(join=news), seconds))
        except LinkError:
            self._untold.not_joined(self._name, news)
            raise
        self.is_shared = True
        self._untold.joined()
        for one in holding:
            if one in self._open:
                one.joined = self._name
                continue
            # It has ended meanwhile; what it spent is told already.
            for code, key, every, amount in one.held():
                self._untold.add(["place", key] if code == "place" else ["budget", key, every, amount, 0])
        if self._lost_at is not None:
            seconds = round(monotonic() - self._lost_at, 3)
            self._log.info("limits_shared_again", seconds=seconds, counted_alone=self.counted_alone)
            self._lost_at = None
        self._joined.set()
        self._wake.set()


def _decoded(answer: bytes) -> _Answer:
    try:
        found: _Answer = msgspec.msgpack.decode(answer, type=_Answer)
    except msgspec.MsgspecError:
        raise LinkError("unexpected_answer") from None
    return found
