"""Tenants with one of everything, and texts that only one of them may see."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.history import store as history
from sluicegate.history.model import MAIN, New, Past, Scope
from sluicegate.ids import PLATFORM, request_ids
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft, RoleName
from sluicegate.keys.secret import mint
from sluicegate.members import store as members
from sluicegate.members.model import Role, UserDraft
from sluicegate.settings import Secret
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import Actor, Change
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import Credentials, LearnedModel, UpstreamDraft
from sluicegate.usage.bodies import Body
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import Record, packed
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceSettings

OWN, OTHER, DELETED, GUESSED = "acme", "zeta", "gone", "nowhere"
# Nobody listens there.
NOWHERE = "http://127.0.0.1:1"

# The secrets that no answer but that of their making, no log and no file may hold.
UPSTREAM_KEY = "sk-upstream-CANARY-{}-4f8a1c"
UPSTREAM_HEADER = "header-CANARY-{}-77b1"


@dataclass
class Objects:
    """Ids of one workspace's objects, by what a path calls them."""

    ids: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    # Texts that stand in this workspace only, its ids among them.
    canaries: list[str] = field(default_factory=list)


@dataclass
class World:
    """Everything that a test needs to name."""

    # By role.
    keys: dict[str, str] = field(default_factory=dict)
    tenants: dict[str, Objects] = field(default_factory=dict)
    user: str = ""
    secrets: list[str] = field(default_factory=list)


GUESSES = {
    "key": "key_0000000000000000000000000000",
    "upstream": "up_0000000000000000000000000000",
    "assistant": "asst_0000000000000000000000000000",
    "user": "usr_0000000000000000000000000000",
    "request": "req_0000000000000000000000000000",
    "conversation": "thread_0000000000000000000000000000",
}


async def build(location: Location) -> World:
    """Fill an empty, migrated database."""
    database = await Database.open(location)
    world = World()
    for name in (OWN, OTHER, DELETED):
        async with database.change(Actor(f"cli:{name}-root")) as change:
            world.tenants[name] = await _tenant(change, world, name)
    async with database.change(Actor("cli:root")) as change:
        await _people(change, world)
    async with database.change(Actor("cli:root")) as change:
        await workspaces.delete(change, DELETED)
    async with database.note() as view:
        for tenant in (OWN, OTHER):
            models = (LearnedModel(model=f"{tenant}-canary-model", context_length=4096),)
            await upstreams.note_discovered(view, world.tenants[tenant].ids["upstream"], models)
    await database.close()
    with closing(open_logbook(location)) as logbook:
        logbook.write(
            packed(
                Record(
                    id=world.tenants[name].ids["request"],
                    workspace=name,
                    key=world.tenants[name].ids["key"],
                    operation="chat",
                    model=f"{name}-canary-one",
                    assistant=world.tenants[name].ids["assistant"],
                    upstream=f"{name}-canary-up",
                    status=502,
                    code="upstream_timeout",
                    error=f"{name}-canary-error",
                    prompt_tokens=7,
                )
                for name in (OWN, OTHER, DELETED)
            )
        )
        # What is deleted is of a workspace that is.
        logbook.write(
            packed(
                Record(id=tenant.deleted["request"], workspace=DELETED, key="k", operation="chat")
                for tenant in world.tenants.values()
            )
        )
        text = "{}-canary-body"
        logbook.keep(
            Body(id=world.tenants[name].ids["request"], workspace=name, request=text.format(name).encode())
            for name in (OWN, OTHER, DELETED)
        )
    return world


async def _admin(change: Change, workspace: str, name: str, role: RoleName, **more: Any) -> tuple[str, str]:
    draft = KeyDraft(name=name, **{"scopes": (), **more})
    key, text = await keys.create(change, workspace, draft, kind="admin", role=role)
    return key.id, text


async def _people(change: Change, world: World) -> None:
    world.keys["platform_admin"] = (await _admin(change, PLATFORM, "root", "platform_admin"))[1]
    for role in ("workspace_admin", "member", "viewer"):
        world.keys[role] = (await _admin(change, OWN, role, role))[1]  # type: ignore[arg-type]
    manager = await _admin(change, OWN, "key_manager", "workspace_admin", scopes=("keys:manage",))
    world.keys["key_manager"] = manager[1]
    world.keys["expired"] = (await _admin(change, OWN, "old", "workspace_admin", expires_at=1))[1]
    revoked, world.keys["revoked"] = await _admin(change, OWN, "lost", "workspace_admin")
    await keys.revoke(change, OWN, revoked)
    world.keys["unknown"] = mint("admin")
    world.keys["malformed"] = world.keys["workspace_admin"][:-1] + "!"
    world.keys["other_admin"] = (await _admin(change, OTHER, "zeta-canary-admin", "workspace_admin"))[1]
    world.keys["deleted_admin"] = (await _admin(change, DELETED, "late", "workspace_admin"))[1]
    _, world.keys["client"] = await keys.create(change, OWN, KeyDraft(name="client"))
    user = await members.create_user(change, UserDraft(login="somebody@example.com"))
    world.user = user.id
    world.secrets += list(world.keys.values())


async def _tenant(change: Change, world: World, name: str) -> Objects:
    found = Objects()
    settings = WorkspaceSettings(public_base_url=f"https://{name}-canary.example.com/v1", max_tokens=100)
    await workspaces.create(change, name, WorkspaceDraft(name=f"{name}-canary-workspace", settings=settings))
    key, text = await keys.create(
        change, name, KeyDraft(name=f"{name}-canary-key", models=(f"{name}-canary-*",))
    )
    world.secrets.append(text)
    secret = UPSTREAM_KEY.format(name)
    header = UPSTREAM_HEADER.format(name)
    world.secrets += [secret, header]
    credentials = Credentials(api_key=Secret(secret), headers={"x-team": Secret(header)})
    draft = UpstreamDraft(name=f"{name}-canary-up", base_url=f"{NOWHERE}/{name}-canary-path")
    upstream = await upstreams.create(change, name, draft, credentials)
    spec = AssistantSpec(model=("spare/m",), system_prompt=f"{name}-canary-prompt")
    assistant = await assistants.create(change, name, AssistantDraft(name=f"{name}-canary-one", spec=spec))
    newer = AssistantSpec(model=("spare/m",), description=f"{name}-canary-description")
    await assistants.replace(
        change, name, assistant.id, AssistantDraft(name=f"{name}-canary-one", spec=newer)
    )
    user = await members.create_user(change, UserDraft(login=f"{name}-canary@example.com"))
    await members.grant(change, name, user.id, Role.MEMBER)
    found.ids = {"key": key.id, "upstream": upstream.id, "assistant": assistant.id, "user": user.id}
    found.ids["request"] = request_ids.next()
    found.ids["conversation"] = await _conversation(change, name, key.id, assistant.id)
    found.canaries = [f"{name}-canary", f"{name}-root", key.kid, *found.ids.values()]
    found.deleted = await _deleted(change, name)
    found.canaries += found.deleted.values()
    return found


async def _deleted(change: Change, name: str) -> dict[str, str]:
    key, _ = await keys.create(change, name, KeyDraft(name="gone"))
    await keys.remove(change, name, key.id)
    upstream = await upstreams.create(change, name, UpstreamDraft(name="gone", base_url=NOWHERE))
    await upstreams.remove(change, name, upstream.id)
    draft = AssistantDraft(name="gone", spec=AssistantSpec(model=("spare/m",)))
    assistant = await assistants.create(change, name, draft)
    await assistants.remove(change, name, assistant.id)
    user = await members.create_user(change, UserDraft(login=f"{name}-canary-left@example.com"))
    await members.grant(change, name, user.id, Role.VIEWER)
    await members.withdraw(change, name, user.id)
    ids = {"key": key.id, "upstream": upstream.id, "assistant": assistant.id, "user": user.id}
    conversation = await _conversation(change, name, key.id, assistant.id)
    await history.erase(change, [conversation])
    return {**ids, "request": request_ids.next(), "conversation": conversation}


async def _conversation(change: Change, name: str, key: str, assistant: str) -> str:
    """One question with its answer."""
    scope = Scope(name, key, assistant)
    asked = New(chain=b"1" * 16, role="user", body=f'{{"role":"user","content":"{name}-canary-question"}}')
    past = Past(
        scope=scope, name=None, thread=None, base=scope.root, depth=0, branch=MAIN, before=[], new=[asked]
    )
    place = await history.begin(change, past, f"{name}-canary-title")
    said = New(chain=b"2" * 16, role="assistant", body=f'{{"role":"assistant","content":"{name}-canary"}}')
    await history.finish(change, place, [said])
    return place.thread
