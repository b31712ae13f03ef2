"""Kept conversations in both databases: whose they are, what late answers move, how they end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import func, select, text, update

from sluicegate import engine
from sluicegate.archive import store as archive
from sluicegate.archive.model import Wanted
from sluicegate.errors import GatewayError
from sluicegate.history import merge, store
from sluicegate.history.expire import DAY_MS, sweep
from sluicegate.history.model import Name, Past, Place, Scope
from sluicegate.history.recall import History, Request
from sluicegate.storage import kept_schema
from sluicegate.storage.database import Database, now_ms
from sluicegate.storage.errors import InvalidError, NotFoundError
from sluicegate.storage.group import GroupWriter
from sluicegate.storage.page import PageQuery
from sluicegate.storage.shelf import Shelf
from sluicegate.storage.transaction import Actor
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceSettings

pytestmark = pytest.mark.asyncio

ADA = Scope("acme", "key_ada", "asst_1")
NAMED = Name("n:chat", "chat")
DEFAULT = Name("k:", None, 1_000)


@pytest_asyncio.fixture
async def shelf(database: Database) -> Shelf:
    made = Shelf(configured=True)
    made.open(database, GroupWriter(database))
    return made


@pytest.fixture
def talk(shelf: Shelf) -> Talk:
    return Talk(History(shelf))


class Talk:
    """Requests and answers without HTTP."""

    def __init__(self, history: History) -> None:
        self.history = history

    async def ask(
        self, *said: Any, scope: Scope = ADA, name: Name | None = NAMED, keep_ms: int | None = None
    ) -> tuple[Past, Place]:
        messages = [{"role": "user", "content": one} if isinstance(one, str) else one for one in said]
        body = json.dumps({"messages": messages}).encode()
        request = Request(scope, name, engine.scan("chat", body).messages(), body, keep_ms, thoughts=True)
        past = await self.history.recall(request)
        assert past is not None
        return past, await self.history.begin(past)

    async def answer(self, place: Place, content: str, *, complete: bool = True, **more: Any) -> None:
        message = {"role": "assistant", "content": content, "refusal": None, "annotations": [], **more}
        body = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
        answers = merge.answers_of(body, place.parent, complete=complete, thoughts=True)
        await self.history.finish(place, answers)

    async def turn(self, asked: str, said: str, **options: Any) -> Past:
        past, place = await self.ask(asked, **options)
        await self.answer(place, said)
        return past


def told(past: Past) -> list[Any]:
    return [json.loads(node.body).get("content") for node in past.before]


async def test_an_answer_that_is_late_does_not_take_the_conversation_back(talk: Talk) -> None:
    await talk.turn("one", "1")
    _, slow = await talk.ask("two")
    # The client did not wait, and asked again.
    _, quick = await talk.ask("two")
    await talk.answer(quick, "2")
    await talk.turn("three", "3")
    await talk.answer(slow, "2, but late")
    past, _ = await talk.ask("four")
    assert told(past) == ["one", "1", "two", "2", "three", "3"]


async def test_a_message_that_was_not_answered_is_the_same_when_it_comes_again(
    talk: Talk, database: Database
) -> None:
    await talk.turn("one", "1")
    for _ in range(3):
        past, place = await talk.ask("two")
        assert told(past) == ["one", "1"]
        assert place.branch == "main"
    await talk.answer(place, "half an ans", complete=False)
    past, place = await talk.ask("two")
    assert told(past) == ["one", "1"]
    # Beside the half answer, a whole one is another branch.
    assert place.branch != "main"
    await talk.answer(place, "2")
    assert told((await talk.ask("three"))[0]) == ["one", "1", "two", "2"]
    async with database.read() as view:
        count = select(func.count()).select_from(kept_schema.history_messages)
        assert (await view.execute(count)).scalar_one() == 6


@pytest.mark.parametrize(
    "other",
    [ADA._replace(owner="key_bob"), ADA._replace(assistant="asst_2"), ADA._replace(workspace="zeta")],
)
async def test_nobody_else_continues_it(talk: Talk, other: Scope) -> None:
    await talk.turn("one", "1")
    past, place = await talk.ask("two", scope=other)
    assert told(past) == []
    # Neither by the thread's id nor by its messages.
    mine, _ = await talk.ask("mine")
    assert mine.thread is not None
    by_id, _ = await talk.ask("three", scope=other, name=Name(f"n:{mine.thread.id}", mine.thread.id))
    assert told(by_id) == []
    whole = ({"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}, "two")
    by_messages, there = await talk.ask(*whole, scope=other, name=None)
    assert by_messages.thread is None
    assert there.thread not in (mine.thread.id, place.thread)


async def test_a_thread_without_a_name_is_continued_by_its_id_and_by_its_messages(talk: Talk) -> None:
    _, first = await talk.ask("one", name=None)
    await talk.answer(first, "1")
    past, place = await talk.ask("two", name=Name(f"n:{first.thread}", first.thread))
    assert (told(past), place.thread) == (["one", "1"], first.thread)
    # As another client writes the same: parts, white space, other fields.
    parts = {"role": "user", "content": [{"type": "text", "text": " one\n"}]}
    said = {"role": "assistant", "content": "1 ", "reasoning_content": "hm", "refusal": None}
    past, place = await talk.ask(parts, said, "three", name=None)
    assert (told(past), place.thread, len(past.new)) == ([], first.thread, 1)


async def test_the_default_thread_ends_when_nobody_speaks(talk: Talk, database: Database) -> None:
    await talk.turn("one", "1", name=DEFAULT)
    past, first = await talk.ask("two", name=DEFAULT)
    assert told(past) == ["one", "1"]
    async with database.note() as view:
        await view.execute(update(kept_schema.history_threads).values(updated_at=now_ms() - 2_000))
    past, second = await talk.ask("three", name=DEFAULT)
    assert told(past) == []
    assert second.thread != first.thread
    await talk.answer(second, "3")
    assert told((await talk.ask("four", name=DEFAULT))[0]) == ["three", "3"]


async def test_a_client_that_sends_everything_begins_anew_with_a_lone_message(talk: Talk) -> None:
    await talk.turn("hello", "1", name=DEFAULT)
    whole = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "1"}, "more")
    past, place = await talk.ask(*whole, name=DEFAULT)
    assert past.released
    await talk.answer(place, "2")
    # The next chat of this client: nothing of the last one belongs into it.
    past, other = await talk.ask("hello", name=DEFAULT)
    assert told(past) == []
    assert other.thread != place.thread


async def test_two_that_begin_at_once_are_one_thread(talk: Talk, database: Database) -> None:
    begun = await asyncio.gather(*(talk.ask(f"m{n}") for n in range(8)))
    assert len({place.thread for _, place in begun}) == 1
    assert len({place.branch for _, place in begun}) >= 1
    for number, (_, place) in enumerate(begun):
        await talk.answer(place, f"a{number}")
    past, _ = await talk.ask("next")
    assert told(past) == ["m7", "a7"]
    async with database.read() as view:
        count = select(func.count()).select_from(kept_schema.history_messages)
        assert (await view.execute(count)).scalar_one() == 17


async def test_results_of_tools_find_their_calls(talk: Talk) -> None:
    calls = [
        {"id": ref, "type": "function", "function": {"name": "f", "arguments": "{}"}} for ref in ("c1", "c2")
    ]
    _, place = await talk.ask("weather?")
    await talk.answer(place, "", tool_calls=calls)
    results = [{"role": "tool", "tool_call_id": ref, "content": "sunny"} for ref in ("c2", "c1")]
    for wrong in ([results[0]], [results[0], {**results[1], "tool_call_id": "c9"}], [results[0], results[0]]):
        with pytest.raises(GatewayError) as refused:
            await talk.ask(*wrong)
        assert (refused.value.status, refused.value.param) == (400, "messages")
    past, place = await talk.ask(*results)
    assert [node.role for node in past.before] == ["user", "assistant"]
    await talk.answer(place, "sunny")
    past, _ = await talk.ask("thanks")
    assert [node.role for node in past.before] == ["user", "assistant", "tool", "tool", "assistant"]


async def test_a_new_message_does_not_follow_calls_without_results(talk: Talk) -> None:
    await talk.turn("one", "1")
    _, place = await talk.ask("weather?")
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    await talk.answer(place, "", tool_calls=[call])
    past, _ = await talk.ask("never mind")
    assert told(past) == ["one", "1"]


async def test_what_the_model_thought_is_kept_apart(talk: Talk, database: Database) -> None:
    _, place = await talk.ask("one")
    await talk.answer(place, "<think>hm</think>1", reasoning_content="secret thought")
    past, _ = await talk.ask("two")
    assert "secret" not in past.before[1].body
    assert told(past) == ["one", "1"]
    async with database.read() as view:
        page = await archive.messages(view, "acme", place.thread, PageQuery())
    assert page.items[1].thoughts == {"reasoning_content": "secret thought", "content": "<think>hm</think>"}


async def test_a_deleted_thread_is_gone_also_while_it_is_answered(talk: Talk, database: Database) -> None:
    await talk.turn("one", "1")
    _, place = await talk.ask("two")
    async with database.change(Actor("cli:test")) as change:
        await archive.remove(change, "acme", place.thread)
    await talk.answer(place, "2")
    async with database.read() as view:
        assert (await view.execute(text("SELECT count(*) FROM history_messages"))).scalar_one() == 0
        with pytest.raises(NotFoundError):
            await archive.get(view, "acme", place.thread)
    past, _ = await talk.ask("three")
    assert told(past) == []


async def test_retention_ends_conversations(talk: Talk, database: Database, shelf: Shelf) -> None:
    async with database.change(Actor("cli:test")) as change:
        settings = WorkspaceSettings(retention_days=2)
        await workspaces.create(change, "acme", WorkspaceDraft(name="acme", settings=settings))
    await talk.turn("one", "1")
    other = ADA._replace(workspace="default")
    await talk.turn("one", "1", scope=other)
    # Not yet deleted, but over.
    async with database.note() as view:
        await view.execute(update(kept_schema.history_threads).values(updated_at=now_ms() - 3 * DAY_MS))
    past, _ = await talk.ask("two", keep_ms=2 * DAY_MS)
    assert told(past) == []
    await sweep(shelf, now_ms(), {})
    async with database.read() as view:
        found = await archive.entries(view, "acme")
        assert [thread.title for thread in found.items] == ["two"]
        assert len((await archive.entries(view, "default")).items) == 1
    await sweep(shelf, now_ms(), {"default": 1})
    async with database.read() as view:
        assert (await archive.entries(view, "default")).items == ()


async def test_people_list_search_export_and_delete(talk: Talk, database: Database) -> None:
    for number in range(5):
        name = Name(f"n:{number}", str(number))
        scope = ADA if number % 2 else ADA._replace(owner="key_bob")
        await talk.turn(f"Frage {number}: “Größe”?\n100%", f"answer {number}", name=name, scope=scope)
    async with database.read() as view:
        first = await archive.entries(view, "acme", PageQuery(limit=3, newest_first=True))
        rest = await archive.entries(view, "acme", PageQuery(first.next, 3, newest_first=True))
        assert [thread.name for thread in (*first.items, *rest.items)] == ["4", "3", "2", "1", "0"]
        assert first.items[0].title == "Frage 4: “Größe”? 100%"
        assert (first.items[0].turns, first.items[0].owner) == (1, "key_bob")
        for wanted, names in (
            (Wanted(text="FRAGE 3"), ["3"]),
            (Wanted(text="“Größe”?\n100%"), ["4", "3", "2", "1", "0"]),
            (Wanted(text="100_"), []),
            (Wanted(owner="key_ada"), ["3", "1"]),
            (Wanted(assistant="asst_2"), []),
        ):
            found = await archive.entries(view, "acme", wanted=wanted)
            assert [thread.name for thread in found.items] == names, wanted
        assert (await archive.entries(view, "zeta")).items == ()
        exported = await archive.export(view, "acme", first.items[0].id)
        with pytest.raises(NotFoundError):
            await archive.export(view, "zeta", first.items[0].id)
    asked, said = exported.messages
    assert (asked.parent, said.parent, said.depth, said.status) == (None, asked.id, 1, "complete")
    assert said.message == {"role": "assistant", "content": "answer 4"}
    async with database.change(Actor("cli:test")) as change:
        with pytest.raises(InvalidError):
            await archive.remove_all(change, "acme", Wanted())
        assert await archive.remove_all(change, "acme", Wanted(owner="key_ada")) == 2
        assert await archive.remove_all(change, "zeta", Wanted(owner="key_bob")) == 0
    async with database.read() as view:
        assert [t.name for t in (await archive.entries(view, "acme")).items] == ["4", "2", "0"]
        assert (await view.execute(text("SELECT count(*) FROM history_messages"))).scalar_one() == 6


async def test_a_long_conversation_is_read_in_one_query(talk: Talk, database: Database) -> None:
    for number in range(150):
        await talk.turn(f"q{number}", f"a{number}")
    past, _ = await talk.ask("last")
    assert len(past.before) == 300
    assert told(past)[-2:] == ["q149", "a149"]
    chains = [node.chain for node in past.before]
    async with database.read() as view:
        match = await store.longest(view, ADA, [*chains, b"x" * 16], 300)
    assert match is not None
    assert match.chain == chains[-1]
