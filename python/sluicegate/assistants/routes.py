"""/api/v1/workspaces/{workspace}/assistants: set-ups by name, and every version that they had."""

from typing import Annotated

from msgspec import Meta, Struct

from sluicegate.assistants import store
from sluicegate.assistants.model import Assistant, AssistantDraft, AssistantVersion
from sluicegate.management.operation import Answer, Call, ListQuery, NamedQuery, Operation
from sluicegate.management.patch import patch_of, patched
from sluicegate.storage.page import Page

AssistantPatch = patch_of(AssistantDraft, "AssistantPatch")


class AssistantRollBack(Struct, frozen=True, forbid_unknown_fields=True):
    """The version that is wanted again; it becomes a new one."""

    version: Annotated[int, Meta(ge=1, le=999_999_999)]


def _answer(found: Assistant) -> Answer:
    return Answer(found, found.version, f"/workspaces/{found.workspace}/assistants/{found.id}")


async def _list(call: Call) -> Answer:
    page = await store.entries(call.view, call.workspace, call.page(), name=call.query.name)
    return call.listed(page)


async def _create(call: Call) -> Answer:
    return _answer(await store.create(call.change, call.workspace, call.body))


async def _get(call: Call) -> Answer:
    return _answer(await store.get(call.view, call.workspace, call.path["assistant"]))


async def _patch(call: Call) -> Answer:
    before = await store.get(call.change, call.workspace, call.path["assistant"])
    draft = patched(AssistantDraft(name=before.name, spec=before.spec), call.body)
    return _answer(await store.replace(call.change, call.workspace, before.id, draft, expected=call.expected))


async def _delete(call: Call) -> Answer:
    await store.remove(call.change, call.workspace, call.path["assistant"], expected=call.expected)
    return Answer()


async def _versions(call: Call) -> Answer:
    page = await store.versions(
        call.view, call.workspace, call.path["assistant"], call.page(newest_first=True)
    )
    return call.listed(page)


async def _roll_back(call: Call) -> Answer:
    given: AssistantRollBack = call.body
    assistant = call.path["assistant"]
    return _answer(
        await store.roll_back(call.change, call.workspace, assistant, given.version, expected=call.expected)
    )


_ALL = "/workspaces/{workspace}/assistants"
_ONE = _ALL + "/{assistant}"

OPERATIONS = (
    Operation(
        method="GET",
        path=_ALL,
        id="assistants.list",
        summary="The assistants of a workspace, oldest first",
        permission="assistants:read",
        run=_list,
        query=NamedQuery,
        answer=Page[Assistant],
    ),
    Operation(
        method="POST",
        path=_ALL,
        id="assistants.create",
        summary="Make an assistant",
        permission="assistants:manage",
        mode="change",
        run=_create,
        body=AssistantDraft,
        answer=Assistant,
        status=201,
        creates=True,
        versioned=True,
    ),
    Operation(
        method="GET",
        path=_ONE,
        id="assistants.get",
        summary="One assistant",
        permission="assistants:read",
        run=_get,
        answer=Assistant,
        versioned=True,
    ),
    Operation(
        method="PATCH",
        path=_ONE,
        id="assistants.update",
        summary="Change it: its next version",
        permission="assistants:manage",
        mode="change",
        run=_patch,
        body=AssistantPatch,
        answer=Assistant,
        versioned=True,
        conflicts=True,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        id="assistants.delete",
        summary="Delete it; its name is free again",
        permission="assistants:manage",
        mode="change",
        run=_delete,
        status=204,
        versioned=True,
    ),
    Operation(
        method="GET",
        path=_ONE + "/versions",
        id="assistants.versions",
        summary="What it was, newest first, and who made it so",
        permission="assistants:read",
        run=_versions,
        query=ListQuery,
        answer=Page[AssistantVersion],
    ),
    Operation(
        method="POST",
        path=_ONE + "/roll-back",
        id="assistants.roll_back",
        summary="Bring an older version again, as a new one",
        permission="assistants:manage",
        mode="change",
        run=_roll_back,
        body=AssistantRollBack,
        answer=Assistant,
        versioned=True,
        conflicts=True,
    ),
)
