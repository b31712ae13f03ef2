"""The first administrator: one token, once, for a quarter of an hour, on the gateway's machine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from rig import SERVER, Rig, opened
from sqlalchemy import update
from world import World

from sluicegate.members.bootstrap import offer
from sluicegate.storage import schema
from sluicegate.storage.location import Location

pytestmark = pytest.mark.asyncio

HERE = "http://127.0.0.1:8080"


@pytest_asyncio.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Rig]:
    """The API of a gateway that nobody has set up."""
    async with opened(Location(data_dir=tmp_path / "data"), World()) as rig:
        yield rig


async def token_of(rig: Rig) -> str:
    said = await offer(rig.database, HERE)
    assert said is not None
    assert f"{HERE}/api/v1/bootstrap" in said
    found = re.search(r"sg-bootstrap-[\w-]+", said)
    assert found
    return found[0]


async def test_a_token_becomes_the_first_admin_key_once(empty: Rig) -> None:
    token = await token_of(empty)
    body = {"token": token, "name": "me"}
    tries = await asyncio.gather(*(empty.call("POST", "/bootstrap", body) for _ in range(5)))
    assert sorted(answer.status for answer in tries) == [201, 401, 401, 401, 401]
    secret = next(answer.json["secret"] for answer in tries if answer.status == 201)
    me = await empty.call("GET", "/me", key=secret)
    assert (me.json["role"], me.json["name"]) == ("platform_admin", "me")
    assert (await empty.call("POST", "/workspaces", {"id": "a", "name": "A"}, key=secret)).status == 201
    assert await offer(empty.database, HERE) is None
    assert token not in empty.output.getvalue()


async def test_a_new_offer_ends_the_one_before(empty: Rig) -> None:
    first, second = await token_of(empty), await token_of(empty)
    assert (await empty.call("POST", "/bootstrap", {"token": first})).status == 401
    assert (await empty.call("POST", "/bootstrap", {"token": second})).status == 201


async def test_a_token_ends(empty: Rig) -> None:
    token = await token_of(empty)
    async with empty.database.note() as view:
        await view.execute(update(schema.bootstrap_tokens).values(expires_at=1))
    answer = await empty.call("POST", "/bootstrap", {"token": token})
    assert (answer.status, answer.error["code"]) == (401, "invalid_bootstrap_token")


@pytest.mark.parametrize(
    "client", ["192.0.2.7", "::ffff:192.0.2.7", "10.0.0.1", "0.0.0.0", "fe80::1", "nonsense"]
)
async def test_nobody_from_elsewhere_is_served(empty: Rig, client: str) -> None:
    token = await token_of(empty)
    answer = await empty.call("POST", "/bootstrap", {"token": token}, client=client)
    assert (answer.status, answer.error["code"]) == (403, "loopback_only")
    # It is not used up by that.
    assert (await empty.call("POST", "/bootstrap", {"token": token}, client="::1")).status == 201


@pytest.mark.parametrize("token", ["", "x", "sg-bootstrap-", "sg-bootstrap-" + "A" * 43, "sk-sgadmin-x"])
async def test_guesses_are_refused(empty: Rig, token: str) -> None:
    await token_of(empty)
    answer = await empty.call("POST", "/bootstrap", {"token": token})
    assert (answer.status, answer.error["param"]) == (401, "token")
    assert "sg-bootstrap" not in answer.body.decode() or token not in answer.body.decode()


async def test_without_an_admin_nothing_else_is_open(empty: Rig) -> None:
    for path in ("/me", "/workspaces", "/audit", "/nothing"):
        assert (await empty.call("GET", path)).status == 401


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", SERVER])
async def test_this_machine_in_every_writing(empty: Rig, client: str) -> None:
    token = await token_of(empty)
    assert (await empty.call("POST", "/bootstrap", {"token": token}, client=client)).status == 201
