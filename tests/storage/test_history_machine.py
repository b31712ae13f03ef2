"""Any interleaving of messages, resends, edits, retries, aborts, tools and responses, against a model of it.

A client that sends one message gets exactly the conversation that it had put before it; one that sends
everything gets nothing; each stored way is a conversation that somebody really had; nothing is stored twice;
nothing that was acknowledged is lost. `SLUICEGATE_HISTORY_EXAMPLES` says how many interleavings are tried.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from sluicegate import engine
from sluicegate.errors import GatewayError
from sluicegate.history import merge
from sluicegate.history.model import Name, Past, Place, Scope, Spot
from sluicegate.history.recall import History, Request
from sluicegate.storage import kept_schema
from sluicegate.storage.database import Database
from sluicegate.storage.group import GroupWriter
from sluicegate.storage.location import Location
from sluicegate.storage.shelf import Shelf

# One message: the role, the text, the ids of its calls, the call that it answers.
Message = tuple[str, str, tuple[str, ...], str | None]
Way = tuple[Message, ...]

numbers = count()
NAMES = (Name("n:a", "a"), Name("n:b", "b"), Name("u:ada"), Name("k:", None, 1_000_000))


def user(text: str) -> Message:
    return ("user", text, (), None)


def as_json(message: Message) -> dict[str, Any]:
    role, text, calls, answers = message
    found: dict[str, Any] = {"role": role, "content": text}
    if calls:
        made = [{"id": c, "type": "function", "function": {"name": "f", "arguments": "{}"}} for c in calls]
        found |= {"content": None, "tool_calls": made}
    if answers is not None:
        found["tool_call_id"] = answers
    return found


def as_message(found: dict[str, Any]) -> Message:
    calls = tuple(call["id"] for call in found.get("tool_calls") or ())
    return (found["role"], found.get("content") or "", calls, found.get("tool_call_id"))


@dataclass
class Asked:
    """A request that waits for its answer."""

    ref: int | None
    place: Place
    way: Way
    seen: Way | None


@dataclass
class Thread:
    """What the model knows of a thread."""

    tip: Way | None = None
    is_default: bool = False
    ways: set[Way] = field(default_factory=set)


class Machine(RuleBasedStateMachine):
    """Clients of one key and one assistant."""

    def __init__(self, runner: asyncio.Runner, database: Database, history: History) -> None:
        super().__init__()
        self.runner = runner
        self.database = database
        self.history = history
        self.scope = Scope("acme", f"key_{next(numbers)}", "asst_1")
        # The real id of a thread → what the model knows of it.
        self.threads: dict[str, Thread] = {}
        self.names: dict[str, str] = {}
        # All that was acknowledged, by thread.
        self.had: dict[str, set[Way]] = {}
        # Those of them that end with a whole answer.
        self.whole: set[tuple[str, Way]] = set()

    waiting = Bundle("waiting")
    answered = Bundle("answered")

    def send(self, name: Name | None, messages: Way, at: Spot | None = None) -> tuple[Past, Place] | None:
        """One request until it is committed."""
        body = json.dumps({"messages": [as_json(message) for message in messages]}).encode()
        scanned = engine.scan("chat", body)
        request = Request(self.scope, name, scanned.messages(), body, None, thoughts=True, at=at)
        past = self.runner.run(self.history.recall(request))
        assert past is not None
        place = self.runner.run(self.history.begin(past))
        return past, place

    def note(self, name: Name | None, past: Past, place: Place, way: Way) -> Asked:
        thread = self.threads.setdefault(
            place.thread, Thread(is_default=name is not None and name.is_default)
        )
        seen = thread.tip
        if past.name is not None and past.thread is None:
            self.names[past.name.ref] = place.thread
        if past.released:
            self.names = {ref: thread for ref, thread in self.names.items() if thread != place.thread}
        self.had.setdefault(place.thread, set()).add(way)
        return Asked(None, place, way, seen)

    def is_default(self, thread: str) -> bool:
        """A lone message without a name would continue it."""
        return any(name.is_default and self.names.get(name.ref) == thread for name in NAMES)

    def check_release(self, past: Past, messages: Way) -> None:
        """Who sends an answer back that a default thread has keeps the conversation."""
        if past.thread is None:
            assert not past.released
            return
        had = self.had.get(past.thread.id, set())
        known = {way[:end] for way in had for end in range(1, len(way) + 1)}
        length = max((n for n in range(1, len(messages) + 1) if messages[:n] in known), default=0)
        answered = any(message[0] == "assistant" for message in messages[:length])
        assert past.released == (answered and self.is_default(past.thread.id))

    def tip_of(self, name: Name) -> Way:
        """The conversation that a lone message continues."""
        thread = self.threads.get(self.names.get(name.ref, ""))
        return self.settled(thread.tip if thread is not None and thread.tip is not None else ())

    def settled(self, way: Way) -> Way:
        if way and way[-1][2]:
            # It waits for tools: the turn does not count.
            start = max(
                i for i, m in enumerate(way) if m[0] == "user" and (i == 0 or way[i - 1][0] != "user")
            )
            way = way[:start]
        return way

    @rule(target=waiting, name=st.sampled_from(NAMES))
    def be_overtaken(self, name: Name) -> Asked:
        """A slow answer: meanwhile the conversation has gone on by two turns."""
        slow = self.say(name, again=False, text=0)
        for _ in range(2):
            self.answer(self.say(name, again=False, text=0), "text")
        return slow

    @rule(target=waiting, way=answered, results=st.booleans())
    def go_on(self, way: tuple[str, Way], results: bool) -> Any:
        """`previous_response_id`: a new message, or the results of tools, behind any whole answer."""
        if way not in self.whole:
            return multiple()
        thread, before = way
        chain = self.chain(before)
        said: Way = (user(f"u{next(numbers)}"),)
        if results and before[-1][2]:
            said = tuple(("tool", f"r{next(numbers)}", (), call) for call in before[-1][2])
        else:
            before = self.settled(before)
        sent = self.send(None, said, Spot(thread, chain))
        assert sent is not None
        past, place = sent
        assert place.thread == thread
        assert past.released == self.is_default(thread)
        assert tuple(as_message(json.loads(node.body)) for node in past.before) == before
        return self.note(None, past, place, (*before, *said))

    @rule(target=waiting, name=st.sampled_from(NAMES), again=st.booleans(), text=st.integers(0, 3))
    def say(self, name: Name, again: bool, text: int) -> Asked:
        """One message: few texts, so that the same one comes again."""
        said = user(f"u{text}" if again else f"u{next(numbers)}")
        before = self.tip_of(name)
        sent = self.send(name, (said,))
        assert sent is not None
        past, place = sent
        assert tuple(as_message(json.loads(node.body)) for node in past.before) == before
        return self.note(name, past, place, (*before, said))

    @rule(
        target=waiting,
        way=answered,
        named=st.none() | st.sampled_from(NAMES),
        cut=st.integers(0, 6),
        edit=st.booleans(),
    )
    def resend(self, way: tuple[str, Way], named: Name | None, cut: int, edit: bool) -> Any:
        """The whole conversation, or its beginning, with a new or an edited message behind it."""
        kept = way[1][: max(len(way[1]) - cut, 0)]
        users = [place for place, message in enumerate(kept) if message[0] == "user"]
        if edit and users:
            # Also without a change: that is «regenerate».
            kept = kept[: users[-1]]
        messages = (*kept, user(f"e{next(numbers) % 5}" if edit else f"u{next(numbers)}"))
        if len(messages) < 2:
            # Nothing tells that this client keeps the conversation.
            return multiple()
        sent = self.send(named, messages)
        assert sent is not None
        past, place = sent
        assert past.before == []
        self.check_release(past, messages)
        if named is not None and named.shown is not None and named.ref in self.names:
            # Wherever else the same was said: the client says which one it means.
            assert place.thread == self.names[named.ref]
        return self.note(named, past, place, messages)

    @rule(target=waiting, way=answered)
    def regenerate(self, way: tuple[str, Way]) -> Any:
        users = [place for place, message in enumerate(way[1]) if message[0] == "user"]
        messages = way[1][: users[-1] + 1] if users else ()
        if len(messages) < 2:
            # Nothing tells that this client keeps the conversation.
            return multiple()
        sent = self.send(None, messages)
        assert sent is not None
        self.check_release(sent[0], messages)
        return self.note(None, *sent, messages)

    @rule(target=waiting, name=st.sampled_from(NAMES), wrong=st.booleans())
    def bring_results(self, name: Name, wrong: bool) -> Any:
        thread = self.threads.get(self.names.get(name.ref, ""))
        way = thread.tip if thread is not None and thread.tip is not None else ()
        calls = way[-1][2] if way else ()
        if wrong or not calls:
            with pytest.raises(GatewayError) as refused:
                self.send(name, (("tool", "x", (), f"nobody{next(numbers)}"),))
            assert refused.value.status == 400
            return multiple()
        results: Way = tuple(("tool", f"r{next(numbers)}", (), call) for call in calls)
        sent = self.send(name, results)
        assert sent is not None
        past, place = sent
        assert tuple(as_message(json.loads(node.body)) for node in past.before) == way
        return self.note(name, past, place, (*way, *results))

    @rule(target=answered, asked=consumes(waiting), kind=st.sampled_from(["text", "text", "same", "tools"]))
    def answer(self, asked: Asked, kind: str) -> tuple[str, Way]:
        calls = (f"c{next(numbers)}", f"c{next(numbers)}") if kind == "tools" else ()
        text = "" if calls else "ok" if kind == "same" else f"a{next(numbers)}"
        said: Message = ("assistant", text, calls, None)
        self.finish(asked, said, complete=True)
        way = (*asked.way, said)
        thread = self.threads[asked.place.thread]
        if thread.tip == asked.seen or thread.tip is None or len(thread.tip) - 1 <= len(asked.way):
            thread.tip = way
        self.had[asked.place.thread].add(way)
        self.whole.add((asked.place.thread, way))
        return asked.place.thread, way

    @rule(target=answered, asked=consumes(waiting))
    def abort(self, asked: Asked) -> tuple[str, Way]:
        """What had come is stored, and put into no request; a client may go on from it all the same."""
        said: Message = ("assistant", f"half{next(numbers)}", (), None)
        self.finish(asked, said, complete=False)
        self.had[asked.place.thread].add((*asked.way, said))
        return asked.place.thread, (*asked.way, said)

    @rule(asked=consumes(waiting))
    def fail(self, asked: Asked) -> None:
        """The upstream failed: the message stays, unanswered."""

    def finish(self, asked: Asked, said: Message, *, complete: bool) -> None:
        answer = {"choices": [{"index": 0, "message": as_json(said)}]}
        body = json.dumps(answer).encode()
        answers = merge.answers_of(body, asked.place.parent, complete=complete, thoughts=True)
        self.runner.run(self.history.finish(asked.place, answers))

    def digests(self, messages: Way) -> list[engine.Message]:
        return [engine.Message(json.dumps(as_json(message)).encode()) for message in messages]

    def teardown(self) -> None:
        """The tree that is stored is the one that the model has."""
        stored = self.runner.run(self.stored())
        for thread in {*stored, *self.had}:
            wanted = {way[:end] for way in self.had.get(thread, set()) for end in range(1, len(way) + 1)}
            found = stored.get(thread, [])
            assert len(found) == len(set(found)), "a message is stored twice"
            assert set(found) == wanted
        tips = self.runner.run(self.tips())
        for ref, thread in self.threads.items():
            assert tips.get(ref) == (None if thread.tip is None else self.chain(thread.tip)), "another tip"

    def chain(self, way: Way) -> bytes:
        return engine.chain(self.scope.root, [message.digest for message in self.digests(way)])[-1]

    async def tips(self) -> dict[str, bytes | None]:
        """What a new message follows, by thread."""
        threads = kept_schema.history_threads
        query = select(threads.c.id, threads.c.tip).where(threads.c.owner == self.scope.owner)
        async with self.database.read() as view:
            return {row.id: row.tip for row in (await view.execute(query)).all()}

    async def stored(self) -> dict[str, list[Way]]:
        """Every stored message with the way to it, by thread."""
        threads, messages = kept_schema.history_threads, kept_schema.history_messages
        query = select(messages).join(threads, threads.c.id == messages.c.thread)
        async with self.database.read() as view:
            rows = (await view.execute(query.where(threads.c.owner == self.scope.owner))).all()
        by_place = {(row.thread, row.chain): row for row in rows}
        found: dict[str, list[Way]] = {}
        for row in rows:
            way: list[Message] = []
            at = row
            while at is not None:
                way.append(as_message(json.loads(at.body)))
                assert (at.parent == self.scope.root) == (at.depth == 0)
                at = by_place.get((at.thread, at.parent))
            assert len(way) == row.depth + 1
            found.setdefault(row.thread, []).append(tuple(reversed(way)))
        return found


async def _open(location: Location) -> tuple[Database, History]:
    database = await Database.open(location)
    shelf = Shelf(configured=True)
    shelf.open(database, GroupWriter(database))
    return database, History(shelf)


@pytest.mark.timeout(600)
def test_any_interleaving_is_the_conversation_that_clients_had(
    location: Location,
) -> None:
    with asyncio.Runner() as runner:
        database, history = runner.run(_open(location))
        examples = int(os.environ.get("SLUICEGATE_HISTORY_EXAMPLES", "40"))
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                lambda: Machine(runner, database, history),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.close())
