"""Keys of a file against those that are stored: made, changed, and replaced where the secret is another."""

from sluicegate.config.file import KeyEntry
from sluicegate.config.plain import plain_of
from sluicegate.config.step import Field, Item, Planner, Words, differing
from sluicegate.ids import PLATFORM
from sluicegate.keys import store
from sluicegate.keys.model import Key, KeyDraft, RoleName
from sluicegate.keys.secret import Kind
from sluicegate.settings import Secret
from sluicegate.storage.codec import checked
from sluicegate.storage.transaction import Change, View
from sluicegate.toml_lines import Path


async def plan_key(planner: Planner, workspace: str, entry: KeyEntry, before: Key | None, path: Path) -> None:
    """What has to be done for one entry."""
    given = None if entry.secret is None else planner.secret(entry.secret, (*path, "secret"))
    if entry.secret is not None and given is None:
        return
    if before is None:
        _plan_new(planner, workspace, entry, given, path)
        return
    if before.revoked_at is not None:
        planner.warn(
            path,
            f"the key `{entry.name}` is revoked and stays so; delete it, and the next run makes a new one",
        )
        return
    role = role_of(workspace, entry)
    if before.role != role:
        planner.fail((*path, "role"), "the role of a key stays what it is: give this one another name")
        return
    draft, stored = checked(entry.draft()), store.draft_of(before)
    fields = differing(key_values(stored, before.role), key_values(draft, role))
    replaced = given is not None and not await _is_current(planner.view, before, given)
    if not fields and not replaced:
        return
    if replaced:
        fields = (*fields, Field("secret", Words("(stored)"), Words(entry.secret or "")))

    async def change_key(change: Change) -> None:
        version = before.version
        if draft != stored:
            version = (await store.replace(change, workspace, before.id, draft, expected=version)).version
        if replaced and given is not None:
            secret, grace = given.reveal(), planner.options.grace_ms
            await store.rotate(change, workspace, before.id, grace_ms=grace, secret=secret, expected=version)

    planner.add("change", Item("key", workspace, entry.name), fields, path, change_key)


def plan_removal(planner: Planner, workspace: str, record: Key) -> None:
    """A key that the file does not have; a revoked one is a record, and stays."""
    if record.revoked_at is not None:
        return

    async def remove(change: Change) -> None:
        await store.remove(change, workspace, record.id, expected=record.version)

    planner.missing(Item("key", workspace, record.name), remove)


def role_of(workspace: str, entry: KeyEntry) -> RoleName | None:
    """The platform's own keys have one role, so nobody has to say it."""
    return "platform_admin" if workspace == PLATFORM else entry.role


def key_values(draft: KeyDraft, role: str | None) -> dict[str, object]:
    """The keys of its table, but for the secret."""
    values: dict[str, object] = plain_of(draft, KeyDraft)
    if "expires_at" in values:
        values["expires"] = values.pop("expires_at")
    return values if role is None else values | {"role": role}


def _plan_new(planner: Planner, workspace: str, entry: KeyEntry, given: Secret | None, path: Path) -> None:
    draft, role = checked(entry.draft()), role_of(workspace, entry)
    shown = Words("(made, and shown once)" if entry.secret is None else entry.secret)
    fields = (*differing({}, key_values(draft, role)), Field("secret", None, shown))

    async def create(change: Change) -> str | None:
        own = None if given is None else given.reveal()
        kind: Kind = "client" if role is None else "admin"
        _, text = await store.create(change, workspace, draft, kind=kind, role=role, secret=own)
        return None if own is not None else text

    planner.add("create", Item("key", workspace, entry.name), fields, path, create)


async def _is_current(view: View, key: Key, given: Secret) -> bool:
    """Whether this is the text of the key's newest secret."""
    grant = await store.look_up(view, given.reveal())
    return grant is not None and grant.principal.secret == key.secrets[-1].id
