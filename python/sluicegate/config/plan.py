"""What a file would change: found by comparing it with what is stored, in the order of the changes."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import Assistant, AssistantDraft, AssistantSpec
from sluicegate.config import keys, upstreams
from sluicegate.config.file import AssistantEntry, ConfigFile, WorkspaceEntry, WorkspaceSettingsEntry
from sluicegate.config.plain import plain_of
from sluicegate.config.step import Item, Options, Plan, Planner, differing
from sluicegate.config.stored import Stored, StoredWorkspace, read
from sluicegate.ids import PLATFORM
from sluicegate.storage.codec import checked
from sluicegate.storage.transaction import Change, View
from sluicegate.toml_lines import Path
from sluicegate.upstreams.record import UpstreamDraft
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import Workspace, WorkspaceDraft, WorkspaceSettings


async def make_plan(view: View, file: ConfigFile, options: Options) -> Plan:
    """Compare. Raises ConfigError for what the file alone does not show: a secret that is not there, an offer
    to nobody.
    """
    planner = Planner(view, options)
    stored = await read(view, {space.id for space in file.workspace})
    _check_names(file, stored, planner)
    for index, space in enumerate(file.workspace):
        before = stored.workspaces.get(space.id)
        plan_workspace(planner, space, None if before is None else before.record, ("workspace", index))
    for index, entry in enumerate(file.upstream):
        known = stored.upstreams.get(entry.name)
        await upstreams.plan_upstream(planner, PLATFORM, entry, known, ("upstream", index))
    for index, space in enumerate(file.workspace):
        await _plan_owned(planner, space, stored.workspaces.get(space.id), ("workspace", index))
    for space in file.workspace:
        if space.id in stored.workspaces:
            _plan_missing(planner, space, stored.workspaces[space.id])
    declared = {space.id for space in file.workspace}
    for workspace in stored.ids:
        if workspace not in declared:
            await _plan_missing_workspace(planner, workspace)
    for record in stored.upstreams.values():
        if record.name not in {entry.name for entry in file.upstream}:
            upstreams.plan_removal(planner, PLATFORM, record)
    return planner.finish()


def plan_workspace(
    planner: Planner, space: WorkspaceSettingsEntry, before: Workspace | None, path: Path
) -> None:
    """What has to be done for a workspace itself."""
    draft = checked(space.draft())
    after = workspace_values(space.id, draft)
    item = Item("workspace", space.id, space.id)
    if before is None:

        async def create(change: Change) -> None:
            await workspaces.create(change, space.id, draft)

        planner.add("create", item, differing({}, after), path, create)
        return
    version = before.version
    fields = differing(workspace_values(space.id, draft_of(before)), after)

    async def replace(change: Change) -> None:
        await workspaces.replace(change, space.id, draft, expected=version)

    if fields:
        planner.add("change", item, fields, path, replace)


async def _plan_owned(
    planner: Planner, space: WorkspaceEntry, before: StoredWorkspace | None, path: Path
) -> None:
    known_upstreams = {} if before is None else before.upstreams
    known_keys = {} if before is None else before.keys
    known_assistants = {} if before is None else before.assistants
    for index, upstream in enumerate(space.upstream):
        where: Path = (*path, "upstream", index)
        found = known_upstreams.get(upstream.name)
        await upstreams.plan_upstream(planner, space.id, upstream, found, where)
    for index, assistant in enumerate(space.assistant):
        where = (*path, "assistant", index)
        plan_assistant(planner, space.id, assistant, known_assistants.get(assistant.name), where)
    for index, key in enumerate(space.key):
        where = (*path, "key", index)
        await keys.plan_key(planner, space.id, key, known_keys.get(key.name), where)


def plan_assistant(
    planner: Planner, workspace: str, entry: AssistantEntry, before: Assistant | None, path: Path
) -> None:
    """What has to be done for one entry."""
    draft = checked(entry.draft())
    after = assistant_values(draft)
    item = Item("assistant", workspace, entry.name)
    if before is None:

        async def create(change: Change) -> None:
            await assistants.create(change, workspace, draft)

        planner.add("create", item, differing({}, after), path, create)
        return
    assistant, version = before.id, before.version
    fields = differing(assistant_values(AssistantDraft(name=before.name, spec=before.spec)), after)

    async def replace(change: Change) -> None:
        await assistants.replace(change, workspace, assistant, draft, expected=version)

    if fields:
        planner.add("change", item, fields, path, replace)


def _plan_missing(planner: Planner, space: WorkspaceEntry, before: StoredWorkspace) -> None:
    """Assistants before the upstreams that they name."""
    names = {entry.name for entry in space.assistant}
    for assistant in before.assistants.values():
        if assistant.name not in names:
            _plan_assistant_removal(planner, assistant)
    names = {entry.name for entry in space.key}
    for key in before.keys.values():
        if key.name not in names:
            keys.plan_removal(planner, space.id, key)
    names = {entry.name for entry in space.upstream}
    for upstream in before.upstreams.values():
        if upstream.name not in names:
            upstreams.plan_removal(planner, space.id, upstream)


def _plan_assistant_removal(planner: Planner, record: Assistant) -> None:
    async def remove(change: Change) -> None:
        await assistants.remove(change, record.workspace, record.id, expected=record.version)

    planner.missing(Item("assistant", record.workspace, record.name), remove)


async def _plan_missing_workspace(planner: Planner, workspace: str) -> None:
    version = (await workspaces.get(planner.view, workspace)).version

    async def remove(change: Change) -> None:
        await workspaces.delete(change, workspace, expected=version)

    planner.missing(Item("workspace", workspace, workspace), remove)


def draft_of(record: Workspace) -> WorkspaceDraft:
    """What was written to get this record."""
    return WorkspaceDraft(name=record.name, settings=record.settings)


def workspace_values(workspace: str, draft: WorkspaceDraft) -> dict[str, Any]:
    """The keys of its table, but for the id."""
    values = plain_of(draft.settings, WorkspaceSettings)
    return values if draft.name == workspace else {"name": draft.name} | values


def assistant_values(draft: AssistantDraft) -> dict[str, Any]:
    """The keys of its table."""
    return {"name": draft.name} | plain_of(draft.spec, AssistantSpec)


def _check_names(file: ConfigFile, stored: Stored, planner: Planner) -> None:
    """Whether what is named is there once the file is applied. What is offered to nobody cannot be stored; an
    unknown upstream can, so that is a warning.
    """
    declared = {space.id for space in file.workspace}
    ids = declared if planner.options.prune else declared | set(stored.ids)
    for index, entry in enumerate(file.upstream):
        for other in entry.offered_to if isinstance(entry.offered_to, tuple) else ():
            if other not in ids:
                planner.fail(
                    ("upstream", index, "offered_to"), f"there is no workspace `{other}`{_near(other, ids)}"
                )
    named = {space.id: _usable(space, file, stored, planner) for space in file.workspace}
    for index, space in enumerate(file.workspace):
        names = named[space.id]
        if space.default_upstream is not None and space.default_upstream not in names:
            where: Path = ("workspace", index, "default_upstream")
            planner.warn(where, no_upstream(space.default_upstream, names))
    for space, assistant, path in file.assistants():
        names = named[space.id]
        for upstream in dict.fromkeys(ref.partition("/")[0] for ref in assistant.model):
            if upstream not in names:
                planner.warn((*path, "model"), no_upstream(upstream, names))


def _usable(space: WorkspaceEntry, file: ConfigFile, stored: Stored, planner: Planner) -> set[str]:
    """Names of the upstreams that the workspace will have."""
    offers: dict[str, Any] = {entry.name: entry.offered_to for entry in file.upstream}
    names = {entry.name for entry in space.upstream}
    if not planner.options.prune:
        kept: Mapping[str, UpstreamDraft | Any] = stored.upstreams
        offers = {name: record.offered_to for name, record in kept.items()} | offers
        if space.id in stored.workspaces:
            names |= set(stored.workspaces[space.id].upstreams)
    return names | {
        name for name, offer in offers.items() if offer == "all" or (offer != "none" and space.id in offer)
    }


def no_upstream(name: str, known: set[str]) -> str:
    """What is said of a reference to nothing."""
    return f"there is no upstream `{name}` that this workspace may use{_near(name, known)}"


def _near(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    return f". Did you mean `{close[0]}`?" if close else ""
