"""Cached records: as right as the last change, shared by who asks at once, and bounded."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from sqlalchemy import text as sql

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.chat.stored import StoredDirectory
from sluicegate.errors import GatewayError
from sluicegate.ids import PLATFORM
from sluicegate.keys import secret as texts
from sluicegate.keys import store as keys
from sluicegate.keys.cache import KeyReader
from sluicegate.keys.model import KeyDraft, Principal
from sluicegate.records import Space, SpaceReader
from sluicegate.settings import Secret
from sluicegate.storage import errors
from sluicegate.storage.cache import Cache, Recent
from sluicegate.storage.database import Database
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.transaction import SYSTEM, View
from sluicegate.storage.watch import Watcher
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import Credentials, UpstreamDraft
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceSettings


@pytest_asyncio.fixture(autouse=True)
async def tenants(database: Database) -> None:
    """Two workspaces."""
    async with database.change(SYSTEM) as change:
        for name in ("acme", "other"):
            await workspaces.create(change, name, WorkspaceDraft(name=name))


async def make_key(database: Database, workspace: str = "acme", name: str = "app") -> tuple[str, bytes]:
    async with database.change(SYSTEM) as change:
        key, shown = await keys.create(change, workspace, KeyDraft(name=name))
    return key.id, shown.encode()


async def revoke(database: Database, key: str, workspace: str = "acme") -> None:
    async with database.change(SYSTEM) as change:
        await keys.revoke(change, workspace, key)


@pytest.mark.asyncio
async def test_a_revoked_key_stops_at_once(database: Database) -> None:
    key, shown = await make_key(database)
    reader = KeyReader(database, Freshness(database))
    assert reader.peek(shown) is None
    grant = await reader.find(shown)
    assert grant is not None
    assert reader.peek(shown) is grant
    await revoke(database, key)
    assert reader.peek(shown) is None
    after = await reader.find(shown)
    assert after is not None
    assert after.refused == "revoked"


@pytest.mark.asyncio
async def test_a_change_by_another_process_is_seen(database: Database) -> None:
    key, shown = await make_key(database)
    reader = KeyReader(database, Freshness(database))
    await reader.find(shown)
    elsewhere = await Database.open(database.location)
    await revoke(elsewhere, key)
    assert reader.peek(shown) is None
    found = await reader.find(shown)
    assert found is not None
    assert found.refused == "revoked"
    await elsewhere.close()


@pytest.mark.asyncio
async def test_other_workspaces_are_not_read_again(database: Database) -> None:
    _, ours = await make_key(database)
    _, theirs = await make_key(database, "other")
    freshness = Freshness(database)
    reader = KeyReader(database, freshness)
    one, two = await reader.find(ours), await reader.find(theirs)
    await make_key(database, "other", "second")
    await freshness.refresh()
    assert reader.peek(ours) is one
    assert reader.peek(theirs) is None
    assert (await reader.find(theirs)) == two
    draft = UpstreamDraft(name="u", base_url="http://h/v1", offered_to="all")
    async with database.change(SYSTEM) as change:
        await upstreams.create(change, PLATFORM, draft)
    await freshness.refresh()
    assert reader.peek(ours) is None


@pytest.mark.asyncio
async def test_unknown_keys_are_remembered_until_something_changes(database: Database) -> None:
    freshness = Freshness(database)
    reader = KeyReader(database, freshness)
    shown = texts.mint()
    assert await reader.find(shown.encode()) is None
    async with database.change(SYSTEM) as change:
        await keys.create(change, "acme", KeyDraft(name="late"), secret=shown)
    assert await reader.find(shown.encode()) is not None
    for nothing in (b"", b"\xff", shown[:-1].encode(), b"sk-sg-", b"x" * 5000):
        assert await reader.find(nothing) is None


@pytest.mark.asyncio
async def test_a_load_that_began_before_a_change_is_not_kept(database: Database) -> None:
    freshness = Freshness(database)
    cache: Cache[str, str] = Cache(database, freshness, 10)
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_view: View) -> tuple[str, str]:
        reading.set()
        await go_on.wait()
        return "acme", "old"

    async def quick(_view: View) -> tuple[str, str]:
        return "acme", "new"

    first = asyncio.create_task(cache.get("k", slow))
    await reading.wait()
    database.shared.advance()
    async with database.note() as view:
        await view.execute(workspaces._table.update().values(generation=10**6))
    await freshness.refresh()
    go_on.set()
    assert await first == "old"
    assert cache.peek("k") is None
    assert await cache.get("k", quick) == "new"
    assert cache.peek("k") == "new"


@pytest.mark.asyncio
async def test_who_asks_at_once_shares_one_query(database: Database) -> None:
    cache: Cache[str, str] = Cache(database, Freshness(database), 10)
    loads: list[int] = []

    async def load(_view: View) -> tuple[str, str]:
        loads.append(1)
        await asyncio.sleep(0)
        return "acme", "value"

    tasks = [asyncio.create_task(cache.get("k", load)) for _ in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert set(found[1:]) == {"value"}
    assert len(loads) == 1


def test_memory_is_bounded_by_what_is_in_use() -> None:
    recent: Recent[int, int] = Recent(100)
    recent.put(-1, -1)
    for number in range(10_000):
        recent.put(number, number)
        assert recent.get(-1) == -1
        assert len(recent) <= 101
    assert recent.get(0) is None
    assert recent.get(9999) == 9999


@pytest.mark.asyncio
async def test_a_workspace_is_read_as_a_whole(database: Database) -> None:
    spaces = SpaceReader(database, Freshness(database))
    assert await spaces.find("nothing") is None
    empty = await spaces.find("acme")
    assert empty is not None
    assert (empty.assistants, empty.upstreams) == ((), ())
    settings = WorkspaceSettings(context_window="40%")
    async with database.change(SYSTEM) as change:
        draft = AssistantDraft(name="coder", spec=AssistantSpec(model=("u/m",)))
        made = await assistants.create(change, "acme", draft)
        await workspaces.replace(change, "acme", WorkspaceDraft(name="acme", settings=settings))
        server = UpstreamDraft(name="u", base_url="http://h/v1")
        await upstreams.create(change, "acme", server, Credentials(api_key=Secret("canary")))
    assert spaces.peek("acme") is None
    found = await spaces.find("acme")
    assert found is not None
    assert spaces.peek("acme") is found
    assert found.workspace is not None
    assert found.workspace.settings.window is not None
    assert found.assistants == (made,)
    (usable,) = found.upstreams
    assert usable.credentials is not None
    assert usable.credentials.api_key == Secret("canary")
    assert "canary" not in repr(found)
    other = await spaces.find("other")
    assert other is not None
    assert (other.assistants, other.upstreams) == ((), ())
    async with database.change(SYSTEM) as change:
        await workspaces.delete(change, "acme")
    assert await spaces.find("acme") is None


@pytest.mark.asyncio
async def test_the_workspace_of_the_settings_needs_no_row(database: Database) -> None:
    spaces = SpaceReader(database, Freshness(database))
    without = await spaces.find("default")
    assert without is not None
    assert without.workspace is None
    assert spaces.peek("default") is without
    async with database.change(SYSTEM) as change:
        await workspaces.create(change, "default", WorkspaceDraft(name="Default"))
    found = await spaces.find("default")
    assert found is not None
    assert found.workspace is not None


@pytest.mark.asyncio
async def test_known_keys_outlive_the_database_for_a_while(database: Database) -> None:
    _, shown = await make_key(database)
    freshness, strict = Freshness(database), Freshness(database, grace=0)
    reader, careful = KeyReader(database, freshness), KeyReader(database, strict)
    grant = await reader.find(shown)
    await careful.find(shown)
    await break_database(database)
    database.shared.advance()
    assert await reader.find(shown) is grant
    assert reader.peek(shown) is grant
    with pytest.raises(errors.UnavailableError):
        await reader.find(texts.mint().encode())
    with pytest.raises(errors.UnavailableError):
        await careful.find(shown)
    await Watcher(database, freshness).look()
    assert reader.peek(shown) is grant


async def break_database(database: Database, mend: bool = False) -> None:
    """Take tables away, or give them back: until then every query fails."""
    async with database.note() as view:
        for table in ("generation", "key_secrets"):
            names = (f"{table}_gone", table) if mend else (table, f"{table}_gone")
            await view.execute(sql("ALTER TABLE {} RENAME TO {}".format(*names)))


@pytest.mark.asyncio
async def test_what_was_missed_during_a_failure_is_found_after_it(database: Database) -> None:
    key, shown = await make_key(database)
    freshness = Freshness(database)
    reader, watcher = KeyReader(database, freshness), Watcher(database, freshness)
    await reader.find(shown)
    await revoke(database, key)
    await break_database(database)
    grant = await reader.find(shown)
    assert grant is not None
    assert grant.refused is None
    await break_database(database, mend=True)
    await watcher.look()
    assert reader.peek(shown) is None
    after = await reader.find(shown)
    assert after is not None
    assert after.refused == "revoked"


@pytest.mark.asyncio
async def test_a_watcher_does_not_lengthen_the_grace(database: Database) -> None:
    _, shown = await make_key(database)
    freshness = Freshness(database, grace=0)
    reader, watcher = KeyReader(database, freshness), Watcher(database, freshness)
    await reader.find(shown)
    await break_database(database)
    for _ in range(3):
        await watcher.look()
        assert reader.peek(shown) is None
        with pytest.raises(errors.UnavailableError):
            await reader.find(shown)
    await break_database(database, mend=True)
    await watcher.look()
    assert await reader.find(shown) is not None


@pytest.mark.asyncio
async def test_the_watcher_hears_of_changes_without_the_shared_file(database: Database) -> None:
    """As on another machine: a commit whose word reaches this one through the database only."""
    key, shown = await make_key(database)
    freshness = Freshness(database)
    reader = KeyReader(database, freshness)
    await reader.find(shown)
    elsewhere = await Database.open(database.location)
    elsewhere.shared = type(elsewhere.shared)(database.location.data_dir / "of-another-machine.map")
    watcher = Watcher(database, freshness)
    await watcher.look()
    assert reader.peek(shown) is not None
    watcher.start()
    await revoke(elsewhere, key)
    async with asyncio.timeout(20):
        while reader.peek(shown) is not None:  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(0.01)
    await watcher.stop()
    await elsewhere.close()


@pytest.mark.asyncio
async def test_a_removed_shared_file_is_mapped_anew(database: Database) -> None:
    watcher = Watcher(database, Freshness(database))
    database.location.shared_file.unlink()
    await watcher.look()
    other = await Database.open(database.location)
    before = database.shared.generation
    other.shared.advance()
    assert database.shared.generation == before + 1
    await other.close()


@pytest.mark.asyncio
async def test_last_use_is_written_in_batches(database: Database) -> None:
    key, shown = await make_key(database)
    freshness = Freshness(database)
    reader = KeyReader(database, freshness)
    await reader.find(shown)
    async with database.read() as view:
        assert (await keys.get(view, "acme", key)).last_used_at is None
    watcher = Watcher(database, freshness, [reader.write_used])
    watcher.start()
    await watcher.stop()
    async with database.read() as view:
        assert (await keys.get(view, "acme", key)).last_used_at is not None


@pytest.mark.asyncio
async def test_a_view_stays_until_its_workspace_changes(database: Database) -> None:
    """And a change elsewhere makes each view ask once, not each request."""
    asked: list[str] = []

    class Counted(SpaceReader):
        def peek(self, workspace: str) -> Space | None:
            asked.append(workspace)
            return super().peek(workspace)

    freshness = Freshness(database)
    directory = StoredDirectory(None, lambda usable: None, 0)  # type: ignore[arg-type]
    directory.spaces = spaces = Counted(database, freshness)
    ours, theirs = (Principal("app", "key_1", workspace=workspace) for workspace in ("acme", "other"))
    assert directory.view(ours) is None
    first, second = await directory.load(ours), await directory.load(theirs)
    for _ in range(3):
        assert directory.view(ours) is first
        assert directory.view(theirs) is second
    assert asked == ["acme", "other"]
    async with database.change(SYSTEM) as change:
        draft = AssistantDraft(name="coder", spec=AssistantSpec(model=("u/m",)))
        await assistants.create(change, "other", draft)
    assert spaces.mark is None
    assert (directory.view(ours), directory.view(theirs)) == (None, None)
    assert await directory.load(ours) is first
    changed = await directory.load(theirs)
    assert changed is not second
    assert "coder" in changed.assistants
    for _ in range(3):
        assert directory.view(ours) is first
        assert directory.view(theirs) is changed
    assert asked == ["acme", "other", "acme", "other"]
    async with database.change(SYSTEM) as change:
        await workspaces.delete(change, "acme")
    assert directory.view(ours) is None
    with pytest.raises(GatewayError, match="401"):
        await directory.load(ours)
    assert directory.view(ours) is None
    assert directory.view(theirs) is changed
