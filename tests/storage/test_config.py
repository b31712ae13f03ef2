"""Configuration as code on both databases: applied once, all of it or nothing, and written out again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sluicegate.assistants import store as assistants
from sluicegate.audit import store as audit
from sluicegate.config.apply import Minted, OutdatedError, carry_out
from sluicegate.config.export import export
from sluicegate.config.plan import make_plan
from sluicegate.config.reader import ConfigError, read_file
from sluicegate.config.secrets import SecretSource
from sluicegate.config.step import Options, Plan
from sluicegate.ids import PLATFORM
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft
from sluicegate.storage.database import Database
from sluicegate.storage.page import PageQuery
from sluicegate.storage.transaction import Actor
from sluicegate.upstreams import store as upstreams
from sluicegate.workspaces import store as workspaces

ME = Actor("cli:tester")
SECRETS = {
    "SHARED": "shared-canary-0123456789",
    "LOCAL": "local-canary-0123456789",
    "APP": "app-canary-0123456789",
    "TEAM": "team-canary",
}
FILE = """
[[upstream]]
name = "shared"
kind = "openrouter"
base_url = "https://openrouter.ai/api/v1"
api_key = "env:SHARED"
headers = { x-title = "text:Acme" }
offered_to = ["acme"]

[[workspace]]
id = "acme"
context_window = "40%"
default_upstream = "local"

[[workspace.upstream]]
name = "local"
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
api_key = "env:LOCAL"
headers = { x-team = "env:TEAM" }
enabled = false

[[workspace.assistant]]
name = "qwen3-coder-14B"
model = ["local/Qwen/Qwen3-Coder-14B", "shared/qwen"]
system_prompt = "You write code."

[[workspace.key]]
name = "app"
secret = "env:APP"

[[workspace.key]]
name = "made"
scopes = ["chat:write"]

[[workspace.key]]
name = "admin"
role = "workspace_admin"

[[workspace]]
id = "beta"
"""


def options(prune: bool = False, grace_ms: int = 0, **environ: str) -> Options:
    _, source = read_file(None, b"", "gateway.toml")
    secrets = SecretSource(Path(), SECRETS | environ)
    return Options(source=source, secrets=secrets, prune=prune, grace_ms=grace_ms)


async def plan_of(database: Database, text: str, chosen: Options | None = None) -> Plan:
    file, _ = read_file(None, text.encode(), "gateway.toml")
    async with database.read() as view:
        return await make_plan(view, file, chosen or options())


async def applied(
    database: Database, text: str, chosen: Options | None = None
) -> tuple[Plan, tuple[Minted, ...]]:
    file, source = read_file(None, text.encode(), "gateway.toml")
    chosen = chosen or options()
    located = Options(source=source, secrets=chosen.secrets, prune=chosen.prune, grace_ms=chosen.grace_ms)
    async with database.change(ME) as change:
        return await carry_out(change, file, located, None)


def told(plan: Plan) -> list[str]:
    return [f"{step.action} {step.item.kind} {step.item.workspace}/{step.item.name}" for step in plan.steps]


def fields(plan: Plan) -> dict[str, list[str]]:
    return {step.item.name: [field.key for field in step.fields] for step in plan.steps}


async def exported(database: Database) -> str:
    async with database.read() as view:
        return await export(view)


async def everything_stored(database: Database) -> tuple[int, int]:
    """The generation, and the number of entries of the log: what nothing may change that changes nothing."""
    async with database.read() as view:
        page = await audit.entries(view, None, PageQuery(limit=1, newest_first=True))
    return await database.row_generation(), page.items[0].sequence if page.items else 0


@pytest.mark.asyncio
async def test_a_file_is_applied_once(database: Database) -> None:
    plan, made = await applied(database, FILE)
    assert told(plan) == [
        "create workspace acme/acme",
        "create workspace beta/beta",
        f"create upstream {PLATFORM}/shared",
        "create upstream acme/local",
        "create assistant acme/qwen3-coder-14B",
        "create key acme/app",
        "create key acme/made",
        "create key acme/admin",
    ]
    assert [(key.workspace, key.name) for key in made] == [("acme", "made"), ("acme", "admin")]
    assert made[1].secret.startswith("sk-sgadmin-")
    again = await plan_of(database, FILE)
    assert (again.steps, again.warnings, again.unmanaged) == ((), (), ())
    async with database.read() as view:
        local = await upstreams.find(view, "acme", "local")
        assert local is not None
        stored = await upstreams.own_credentials(view, "acme", local.id)
        assert stored.api_key is not None
        assert stored.api_key.reveal() == SECRETS["LOCAL"]
        assert stored.headers["x-team"].reveal() == SECRETS["TEAM"]
        for text in (SECRETS["APP"], made[0].secret, made[1].secret):
            assert await keys.look_up(view, text) is not None
        log = await audit.entries(view, "acme")
        assert {entry.actor for entry in log.items} == {"cli:tester"}
        assert (await audit.verify(view)).broken_at is None


@pytest.mark.asyncio
async def test_what_was_exported_changes_nothing(database: Database) -> None:
    await applied(database, FILE)
    before = await everything_stored(database)
    text = await exported(database)
    assert not [secret for secret in SECRETS.values() if secret in text]
    assert 'api_key = "kept"' in text
    plan, made = await applied(database, text)
    assert (plan.steps, plan.warnings, plan.unmanaged, made) == ((), (), (), ())
    assert await exported(database) == text
    # A change without a step is a generation, and nothing else.
    after = await everything_stored(database)
    assert after == (before[0] + 1, before[1])


@pytest.mark.asyncio
async def test_only_what_differs_is_changed(database: Database) -> None:
    await applied(database, FILE)
    other = (
        FILE.replace('"40%"', "4096")
        .replace("You write code.", "You write good code.")
        .replace('x-team = "env:TEAM"', 'x-team = "kept", x-more = "text:y"')
        .replace('api_key = "env:SHARED"\n', "")
        .replace('scopes = ["chat:write"]', 'models = ["qwen*"]')
    )
    plan, made = await applied(database, other)
    assert made == ()
    assert fields(plan) == {
        "acme": ["context_window"],
        "shared": ["api_key"],
        "local": ["headers.x-more"],
        "qwen3-coder-14B": ["system_prompt"],
        "made": ["scopes", "models"],
    }
    async with database.read() as view:
        local = await upstreams.find(view, "acme", "local")
        assert local is not None
        stored = await upstreams.own_credentials(view, "acme", local.id)
        assert {name: value.reveal() for name, value in stored.headers.items()} == {
            "x-team": SECRETS["TEAM"],
            "x-more": "y",
        }
        shared = await upstreams.find(view, PLATFORM, "shared")
        assert shared is not None
        assert not shared.has_key
    assert (await plan_of(database, other)).steps == ()


@pytest.mark.asyncio
async def test_another_secret_replaces_the_one_before(database: Database) -> None:
    await applied(database, FILE)
    new = "app-other-0123456789"
    plan, made = await applied(database, FILE, options(grace_ms=60_000, APP=new))
    assert fields(plan) == {"app": ["secret"]}
    assert made == ()
    async with database.read() as view:
        old = await keys.look_up(view, SECRETS["APP"])
        current = await keys.look_up(view, new)
    assert old is not None
    assert old.principal.until is not None
    assert current is not None
    assert current.principal.until is None
    assert (await plan_of(database, FILE, options(APP=new))).steps == ()
    await applied(database, FILE, options(APP="app-third-0123456789"))
    async with database.read() as view:
        assert await keys.look_up(view, SECRETS["APP"]) is None
        assert await keys.look_up(view, new) is None


@pytest.mark.asyncio
async def test_what_the_file_does_not_have_goes_with_prune_only(database: Database) -> None:
    await applied(database, FILE)
    small = '[[workspace]]\nid = "acme"\n'
    plan = await plan_of(database, small)
    assert told(plan) == ["change workspace acme/acme"]
    assert [f"{item.kind} {item.name}" for item in plan.unmanaged] == [
        "assistant qwen3-coder-14B",
        "key app",
        "key made",
        "key admin",
        "upstream local",
        "workspace beta",
        "upstream shared",
    ]
    plan, _ = await applied(database, small, options(prune=True))
    assert [step.action for step in plan.steps] == ["change", *["delete"] * 7]
    async with database.read() as view:
        assert await workspaces.find(view, "beta") is None
        assert (await keys.entries(view, "acme")).items == ()
        assert (await upstreams.entries(view, PLATFORM)).items == ()
    assert (await plan_of(database, small, options(prune=True))).steps == ()
    with pytest.raises(
        ConfigError, match=r"gateway.toml:3: workspace\[1\]: workspace `beta`: There is already"
    ):
        await applied(database, small + '[[workspace]]\nid = "beta"')


BAD = [
    (
        ('"env:LOCAL"', '"env:NONE"'),
        r":19: workspace\[0\].upstream\[0\].api_key: the variable NONE is not set",
    ),
    (
        ('"env:LOCAL"', '"kept"'),
        r":19: workspace\[0\].upstream\[0\].api_key: \"kept\", but nothing is stored",
    ),
    (
        ('["acme"]', '["acem"]'),
        r":8: upstream\[0\].offered_to: there is no workspace `acem`. Did you mean `acme`",
    ),
    (
        ('"env:APP"', '"env:TEAM"'),
        r":30: workspace\[0\].key\[0\].secret: expected 16 to 512 printable",
    ),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=range(len(BAD)))
@pytest.mark.asyncio
async def test_a_bad_file_changes_nothing(database: Database, change: tuple[str, str], said: str) -> None:
    before = await everything_stored(database)
    with pytest.raises(ConfigError, match=said) as caught:
        await applied(database, FILE.replace(*change))
    assert not [secret for secret in SECRETS.values() if secret in str(caught.value)]
    assert await everything_stored(database) == before
    async with database.read() as view:
        assert (await workspaces.entries(view)).items == ()


@pytest.mark.asyncio
async def test_a_key_cannot_be_kept_for_another_origin(database: Database) -> None:
    await applied(database, FILE)
    kept = FILE.replace('"env:LOCAL"', '"kept"').replace('"env:TEAM"', '"kept"')
    assert (await plan_of(database, kept)).steps == ()
    with pytest.raises(ConfigError) as caught:
        await plan_of(database, kept.replace("127.0.0.1", "elsewhere.example"))
    assert len(caught.value.lines) == 2
    await applied(database, FILE.replace("127.0.0.1", "elsewhere.example"))
    async with database.read() as view:
        local = await upstreams.find(view, "acme", "local")
        assert local is not None
        assert local.has_key


@pytest.mark.asyncio
async def test_a_revoked_key_stays_revoked(database: Database) -> None:
    await applied(database, FILE)
    async with database.change(ME) as change:
        key = await keys.find(change, "acme", "app")
        assert key is not None
        await keys.revoke(change, "acme", key.id)
    plan = await plan_of(database, FILE)
    assert plan.steps == ()
    (warning,) = plan.warnings
    assert "the key `app` is revoked and stays so" in warning
    text = await exported(database)
    assert [key["name"] for key in tomllib.loads(text)["workspace"][0]["key"]] == ["made", "admin"]
    plan = await plan_of(database, text, options(prune=True))
    assert (plan.steps, plan.warnings) == ((), ())


@pytest.mark.asyncio
async def test_what_was_agreed_to_is_done_or_nothing(database: Database) -> None:
    file, _ = read_file(None, FILE.encode(), "gateway.toml")
    shown = await plan_of(database, FILE)
    async with database.change(ME) as change:
        await workspaces.create(change, "beta", file.workspace[1].draft())
    with pytest.raises(OutdatedError):
        async with database.change(ME) as change:
            await carry_out(change, file, options(), shown)
    async with database.read() as view:
        assert [space.id for space in (await workspaces.entries(view)).items] == ["beta"]


@pytest.mark.asyncio
async def test_unknown_upstreams_are_told(database: Database) -> None:
    text = FILE.replace('"shared/qwen"', '"shard/qwen"')
    plan = await plan_of(database, text)
    said = "there is no upstream `shard` that this workspace may use. Did you mean `shared`?"
    assert [said in warning for warning in plan.warnings] in ([True, False], [False, True])
    # Nobody may find out by a request that fails.
    assert any("workspace[0].upstream[0].base_url: a private address" in text for text in plan.warnings)
    await applied(database, text)
    # What is stored, and stays, counts.
    smaller = FILE.partition("[[workspace]]")[2]
    assert (await plan_of(database, "[[workspace]]" + smaller)).warnings == ()
    assert (await plan_of(database, "[[workspace]]" + smaller, options(prune=True))).warnings != ()


@pytest.mark.asyncio
async def test_a_role_stays_what_it_is(database: Database) -> None:
    await applied(database, FILE)
    with pytest.raises(ConfigError, match="give this one another name"):
        await plan_of(database, FILE.replace('role = "workspace_admin"', 'role = "viewer"'))


@pytest.mark.asyncio
async def test_what_others_made_is_compared(database: Database) -> None:
    """Made by the HTTP API or by a command, it is the same to a file."""
    await applied(database, FILE)
    async with database.change(ME) as change:
        await keys.create(change, "beta", KeyDraft(name="theirs", expires_at=1 << 52))
        found = await assistants.find(change, "acme", "qwen3-coder-14B")
        assert found is not None
        await assistants.remove(change, "acme", found.id)
    plan = await plan_of(database, FILE)
    assert told(plan) == ["create assistant acme/qwen3-coder-14B"]
    assert [item.name for item in plan.unmanaged] == ["theirs"]
    text = await exported(database)
    assert f"expires = {1 << 52}" in text
    assert (await plan_of(database, text)).steps == ()
