"""/api/v1/audit and /workspaces/{workspace}/audit: who did what, and that nobody has edited it since."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from sluicegate.audit import store
from sluicegate.audit.model import Entry
from sluicegate.audit.store import AuditFilter, Verdict
from sluicegate.management.operation import Answer, Call, Filter, ListQuery, Operation
from sluicegate.storage.page import Page

_EXACTLY = "Only entries with exactly this."


class AuditQuery(ListQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of the audit log; what is given has to match exactly."""

    action: Annotated[Filter, Meta(description=_EXACTLY)] | UnsetType = UNSET
    actor: Annotated[Filter, Meta(description=_EXACTLY)] | UnsetType = UNSET
    object: Annotated[Filter, Meta(description=_EXACTLY)] | UnsetType = UNSET


async def _all(call: Call) -> Answer:
    return await _listed(call, None)


async def _list(call: Call) -> Answer:
    return await _listed(call, call.workspace)


async def _listed(call: Call, workspace: str | None) -> Answer:
    query: AuditQuery = call.query
    given = {name: getattr(query, name) for name in AuditFilter.__struct_fields__}
    wanted = AuditFilter(**{name: value for name, value in given.items() if value is not UNSET})
    return call.listed(await store.entries(call.view, workspace, call.page(newest_first=True), wanted))


async def _verify(call: Call) -> Answer:
    return Answer(await store.verify(call.view))


OPERATIONS = (
    Operation(
        method="GET",
        path="/workspaces/{workspace}/audit",
        id="audit.list",
        summary="What was done in a workspace, newest first",
        permission="audit:read",
        run=_list,
        query=AuditQuery,
        answer=Page[Entry],
    ),
    Operation(
        method="GET",
        path="/audit",
        id="audit.list_all",
        summary="What was done everywhere, newest first",
        permission="platform:manage",
        run=_all,
        query=AuditQuery,
        answer=Page[Entry],
    ),
    Operation(
        method="POST",
        path="/audit/verify",
        id="audit.verify",
        summary="Follow the whole chain: was any entry changed, added or removed?",
        permission="platform:manage",
        run=_verify,
        answer=Verdict,
    ),
)
