"""/api/v1/workspaces/{workspace}/keys: client keys and admin keys. A text of a key is shown once."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from sluicegate import errors
from sluicegate.http.guard import NARROWING, permissions_of
from sluicegate.keys import store
from sluicegate.keys.model import (
    CLIENT_SCOPES,
    DEFAULT_LIFE_MS,
    LONGEST_GRACE_MS,
    Key,
    KeyDraft,
    Millis,
    RoleName,
    Scope,
)
from sluicegate.keys.secret import Kind
from sluicegate.management.operation import Answer, Call, NamedQuery, Operation
from sluicegate.management.patch import patch_of, patched
from sluicegate.storage.errors import InvalidError
from sluicegate.storage.page import Page

KeyPatch = patch_of(KeyDraft, "KeyPatch")
_SECONDS = LONGEST_GRACE_MS // 1000
OwnSecret = Annotated[str, Meta(min_length=16, max_length=512, description="A text of one's own.")]

# Not None, which is «never».
End = Annotated[Millis, Meta(description="Left out: in 90 days. null: never.")] | None | UnsetType


class KeyCreate(KeyDraft, Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new key. An admin key needs a role; its scopes narrow what the role may do."""

    # None: for a client key, to talk to models; for an admin key, all that its role may.
    scopes: tuple[Scope, ...] | None = None  # type: ignore[assignment]
    expires_at: End = UNSET  # type: ignore[assignment]
    kind: Kind = "client"
    role: RoleName | None = None
    secret: OwnSecret | None = None


class KeyRotate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new secret. The one before stays valid for so many seconds, up to 7 days."""

    grace_seconds: Annotated[int, Meta(ge=0, le=_SECONDS)] = 0
    secret: OwnSecret | None = None


class NewKey(Key, Struct, frozen=True, kw_only=True):
    """A key with its text, which is never shown again."""

    secret: str


class KeyQuery(NamedQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of the list of keys."""

    revoked: (
        Annotated[bool, Meta(description="Only revoked ones, or only those that are not.")] | UnsetType
    ) = UNSET


def _answer(key: Key) -> Answer:
    return Answer(key, key.version, f"/workspaces/{key.workspace}/keys/{key.id}")


def _shown(key: Key, text: str) -> Answer:
    return structs.replace(_answer(key), value=NewKey(**structs.asdict(key), secret=text))


def _require_reach(call: Call, kind: Kind, role: RoleName | None, scopes: tuple[Scope, ...]) -> None:
    """Nobody gives away, or takes over by a new secret, more than they have."""
    if kind == "client":
        wrong: list[str] = [scope for scope in scopes if scope in NARROWING]
        if wrong:
            raise InvalidError("scopes", f"`{wrong[0]}` is for admin keys: the API takes no client keys")
        return
    wrong = [scope for scope in scopes if scope not in NARROWING]
    if wrong and scopes != CLIENT_SCOPES:
        raise InvalidError("scopes", f"`{wrong[0]}` is for client keys: an admin key cannot talk to models")
    if role is None:
        return
    beyond = permissions_of(role, scopes) - call.caller.permissions
    if beyond:
        raise errors.missing_permission(min(beyond), call.caller.role)


async def _list(call: Call) -> Answer:
    query: KeyQuery = call.query
    revoked = None if query.revoked is UNSET else query.revoked
    page = await store.entries(call.view, call.workspace, call.page(), name=query.name, revoked=revoked)
    return call.listed(page)


async def _create(call: Call) -> Answer:
    given: KeyCreate = call.body
    scopes = given.scopes
    if scopes is None:
        scopes = CLIENT_SCOPES if given.kind == "client" else ()
    _require_reach(call, given.kind, given.role, scopes)
    wanted = {name: getattr(given, name) for name in KeyDraft.__struct_fields__}
    end = call.change.now + DEFAULT_LIFE_MS if isinstance(given.expires_at, UnsetType) else given.expires_at
    draft = KeyDraft(**wanted | {"scopes": scopes, "expires_at": end})
    key, text = await store.create(
        call.change, call.workspace, draft, kind=given.kind, role=given.role, secret=given.secret
    )
    return _shown(key, text)


async def _get(call: Call) -> Answer:
    return _answer(await store.get(call.view, call.workspace, call.path["key"]))


async def _patch(call: Call) -> Answer:
    before = await _reached(call)
    draft = patched(store.draft_of(before), call.body)
    _require_reach(call, before.kind, before.role, draft.scopes)
    return _answer(await store.replace(call.change, call.workspace, before.id, draft, expected=call.expected))


async def _rotate(call: Call) -> Answer:
    given: KeyRotate = call.body
    before = await _reached(call)
    key, text = await store.rotate(
        call.change,
        call.workspace,
        before.id,
        grace_ms=given.grace_seconds * 1000,
        secret=given.secret,
        expected=call.expected,
    )
    return _shown(key, text)


async def _revoke(call: Call) -> Answer:
    return _answer(await store.revoke(call.change, call.workspace, call.path["key"], expected=call.expected))


async def _delete(call: Call) -> Answer:
    await store.remove(call.change, call.workspace, call.path["key"], expected=call.expected)
    return Answer()


async def _reached(call: Call) -> Key:
    """The key of the path, where the caller may do all that it may."""
    key = await store.get(call.change, call.workspace, call.path["key"])
    if key.role is not None:
        beyond = permissions_of(key.role, key.scopes) - call.caller.permissions
        if beyond:
            raise errors.missing_permission(min(beyond), call.caller.role)
    return key


_ALL = "/workspaces/{workspace}/keys"
_ONE = _ALL + "/{key}"

OPERATIONS = (
    Operation(
        method="GET",
        path=_ALL,
        id="keys.list",
        summary="The keys of a workspace, oldest first",
        permission="keys:read",
        run=_list,
        query=KeyQuery,
        answer=Page[Key],
    ),
    Operation(
        method="POST",
        path=_ALL,
        id="keys.create",
        summary="Make a key; the answer shows its text, once",
        permission="keys:manage",
        mode="change",
        run=_create,
        body=KeyCreate,
        answer=NewKey,
        status=201,
        creates=True,
        versioned=True,
    ),
    Operation(
        method="GET",
        path=_ONE,
        id="keys.get",
        summary="One key, without its text",
        permission="keys:read",
        run=_get,
        answer=Key,
        versioned=True,
    ),
    Operation(
        method="PATCH",
        path=_ONE,
        id="keys.update",
        summary="Change name, scopes, models, expiry, limits and budget",
        permission="keys:manage",
        mode="change",
        run=_patch,
        body=KeyPatch,
        answer=Key,
        versioned=True,
        conflicts=True,
    ),
    Operation(
        method="POST",
        path=_ONE + "/rotate",
        id="keys.rotate",
        summary="Give it a new secret; the one before stays valid for a while",
        permission="keys:manage",
        mode="change",
        run=_rotate,
        body=KeyRotate,
        answer=NewKey,
        creates=True,
        versioned=True,
    ),
    Operation(
        method="POST",
        path=_ONE + "/revoke",
        id="keys.revoke",
        summary="From the next request on it opens nothing",
        permission="keys:manage",
        mode="change",
        run=_revoke,
        answer=Key,
        versioned=True,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        id="keys.delete",
        summary="Take it out of the list, with its secrets",
        permission="keys:manage",
        mode="change",
        run=_delete,
        status=204,
        versioned=True,
    ),
)
