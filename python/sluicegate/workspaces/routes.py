"""/api/v1/workspaces: tenants and their settings."""

from msgspec import Struct

from sluicegate.management.operation import Answer, Call, NamedQuery, Operation
from sluicegate.management.patch import patch_of, patched
from sluicegate.storage.page import Page
from sluicegate.workspaces import store
from sluicegate.workspaces.model import Workspace, WorkspaceDraft, WorkspaceId

WorkspacePatch = patch_of(WorkspaceDraft, "WorkspacePatch")


class WorkspaceCreate(WorkspaceDraft, Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new workspace. The id is in paths and stays."""

    id: WorkspaceId


def _answer(found: Workspace) -> Answer:
    return Answer(found, found.version, f"/workspaces/{found.id}")


async def _list(call: Call) -> Answer:
    """All for the platform, one's own for everybody else."""
    caller = call.caller
    if caller.is_platform:
        return call.listed(await store.entries(call.view, call.page(), name=call.query.name))
    call.page()
    own = await store.find(call.view, caller.workspace)
    wanted = call.query.name.casefold()
    shown = own is not None and (wanted in own.id.casefold() or wanted in own.name.casefold())
    return Answer(Page((own,) if shown else ()))


async def _create(call: Call) -> Answer:
    given: WorkspaceCreate = call.body
    draft = WorkspaceDraft(name=given.name, settings=given.settings)
    return _answer(await store.create(call.change, given.id, draft))


async def _get(call: Call) -> Answer:
    return _answer(await store.get(call.view, call.workspace))


async def _patch(call: Call) -> Answer:
    before = await store.get(call.change, call.workspace)
    draft = patched(WorkspaceDraft(name=before.name, settings=before.settings), call.body)
    return _answer(await store.replace(call.change, call.workspace, draft, expected=call.expected))


async def _delete(call: Call) -> Answer:
    await store.get(call.change, call.workspace)
    await store.delete(call.change, call.workspace, expected=call.expected)
    return Answer()


_ALL = "/workspaces"
_ONE = "/workspaces/{workspace}"

OPERATIONS = (
    Operation(
        method="GET",
        path=_ALL,
        id="workspaces.list",
        summary="The workspaces that this key reaches",
        permission="workspaces:read",
        run=_list,
        query=NamedQuery,
        answer=Page[Workspace],
    ),
    Operation(
        method="POST",
        path=_ALL,
        id="workspaces.create",
        summary="Make a workspace",
        permission="platform:manage",
        mode="change",
        run=_create,
        body=WorkspaceCreate,
        answer=Workspace,
        status=201,
        creates=True,
        versioned=True,
    ),
    Operation(
        method="GET",
        path=_ONE,
        id="workspaces.get",
        summary="One workspace",
        permission="workspaces:read",
        run=_get,
        answer=Workspace,
        versioned=True,
    ),
    Operation(
        method="PATCH",
        path=_ONE,
        id="workspaces.update",
        summary="Change name and settings",
        permission="workspaces:manage",
        mode="change",
        run=_patch,
        body=WorkspacePatch,
        answer=Workspace,
        versioned=True,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        id="workspaces.delete",
        summary="Delete it: none of its keys works any more, and its id stays taken",
        permission="platform:manage",
        mode="change",
        run=_delete,
        status=204,
        versioned=True,
    ),
)
