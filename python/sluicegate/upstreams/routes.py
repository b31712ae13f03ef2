"""/api/v1/workspaces/{workspace}/upstreams: servers, their secrets (write-only), and what they serve."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct

from sluicegate.clock import monotonic
from sluicegate.engine import Upstream as Handle
from sluicegate.ids import PLATFORM
from sluicegate.management.operation import Answer, Call, NamedQuery, Operation
from sluicegate.management.patch import patch_of, patched
from sluicegate.settings import Secret
from sluicegate.storage.errors import InvalidError
from sluicegate.storage.page import Page
from sluicegate.storage.scope import require_workspace
from sluicegate.storage.transaction import Actor
from sluicegate.upstreams import store
from sluicegate.upstreams.ask import Answer as Told
from sluicegate.upstreams.ask import ask
from sluicegate.upstreams.keep import keep
from sluicegate.upstreams.kept import config_of
from sluicegate.upstreams.record import (
    NO_CREDENTIALS,
    Credentials,
    Discovered,
    HeaderName,
    Learned,
    UpstreamDraft,
    UpstreamRecord,
    learned,
    origin_of,
)
from sluicegate.upstreams.tokenizers import names_file

ApiKey = Annotated[str, Meta(min_length=1, max_length=4096, description="Write-only: no answer shows it.")]
HeaderValue = Annotated[str, Meta(max_length=4096)]
Headers = Annotated[
    dict[HeaderName, HeaderValue], Meta(max_length=32, description="Write-only: answers show the names.")
]

UpstreamPatch = patch_of(UpstreamDraft, "UpstreamPatch", api_key=ApiKey, headers=Headers)


class UpstreamCreate(UpstreamDraft, Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new upstream, with what is sent to it."""

    api_key: ApiKey | None = None
    headers: Headers = {}


class UpstreamTest(Struct, frozen=True, kw_only=True):
    """What GET /models gave just now. `cause`: a code as in the reference of errors."""

    ok: bool
    cause: str | None
    models: int
    duration_ms: int


def _answer(found: UpstreamRecord) -> Answer:
    return Answer(found, found.version, f"/workspaces/{found.workspace}/upstreams/{found.id}")


def _credentials(api_key: str | None, headers: dict[str, str]) -> Credentials:
    key = None if api_key is None else Secret(api_key)
    return Credentials(api_key=key, headers={name: Secret(value) for name, value in headers.items()})


def _require_own_files(call: Call, tokenizers: dict[str, str], before: dict[str, str]) -> None:
    """A file of the gateway's machine is named by the operator only; what is stored already may stay."""
    for model, name in tokenizers.items():
        if before.get(model) == name or not names_file(name):
            continue
        if call.caller.role != "platform_admin":
            raise InvalidError(
                "tokenizers",
                f"`{model}`: only the operator names files of the gateway; give the name of an encoding",
            )
        if name.startswith("/") and not Path(name).is_file():
            raise InvalidError("tokenizers", f"`{model}`: there is no such file on this machine")


def _require_possible(call: Call, base_url: str, credentials: Credentials, *, is_new: bool) -> None:
    """That the connector takes it, and that a tenant's leads to no private address that is not allowed.

    The connector's own parser reads the URL here too: what it accepts is what is connected to.
    """
    try:
        Handle(
            base_url,
            api_key=None if credentials.api_key is None else credentials.api_key.reveal(),
            headers=[(name, value.reveal()) for name, value in credentials.headers.items()],
        )
        if is_new and call.workspace != PLATFORM:
            Handle.check_foreign(base_url, list(call.parts.allow_private_networks))
    except ValueError as error:
        field, _, message = str(error).partition(": ")
        raise InvalidError(field, message) from None


async def _list(call: Call) -> Answer:
    page = await store.entries(call.view, call.workspace, call.page(), name=call.query.name)
    return call.listed(page)


async def _create(call: Call) -> Answer:
    given: UpstreamCreate = call.body
    draft = UpstreamDraft(**{name: getattr(given, name) for name in UpstreamDraft.__struct_fields__})
    credentials = _credentials(given.api_key, given.headers)
    _require_own_files(call, draft.tokenizers, {})
    _require_possible(call, draft.base_url, credentials, is_new=True)
    return _answer(await store.create(call.change, call.workspace, draft, credentials))


async def _get(call: Call) -> Answer:
    return _answer(await store.get(call.view, call.workspace, call.path["upstream"]))


async def _patch(call: Call) -> Answer:
    before = await store.get(call.change, call.workspace, call.path["upstream"])
    draft = patched(store.draft_of(before), call.body)
    _require_own_files(call, draft.tokenizers, before.tokenizers)
    credentials = await _changed_credentials(call, before, draft)
    is_new = draft.base_url != before.base_url
    _require_possible(call, draft.base_url, credentials or NO_CREDENTIALS, is_new=is_new)
    return _answer(
        await store.replace(
            call.change,
            call.workspace,
            before.id,
            draft,
            credentials=credentials,
            expected=call.expected,
        )
    )


async def _changed_credentials(
    call: Call, before: UpstreamRecord, draft: UpstreamDraft
) -> Credentials | None:
    """All of them, where one is changed; None where none is. What was for another origin is not kept."""
    given: dict[str, Any] = {
        name: value for name in ("api_key", "headers") if (value := getattr(call.body, name)) is not UNSET
    }
    if not given:
        return None
    try:
        moved = origin_of(draft.base_url) != before.origin
    except ValueError:
        moved = True
    kept = NO_CREDENTIALS
    if not moved and len(given) == 1:
        kept = await store.own_credentials(call.change, call.workspace, before.id)
    new = _credentials(given.get("api_key"), given.get("headers") or {})
    changes = {name: getattr(new, name) for name in given}
    return msgspec.structs.replace(kept, **changes)


async def _delete(call: Call) -> Answer:
    await store.remove(call.change, call.workspace, call.path["upstream"], expected=call.expected)
    return Answer()


async def _models(call: Call) -> Answer:
    return Answer(learned(await store.own_discovered(call.view, call.workspace, call.path["upstream"])))


async def _test(call: Call) -> Answer:
    began = monotonic()
    _, found = await _ask(call)
    return Answer(
        UpstreamTest(
            ok=found.models is not None,
            cause=found.error,
            models=len(found.models or ()),
            duration_ms=int((monotonic() - began) * 1000),
        )
    )


async def _discover(call: Call) -> Answer:
    before, found = await _ask(call)
    database, upstream = call.parts.database, call.path["upstream"]
    actor = Actor(f"key:{call.caller.id}", call.request_id)
    await keep(database, actor, (call.workspace, upstream), before, found)
    async with database.read() as view:
        return Answer(learned(await store.own_discovered(view, call.workspace, upstream)))


async def _ask(call: Call) -> tuple[Discovered, Told]:
    """What was known and what is told now. No connection to the database is held meanwhile."""
    upstream = call.path["upstream"]
    async with call.parts.database.read() as view:
        await require_workspace(view, call.workspace)
        record = await store.get(view, call.workspace, upstream)
        credentials = await store.own_credentials(view, call.workspace, upstream)
        before = await store.own_discovered(view, call.workspace, upstream)
    config = config_of(record, credentials, call.parts.allow_private_networks)
    trusted = call.workspace == PLATFORM
    return before, await ask(call.parts.engine, call.parts.open_handle, config, trusted=trusted)


_ALL = "/workspaces/{workspace}/upstreams"
_ONE = _ALL + "/{upstream}"

OPERATIONS = (
    Operation(
        method="GET",
        path=_ALL,
        id="upstreams.list",
        summary="The upstreams of a workspace, oldest first",
        permission="upstreams:read",
        run=_list,
        query=NamedQuery,
        answer=Page[UpstreamRecord],
    ),
    Operation(
        method="POST",
        path=_ALL,
        id="upstreams.create",
        summary="Add an upstream; nothing is asked of it yet",
        permission="upstreams:manage",
        mode="change",
        run=_create,
        body=UpstreamCreate,
        answer=UpstreamRecord,
        status=201,
        creates=True,
        versioned=True,
    ),
    Operation(
        method="GET",
        path=_ONE,
        id="upstreams.get",
        summary="One upstream, without its secrets",
        permission="upstreams:read",
        run=_get,
        answer=UpstreamRecord,
        versioned=True,
    ),
    Operation(
        method="PATCH",
        path=_ONE,
        id="upstreams.update",
        summary="Change it; another scheme, host or port clears its key and headers",
        permission="upstreams:manage",
        mode="change",
        run=_patch,
        body=UpstreamPatch,
        answer=UpstreamRecord,
        versioned=True,
        conflicts=True,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        id="upstreams.delete",
        summary="Delete it, with its secrets; not while an assistant names it",
        permission="upstreams:manage",
        mode="change",
        run=_delete,
        status=204,
        versioned=True,
        conflicts=True,
    ),
    Operation(
        method="GET",
        path=_ONE + "/models",
        id="upstreams.models",
        summary="What was learned of it: models, context lengths, abilities, and whether it answers",
        permission="upstreams:read",
        run=_models,
        answer=Learned,
    ),
    Operation(
        method="POST",
        path=_ONE + "/discover",
        id="upstreams.discover",
        summary="Ask it for its models now, and keep the answer",
        permission="upstreams:manage",
        mode="open",
        run=_discover,
        answer=Learned,
    ),
    Operation(
        method="POST",
        path=_ONE + "/test",
        id="upstreams.test",
        summary="Ask it for its models now, and keep nothing",
        permission="upstreams:manage",
        mode="open",
        run=_test,
        answer=UpstreamTest,
    ),
)
