"""GET /me: what a key is and may do."""

from typing import Annotated

from msgspec import Meta, Struct

from sluicegate.management.operation import Answer, Call, Operation


class Me(Struct, frozen=True, kw_only=True):
    """The caller, as the management API sees it."""

    id: str
    name: str
    # `_platform` for the operator's own keys.
    workspace: str
    role: str
    permissions: Annotated[tuple[str, ...], Meta(description="What may be done with this key.")]


async def _me(call: Call) -> Answer:
    caller = call.caller
    return Answer(
        Me(
            id=caller.id,
            name=caller.name,
            workspace=caller.workspace,
            role=caller.role,
            permissions=tuple(sorted(caller.permissions)),
        )
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/me",
        id="me.get",
        summary="Who this key is, and what it may do",
        # Every role has it.
        permission="workspaces:read",
        mode="open",
        run=_me,
        answer=Me,
    ),
)
