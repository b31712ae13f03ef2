"""Answers under way whose key ends: which of them are cut off, and when the database is asked about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from fakes.asgi import JSON, request
from fakes.tenants import Make, Tenants, serving, until
from sluicegate.clock import monotonic
from sluicegate.http.door import Owner
from sluicegate.keys import cut, store
from sluicegate.keys.cut import Cutter
from sluicegate.keys.model import CLOCK_SKEW_MS, KeyDraft, Principal, principal
from sluicegate.responses import store as responses
from sluicegate.storage.database import Database, now_ms
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.transaction import SYSTEM
from sluicegate.workspaces import store as workspaces


@dataclass(eq=False)
class Answer:
    """One that has taken a while."""

    caller: Principal
    began: float = field(default_factory=monotonic)
    checked: int = -1
    causes: list[str] = field(default_factory=list)

    def cut(self, cause: str) -> None:
        self.causes.append(cause)


class Crew:
    """The answers of one worker, with the one that looks after them."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = database
        self.running: set[Answer] = set()
        self.questions = 0
        self.freshness = Freshness(database)
        self.cutter = Cutter(database, self.freshness, self.running)
        real = store.worth

        async def counted(view: Any, secrets: Any) -> Any:
            self.questions += 1
            return await real(view, secrets)

        monkeypatch.setattr(cut.store, "worth", counted)

    async def begin(self, text: str) -> Answer:
        async with self.database.read() as view:
            grant = await store.look_up(view, text)
        assert grant is not None
        answer = Answer(grant.principal)
        self.running.add(answer)
        return answer


@pytest_asyncio.fixture
async def crew(database: Database, monkeypatch: pytest.MonkeyPatch) -> Crew:
    return Crew(database, monkeypatch)


@pytest.mark.asyncio
async def test_only_what_lost_its_key_is_cut_and_nobody_is_asked_without_a_change(
    crew: Crew, tenants: Tenants
) -> None:
    await tenants.workspace("acme")
    lost, lost_text = await tenants.key("acme", "lost")
    _, kept_text = await tenants.key("acme", "kept")
    first, second = await crew.begin(lost_text), await crew.begin(kept_text)
    of_settings = Answer(principal("env-1", b"sk-of-the-settings"))
    crew.running.add(of_settings)
    await crew.cutter.look()
    assert crew.questions == 1
    for _ in range(3):
        # One that begins now was let in under the number that was seen.
        await crew.begin(kept_text)
        await crew.cutter.look()
    assert crew.questions == 1
    await tenants.revoke("acme", lost)
    await crew.cutter.look()
    assert (first.causes, second.causes, of_settings.causes) == (["api_key_revoked"], [], [])
    assert crew.questions == 2
    await crew.cutter.look()
    assert (crew.questions, first.causes) == (2, ["api_key_revoked"])


@pytest.mark.asyncio
async def test_a_body_that_took_long_does_not_hide_a_revocation(crew: Crew, tenants: Tenants) -> None:
    """It was let in before, and shows up among the running ones only after the change was looked into."""
    await tenants.workspace("acme")
    key, text = await tenants.key("acme")
    answer = await crew.begin(text)
    crew.running.clear()
    await tenants.revoke("acme", key)
    await crew.cutter.look()
    crew.running.add(answer)
    await crew.cutter.look()
    assert answer.causes == ["api_key_revoked"]


@pytest.mark.asyncio
async def test_every_way_in_which_a_key_ends(crew: Crew, tenants: Tenants) -> None:
    for workspace in ("acme", "gone"):
        await tenants.workspace(workspace)
    made = {name: await tenants.key("acme", name) for name in ("deleted", "replaced", "grace", "kept")}
    orphan = (await tenants.key("gone", "orphan"))[1]
    answers = {name: await crew.begin(text) for name, (_, text) in made.items()}
    answers["orphan"] = await crew.begin(orphan)
    await crew.cutter.look()
    async with crew.database.change(SYSTEM) as change:
        await store.remove(change, "acme", made["deleted"][0])
        await store.rotate(change, "acme", made["replaced"][0], grace_ms=0)
        await store.rotate(change, "acme", made["grace"][0], grace_ms=60_000)
        await workspaces.delete(change, "gone")
    await crew.cutter.look()
    revoked = ["api_key_revoked"]
    assert {name: answer.causes for name, answer in answers.items()} == {
        "deleted": revoked,
        "replaced": revoked,
        "orphan": revoked,
        "grace": [],
        "kept": [],
    }
    # What was learned on the way: its secret ends in a minute.
    assert answers["grace"].caller.until is not None


@pytest.mark.asyncio
async def test_an_expiry_needs_no_change(crew: Crew, tenants: Tenants) -> None:
    await tenants.workspace("acme")
    soon = now_ms() - CLOCK_SKEW_MS + 60_000
    key, text = await tenants.key("acme", expires_at=soon)
    answer = await crew.begin(text)
    await crew.cutter.look()
    assert answer.causes == []
    crew.running.clear()
    over = Answer(
        Principal("app", key, "acme", secret=answer.caller.secret, until=now_ms() - CLOCK_SKEW_MS - 1)
    )
    crew.running.add(over)
    # Somebody has given the key more time meanwhile, so the record that was read then is not the last word.
    await crew.cutter.look()
    assert (over.causes, over.caller.until) == ([], soon)
    async with crew.database.change(SYSTEM) as change:
        await store.replace(change, "acme", key, KeyDraft(name="app", expires_at=1))
    await crew.cutter.look()
    assert over.causes == ["api_key_expired"]


@pytest.mark.asyncio
async def test_a_database_that_is_down_is_asked_again(
    crew: Crew, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenants.workspace("acme")
    key, text = await tenants.key("acme")
    answer = await crew.begin(text)
    await tenants.revoke("acme", key)
    with monkeypatch.context() as patch:

        async def down(_view: Any, _secrets: Any) -> Any:
            raise UnavailableError("down")

        patch.setattr(cut.store, "worth", down)
        crew.freshness.note_failure()
        await crew.cutter.look()
        # Let in meanwhile, on a record from before the change.
        late = Answer(answer.caller)
        crew.running.add(late)
        await crew.cutter.look()
    assert (answer.causes, late.causes) == ([], [])
    crew.freshness.note_contact()
    await crew.cutter.look()
    assert (answer.causes, late.causes) == (["api_key_revoked"], ["api_key_revoked"])


@pytest.mark.asyncio
async def test_work_in_the_background_ends_as_well(
    make: Make, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "LOOK_SECONDS", 0.02)
    await tenants.workspace("acme")
    await tenants.upstream("acme", "own", "http://acme-host/v1", models=("m",))
    key, text = await tenants.key("acme")
    async with make(lambda asked: serving(asked) if asked.operation == "models" else None) as gateway:
        body = json.dumps({"model": "m", "input": "x", "background": True}).encode()
        head = [(b"authorization", f"Bearer {text}".encode()), JSON]
        begun = await request(gateway.gateway.asgi, "/v1/responses", body, headers=head)
        assert begun.json["status"] == "queued"

        async def asked() -> bool:
            return bool(gateway.chats)

        async def failed() -> bool:
            async with tenants.database.read() as view:
                kept = await responses.find(view, Owner("acme", key), begun.json["id"])
            return kept.status == "failed" and "api_key_revoked" in kept.body

        await until(asked)
        await tenants.revoke("acme", key)
        await until(failed)
        assert gateway.chats[0].call.cancelled


@pytest.mark.asyncio
async def test_the_end_of_a_key_is_announced(make: Make, tenants: Tenants, acme: str) -> None:
    day = 86_400_000
    texts = {
        days: (await tenants.key("acme", f"in-{days}", expires_at=now_ms() + days * day))[1]
        for days in (13, 15)
    }
    async with make() as gateway:
        for text, announced in ((acme, False), (texts[15], False), (texts[13], True)):
            answers = [
                await gateway.ask(text, "Helper"),
                await gateway.ask(text, "nothing"),
                await gateway.get(text),
                await gateway.get(text, "/v1/conversations/conv_1"),
            ]
            assert [answer.status for answer in answers] == [200, 404, 200, 404]
            assert [("x-api-key-expires" in answer.headers) for answer in answers] == [announced] * 4
