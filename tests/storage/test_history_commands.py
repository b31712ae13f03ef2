"""`sluicegate conversations`: list, show, search, export and delete, for people and for programs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from command_line import Cli, command_line, good
from typer.testing import Result

from sluicegate.conversations import store as conversations
from sluicegate.conversations.model import user_message
from sluicegate.history import store
from sluicegate.history.model import MAIN, Name, New, Past, Scope
from sluicegate.http.door import Owner
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location


@pytest.fixture
def cli(location: Location, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command on the database of `location`, in which two keys have talked."""
    run = command_line(location, monkeypatch)
    asyncio.run(fill(location))
    return lambda *arguments: run("conversations", *arguments)


async def fill(location: Location) -> None:
    database = await Database.open(location)
    async with database.note() as view:
        for number in range(3):
            scope = Scope("default", f"key_{number % 2}", "settings:helper")
            asked = New(chain=bytes([number]) * 16, role="user", body=body("user", f"Frage {number}"))
            past = Past(
                scope=scope,
                name=Name(f"n:chat-{number}", f"chat-{number}"),
                thread=None,
                base=scope.root,
                depth=0,
                branch=MAIN,
                before=[],
                new=[asked],
            )
            place = await store.begin(view, past, f"Frage {number}")
            said = New(
                chain=bytes([9, number]) * 8, role="assistant", body=body("assistant", f"Antwort {number}")
            )
            await store.finish(view, place, [said])
    await database.close()


def body(role: str, text: str) -> str:
    return json.dumps({"role": role, "content": text})


def listed(result: Result) -> list[Any]:
    found: list[Any] = json.loads(good(result))
    return found


def test_they_are_listed_searched_shown_exported_and_deleted(cli: Cli) -> None:
    threads = listed(cli("list", "--json"))
    assert [thread["name"] for thread in threads] == ["chat-2", "chat-1", "chat-0"]
    assert "Frage 2" in good(cli("list"))
    assert len(listed(cli("list", "--json", "--limit", "2"))) == 2
    assert [t["name"] for t in listed(cli("list", "--json", "--key", "key_1"))] == ["chat-1"]
    assert [t["name"] for t in listed(cli("search", "ANTWORT 1", "--json"))] == ["chat-1"]
    assert listed(cli("search", "nobody said this", "--json")) == []
    shown = good(cli("show", threads[0]["id"]))
    assert "Frage 2" in shown and "Antwort 2" in shown and "main" in shown
    lines = [json.loads(line) for line in good(cli("export")).splitlines()]
    assert [[m["message"]["content"] for m in line["messages"]] for line in lines] == [
        [f"Frage {number}", f"Antwort {number}"] for number in (2, 1, 0)
    ]
    (one,) = good(cli("export", threads[1]["id"])).splitlines()
    assert json.loads(one) == lines[1]
    assert cli("delete", threads[0]["id"], "--yes").exit_code == 0
    assert [t["name"] for t in listed(cli("list", "--json"))] == ["chat-1", "chat-0"]
    assert cli("delete", "--key", "key_1", "--yes").exit_code == 0
    assert [t["name"] for t in listed(cli("list", "--json"))] == ["chat-0"]


def test_what_cannot_be_says_why(cli: Cli) -> None:
    for arguments, said in (
        (("show", "thread_x"), "there is no conversation `thread_x` there"),
        (("delete", "thread_x", "--yes"), "there is no conversation `thread_x` there"),
        (("delete", "--yes"), "give the id of a conversation, or --key"),
        (("delete", "thread_x", "--key", "k", "--yes"), "give the id of a conversation, or --key"),
        (("delete", "thread_x"), "give --yes"),
        (("list", "--workspace", "nowhere"), "there is no workspace `nowhere`"),
    ):
        result = cli(*arguments)
        assert result.exit_code == 2, arguments
        assert said in result.stderr, arguments
    assert len(listed(cli("list", "--json"))) == 3


def test_those_of_clients_are_among_them(cli: Cli, location: Location) -> None:
    async def make() -> str:
        database = await Database.open(location)
        async with database.note() as view:
            items = [user_message("Wo ist Behle?")]
            made = await conversations.create(view, Owner("default", "key_0"), {}, items)
        await database.close()
        return made.id

    made = asyncio.run(make())
    assert listed(cli("list", "--json"))[0]["id"] == made
    assert [one["id"] for one in listed(cli("list", "--kind", "conversation", "--json"))] == [made]
    assert made not in {one["id"] for one in listed(cli("search", "e", "--kind", "thread", "--json"))}
    assert [one["id"] for one in listed(cli("search", "BEHLE", "--json"))] == [made]
    assert "Wo ist Behle?" in good(cli("list"))
    assert "Wo ist Behle?" in good(cli("show", made))
    (line,) = good(cli("export", "--kind", "conversation")).splitlines()
    exported = json.loads(line)
    assert (exported["thread"]["id"], exported["thread"]["assistant"]) == (made, None)
    assert exported["messages"][0]["message"]["content"] == [{"type": "input_text", "text": "Wo ist Behle?"}]
    good(cli("delete", made, "--yes"))
    assert "there is no conversation" in cli("show", made).output
    assert len(listed(cli("list", "--json"))) == 3
    assert cli("list", "--kind", "other").exit_code == 2
