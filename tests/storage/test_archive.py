"""Conversations of assistants and of clients in one list, on both databases: pages, search, deletion."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from sluicegate.archive import store as archive
from sluicegate.archive.model import Wanted
from sluicegate.conversations import store as conversations
from sluicegate.conversations.model import user_message
from sluicegate.history import store as history
from sluicegate.history.model import MAIN, New, Past, Scope
from sluicegate.http.door import Owner
from sluicegate.responses import store as responses
from sluicegate.storage.database import Database
from sluicegate.storage.errors import InvalidError, NotFoundError
from sluicegate.storage.page import PageQuery
from sluicegate.storage.transaction import Actor

pytestmark = pytest.mark.asyncio

ADA, BOB = Owner("acme", "key_ada"), Owner("acme", "key_bob")


async def thread(database: Database, owner: Owner, said: str) -> str:
    """A conversation of an assistant, with one question in it."""
    scope = Scope(owner.workspace, owner.key, "asst_1")
    asked = New(chain=said.encode().ljust(16), role="user", body=f'{{"role":"user","content":"{said}"}}')
    past = Past(
        scope=scope, name=None, thread=None, base=scope.root, depth=0, branch=MAIN, before=[], new=[asked]
    )
    async with database.note() as view:
        return (await history.begin(view, past, said)).thread


async def conversation(database: Database, owner: Owner, *said: str) -> str:
    """One of a client; each text is a question that a response has answered."""
    async with database.note() as view:
        made = await conversations.create(view, owner, {}, [])
    for number, words in enumerate(said):
        id = f"resp_{made.id}_{number}"
        kept = responses.Kept(id=id, status="completed", body=f'{{"id":"{id}"}}', previous=None)
        answer = {**user_message(f"re: {words}"), "role": "assistant"}
        turn = responses.Turn(kept=kept, input=[user_message(words)], output=[answer], conversation=made.id)
        async with database.note() as view:
            await responses.save(view, owner, turn)
    return made.id


async def ids(database: Database, **wanted: Any) -> list[str]:
    """In pages of two."""
    found: list[str] = []
    page = PageQuery(limit=2, newest_first=True)
    while True:
        async with database.read() as view:
            some = await archive.entries(view, "acme", page, Wanted(**wanted))
        found += [one.id for one in some.items]
        if some.next is None:
            return found
        assert len(some.items) == 2
        page = PageQuery(some.next, 2, newest_first=True)


async def count(database: Database, table: str) -> int:
    async with database.read() as view:
        return int((await view.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def test_both_kinds_are_one_list(database: Database) -> None:
    made = [
        await thread(database, ADA, "apple"),
        await conversation(database, ADA, "pear", "plum"),
        await conversation(database, BOB, "100% “fig”"),
        await thread(database, BOB, "fig"),
        await conversation(database, ADA),
    ]
    await conversation(database, Owner("other", "key_ada"), "pear")
    newest_first = made[::-1]
    assert await ids(database) == newest_first
    assert await ids(database, kind="thread") == [made[3], made[0]]
    assert await ids(database, kind="conversation") == [made[4], made[2], made[1]]
    assert await ids(database, owner="key_ada") == [made[4], made[1], made[0]]
    assert await ids(database, text="FIG") == [made[3], made[2]]
    assert await ids(database, text="“fig”") == [made[2]]
    assert await ids(database, text="100_") == []
    # Those of clients have no assistant.
    assert await ids(database, assistant="asst_1") == [made[3], made[0]]
    assert await ids(database, assistant="asst_1", kind="conversation") == []
    async with database.read() as view:
        for limit in (0, 201):
            with pytest.raises(InvalidError, match="limit"):
                await archive.entries(view, "acme", PageQuery(limit=limit))


async def test_one_of_a_client_is_read_and_exported(database: Database) -> None:
    made = await conversation(database, ADA, "pear\n tree", "plum")
    empty = await conversation(database, ADA)
    async with database.read() as view:
        shown = await archive.get(view, "acme", made)
        assert (shown.kind, shown.owner, shown.assistant) == ("conversation", "key_ada", None)
        assert (shown.title, shown.turns) == ("pear tree", 2)
        assert shown.updated_at >= shown.created_at
        assert (
            (await archive.get(view, "acme", empty)).title,
            (await archive.export(view, "acme", empty)).messages,
        ) == ("", ())
        exported = await archive.export(view, "acme", made)
        first = await archive.messages(view, "acme", made, PageQuery(limit=3))
        rest = await archive.messages(view, "acme", made, PageQuery(first.next, 3))
        found = await archive.messages(view, "acme", made, PageQuery(), "PLUM")
    said = [one.message["content"][0]["text"] for one in exported.messages]
    assert said == ["pear\n tree", "re: pear\n tree", "plum", "re: plum"]
    assert [one.depth for one in exported.messages] == [0, 1, 2, 3]
    parents = [one.parent for one in exported.messages]
    assert parents == [None, *(one.id for one in exported.messages[:-1])]
    assert {(one.created_at, one.status, one.branch) for one in exported.messages} == {
        (None, "complete", "main")
    }
    assert (*first.items, *rest.items) == exported.messages
    assert found.items == exported.messages[2:]


async def test_nobody_sees_or_deletes_those_of_another_workspace(database: Database) -> None:
    for made in (await thread(database, ADA, "apple"), await conversation(database, ADA, "pear")):
        async with database.change(Actor("cli:test")) as change:
            for step in (
                archive.get(change, "other", made),
                archive.messages(change, "other", made, PageQuery()),
                archive.export(change, "other", made),
                archive.remove(change, "other", made),
                archive.get(change, "acme", made[:-1]),
                archive.get(change, "acme", made.partition("_")[2]),
            ):
                with pytest.raises(NotFoundError):
                    await step
            assert await archive.remove_all(change, "other", Wanted(owner="key_ada")) == 0
        assert made in await ids(database)


async def test_what_is_deleted_is_gone_with_all_that_is_in_it(database: Database) -> None:
    kept, made = await conversation(database, ADA, "keep"), await conversation(database, ADA, "pear", "plum")
    of_bob = await thread(database, BOB, "fig")
    async with database.change(Actor("cli:test")) as change:
        await archive.remove(change, "acme", made)
        with pytest.raises(NotFoundError):
            await archive.remove(change, "acme", made)
    assert await ids(database) == [of_bob, kept]
    assert (await count(database, "kept_items"), await count(database, "kept_responses")) == (2, 1)
    await thread(database, ADA, "apple")
    async with database.change(Actor("cli:test")) as change:
        with pytest.raises(InvalidError, match="key"):
            await archive.remove_all(change, "acme", Wanted())
        assert await archive.remove_all(change, "acme", Wanted(owner="key_ada")) == 2
    assert await ids(database) == [of_bob]
    assert (await count(database, "kept_items"), await count(database, "kept_responses")) == (0, 0)
    assert await count(database, "history_messages") == 1
    async with database.change(Actor("cli:test")) as change:
        assert await archive.remove_all(change, "acme", Wanted(assistant="asst_1")) == 1
    assert await ids(database) == []
