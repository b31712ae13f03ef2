"""/api/v1/workspaces/{workspace}/conversations: what assistants and clients have kept."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from sluicegate.archive import store
from sluicegate.archive.model import Deleted, Exported, Kind, MessageView, ThreadView, Wanted
from sluicegate.management.operation import Answer, Call, Filter, ListQuery, Operation
from sluicegate.storage.page import Page

Text = Annotated[Filter, Meta(description="A part of what was said, without case.")]
_KIND = "Only those of assistants with chat history (`thread`), or of /v1/conversations (`conversation`)."
Ref = Annotated[Filter, Meta(description="Only those of this id.")]


class ConversationQuery(ListQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of the list of conversations; what is given has to match."""

    kind: Annotated[Kind, Meta(description=_KIND)] | UnsetType = UNSET
    key: Ref | UnsetType = UNSET
    assistant: Ref | UnsetType = UNSET
    text: Text = ""


class MessageQuery(ListQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of the messages of a conversation."""

    text: Text = ""


class ConversationOwner(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose conversations are deleted; one of the two has to be given, and both have to match."""

    key: Annotated[str, Meta(max_length=200)] | None = None
    assistant: Annotated[str, Meta(max_length=200)] | None = None


async def _list(call: Call) -> Answer:
    query: ConversationQuery = call.query
    wanted = Wanted(
        kind=None if query.kind is UNSET else query.kind,
        owner=None if query.key is UNSET else query.key,
        assistant=None if query.assistant is UNSET else query.assistant,
        text=query.text,
    )
    page = call.page(newest_first=True)
    return call.listed(await store.entries(call.view, call.workspace, page, wanted))


async def _get(call: Call) -> Answer:
    return Answer(await store.get(call.view, call.workspace, call.path["conversation"]))


async def _messages(call: Call) -> Answer:
    query: MessageQuery = call.query
    thread = call.path["conversation"]
    return call.listed(await store.messages(call.view, call.workspace, thread, call.page(), query.text))


async def _export(call: Call) -> Answer:
    return Answer(await store.export(call.view, call.workspace, call.path["conversation"]))


async def _delete(call: Call) -> Answer:
    await store.remove(call.change, call.workspace, call.path["conversation"])
    return Answer()


async def _delete_all(call: Call) -> Answer:
    given: ConversationOwner = call.body
    wanted = Wanted(owner=given.key, assistant=given.assistant)
    return Answer(Deleted(await store.remove_all(call.change, call.workspace, wanted)))


_ALL = "/workspaces/{workspace}/conversations"
_ONE = "/workspaces/{workspace}/conversations/{conversation}"

OPERATIONS = (
    Operation(
        method="GET",
        path=_ALL,
        id="conversations.list",
        summary="The conversations of a workspace, the newest first; `text` searches in what was said",
        permission="conversations:read",
        run=_list,
        query=ConversationQuery,
        answer=Page[ThreadView],
    ),
    Operation(
        method="POST",
        path=f"{_ALL}/delete",
        id="conversations.delete_all",
        summary="Delete the conversations of a key or an assistant, at most 10,000 at a time",
        permission="conversations:manage",
        mode="change",
        run=_delete_all,
        body=ConversationOwner,
        answer=Deleted,
    ),
    Operation(
        method="GET",
        path=_ONE,
        id="conversations.get",
        summary="One conversation",
        permission="conversations:read",
        run=_get,
        answer=ThreadView,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        id="conversations.delete",
        summary="Delete a conversation and all that is in it",
        permission="conversations:manage",
        mode="change",
        run=_delete,
        status=204,
    ),
    Operation(
        method="GET",
        path=f"{_ONE}/messages",
        id="conversations.messages",
        summary="What was said in it, with the branches of edited and repeated messages",
        permission="conversations:read",
        run=_messages,
        query=MessageQuery,
        answer=Page[MessageView],
    ),
    Operation(
        method="GET",
        path=f"{_ONE}/export",
        id="conversations.export",
        summary="All of it in one document",
        permission="conversations:read",
        run=_export,
        answer=Exported,
    ),
)
