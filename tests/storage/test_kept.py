"""Responses, conversations and stored chats in both databases: order, pages, owners, deletion, groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import text

from sluicegate.chat import store as chats
from sluicegate.conversations import store as conversations
from sluicegate.conversations.model import user_message
from sluicegate.history.expire import DAY_MS
from sluicegate.http.door import Owner, Window
from sluicegate.responses import store as responses
from sluicegate.responses.expiry import KEEP_MS, MOST, Expiry
from sluicegate.storage.database import Database, now_ms
from sluicegate.storage.errors import NotFoundError, UnavailableError
from sluicegate.storage.group import GroupWriter
from sluicegate.storage.shelf import Shelf
from sluicegate.storage.transaction import View

pytestmark = pytest.mark.asyncio

T = TypeVar("T")
ADA, BOB, ELSEWHERE = Owner("acme", "key_ada"), Owner("acme", "key_bob"), Owner("other", "key_ada")


async def write(database: Database, step: Callable[[View], Awaitable[T]]) -> T:
    async with database.note() as view:
        return await step(view)


async def save(database: Database, made: responses.Turn) -> None:
    await write(database, lambda view: responses.save(view, ADA, made))


def turn(name: str, previous: str | None = None, **values: Any) -> responses.Turn:
    kept = responses.Kept(
        id=name, status=values.pop("status", "completed"), body=f'{{"id":"{name}"}}', previous=previous
    )
    asked, said = user_message(f"{name} asks"), user_message(f"{name} says")
    return responses.Turn(kept=kept, input=[asked], output=[said], **values)


def texts(items: list[Any]) -> list[str]:
    return [item["content"][0]["text"] for item in items]


async def test_a_chain_has_every_turn_in_its_order(database: Database) -> None:
    for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("fork", "a")):
        await save(database, turn(name, previous))
    async with database.read() as view:
        last, items = await responses.chain(view, ADA, "c")
        assert last.id == "c"
        assert texts(items) == ["a asks", "a says", "b asks", "b says", "c asks", "c says"]
        _, items = await responses.chain(view, ADA, "fork")
        assert texts(items) == ["a asks", "a says", "fork asks", "fork says"]


async def test_a_long_chain_is_found_in_one_query(database: Database) -> None:
    async with database.note() as view:
        for number in range(300):
            previous = f"r{number - 1}" if number else None
            await responses.save(view, ADA, turn(f"r{number}", previous))
    async with database.read() as view:
        _, items = await responses.chain(view, ADA, "r299")
    assert len(items) == 600
    assert texts(items[-2:]) == ["r299 asks", "r299 says"]


async def test_a_workspace_says_how_long_what_it_keeps_stays(database: Database) -> None:
    shelf = Shelf(configured=True)
    shelf.open(database, GroupWriter(database))
    strangers = turn("theirs")
    await write(database, lambda view: responses.save(view, ELSEWHERE, strangers))
    idle = await write(database, lambda view: conversations.create(view, ADA, {}, [user_message("old")]))
    used = await write(database, lambda view: conversations.create(view, ADA, {}, [user_message("old")]))
    chat = chats.Chat(id="chat", model="m", metadata={}, messages=[], body="{}")
    await write(database, lambda view: chats.save(view, ADA, chat))
    await save(database, turn("old"))
    async with database.note() as view:
        for table in ("kept_responses", "kept_conversations", "kept_chats"):
            await view.execute(text(f"UPDATE {table} SET created_at = created_at - {3 * DAY_MS}"))
        await view.execute(text(f"UPDATE kept_conversations SET touched_at = touched_at - {3 * DAY_MS}"))
    await save(database, turn("new", conversation=used.id))
    await Expiry(shelf, {"acme": 2}).sweep(now_ms())
    async with database.read() as view:
        for find, ref in ((responses.find, "old"), (chats.find, "chat"), (conversations.get, idle.id)):
            with pytest.raises(NotFoundError):
                await find(view, ADA, ref)
        await responses.find(view, ADA, "new")
        await responses.find(view, ELSEWHERE, "theirs")
        assert texts(await conversations.all_items(view, ADA, used.id)) == ["old", "new asks", "new says"]
        left = (await view.execute(text("SELECT count(*) FROM kept_items"))).scalar()
    # Of what is gone nothing is left: two items of each response that stays, and one of the conversation.
    assert left == 5


async def test_a_deleted_turn_ends_its_chain_and_its_text_is_gone(database: Database) -> None:
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        await save(database, turn(name, previous))
    await write(database, lambda view: responses.remove(view, ADA, "b"))
    async with database.read() as view:
        with pytest.raises(NotFoundError) as gone:
            await responses.chain(view, ADA, "c")
        assert gone.value.ref == "b"
        left = (await view.execute(text("SELECT body FROM kept_items"))).scalars().all()
    assert not [body for body in left if "b asks" in body or "b says" in body]


@pytest.mark.parametrize("other", [BOB, ELSEWHERE])
async def test_nobody_else_finds_anything(other: Owner, database: Database) -> None:
    async with database.note() as view:
        await responses.save(view, ADA, turn("a"))
        made = await conversations.create(view, ADA, {}, [user_message("x")])
        chat = chats.Chat(id="chat", model="m", metadata={}, messages=[], body='{"id":"chat"}')
        await chats.save(view, ADA, chat)
        # Somebody else's chain must not lead into it.
        await responses.save(view, other, turn("theirs", "a"))
    tries: list[Callable[[View], Awaitable[Any]]] = [
        lambda view: responses.find(view, other, "a"),
        lambda view: responses.chain(view, other, "a"),
        lambda view: responses.chain(view, other, "theirs"),
        lambda view: responses.remove(view, other, "a"),
        lambda view: responses.input_items(view, other, "a", Window()),
        lambda view: responses.end(view, other, "a", "cancelled", "{}"),
        lambda view: conversations.get(view, other, made.id),
        lambda view: conversations.all_items(view, other, made.id),
        lambda view: conversations.add_items(view, other, made.id, [user_message("y")]),
        lambda view: conversations.remove(view, other, made.id),
        lambda view: chats.find(view, other, "chat"),
        lambda view: chats.remove(view, other, "chat"),
    ]
    for one in tries:
        with pytest.raises(NotFoundError):
            await write(database, one)
    async with database.read() as view:
        refs = [item["id"] for item in await conversations.all_items(view, ADA, made.id)]
        assert len(refs) == 1
        assert await conversations.referenced(view, other, refs) == {}
        assert (await chats.page(view, other, Window(), None, {}))[0] == []
        assert (await responses.find(view, ADA, "a")).status == "completed"


async def test_a_conversation_takes_whole_turns_and_keeps_them(database: Database) -> None:
    made = await write(database, lambda view: conversations.create(view, ADA, {}, [user_message("first")]))
    for name in ("a", "b"):
        await save(database, turn(name, conversation=made.id))
    broken = turn("broken", conversation=made.id, status="failed")
    await write(database, lambda view: responses.save(view, ADA, broken))
    await write(database, lambda view: responses.remove(view, ADA, "a"))
    async with database.read() as view:
        found = texts(await conversations.all_items(view, ADA, made.id))
    assert found == ["first", "a asks", "a says", "b asks", "b says"]
    await write(database, lambda view: conversations.remove(view, ADA, made.id))
    async with database.read() as view:
        # What belongs to a response stays with it.
        _, items = await responses.chain(view, ADA, "b")
    assert texts(items) == ["b asks", "b says"]


async def test_items_come_in_pages_both_ways(database: Database) -> None:
    items = [user_message(str(number)) for number in range(5)]
    made = await write(database, lambda view: conversations.create(view, ADA, {}, items))
    for newest_first, wanted in ((True, ["4", "3", "2", "1", "0"]), (False, ["0", "1", "2", "3", "4"])):
        seen: list[str] = []
        after, more = None, True
        async with database.read() as view:
            while more:
                window = Window(after, 2, newest_first)
                page, more = await conversations.page(view, ADA, made.id, window)
                seen += texts(page)
                after = page[-1]["id"]
        assert seen == wanted
    async with database.read() as view:
        with pytest.raises(NotFoundError):
            await conversations.page(view, ADA, made.id, Window("no-such-item"))


async def test_a_response_in_the_background_ends_once(database: Database) -> None:
    await write(database, lambda view: responses.save(view, ADA, turn("a", status="in_progress")))
    assert await write(database, lambda view: responses.touch(view, ADA, "a")) == "in_progress"
    ended = await write(database, lambda view: responses.end(view, ADA, "a", "cancelled", '{"x":1}'))
    assert (ended.status, ended.body) == ("cancelled", '{"x":1}')
    # Its worker comes too late: what was cancelled stays so.
    assert not await write(database, lambda view: responses.settle(view, ADA, turn("a")))
    assert await write(database, lambda view: responses.touch(view, ADA, "a")) == "cancelled"
    assert await write(database, lambda view: responses.touch(view, ADA, "gone")) is None


async def test_many_writes_are_few_transactions_and_none_is_lost(database: Database) -> None:
    writer = GroupWriter(database)
    begun = 0
    note = database.note

    def counting() -> Any:
        nonlocal begun
        begun += 1
        return note()

    database.note = counting  # type: ignore[method-assign]
    names = [f"r{number:03}" for number in range(300)]
    await asyncio.gather(
        *(writer.write(lambda view, n=name: responses.save(view, ADA, turn(n))) for name in names)
    )  # type: ignore[misc]
    assert begun < 10
    async with database.read() as view:
        for name in names:
            assert (await responses.find(view, ADA, name)).id == name


async def test_one_write_that_cannot_be_does_not_undo_the_others(database: Database) -> None:
    writer = GroupWriter(database)

    async def impossible(view: View) -> None:
        await responses.save(view, ADA, turn("twice"))

    steps: list[Callable[[View], Awaitable[Any]]] = [
        lambda view: responses.save(view, ADA, turn("twice")),
        impossible,
        lambda view: responses.remove(view, ADA, "nothing"),
        lambda view: responses.save(view, ADA, turn("last")),
    ]
    results = await asyncio.gather(*(writer.write(step) for step in steps), return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], Exception)
    assert isinstance(results[2], NotFoundError)
    assert results[3] is None
    async with database.read() as view:
        assert (await responses.find(view, ADA, "last")).id == "last"


async def test_a_write_that_cannot_reach_the_database_says_so(database: Database) -> None:
    writer = GroupWriter(database)
    tries = 0

    def dead() -> Any:
        nonlocal tries
        tries += 1
        raise UnavailableError("gone")

    database.note = dead  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        await writer.write(lambda view: responses.save(view, ADA, turn("a")))
    assert tries == 3


async def test_what_is_older_than_thirty_days_is_deleted(database: Database) -> None:
    made = await write(database, lambda view: conversations.create(view, ADA, {}, []))
    for number in range(MOST + 5):
        await save(database, turn(f"old{number}", conversation=made.id if number == 0 else None))
    chat = chats.Chat(id="old", model="m", metadata={}, messages=[], body='{"id":"old"}')
    await write(database, lambda view: chats.save(view, ADA, chat))
    async with database.note() as view:
        for table in ("kept_responses", "kept_chats"):
            await view.execute(text(f"UPDATE {table} SET created_at = created_at - {KEEP_MS + 60_000}"))
    await save(database, turn("new"))
    shelf = Shelf(configured=True)
    shelf.open(database, GroupWriter(database))
    await Expiry(shelf).sweep(now_ms())
    async with database.read() as view:
        assert (await responses.find(view, ADA, "new")).id == "new"
        counts = [
            (await view.execute(text(f"SELECT count(*) FROM {table}"))).scalar()
            for table in ("kept_responses", "kept_items", "kept_chats")
        ]
        assert counts == [1, 4, 0]
        assert len(await conversations.all_items(view, ADA, made.id)) == 2
