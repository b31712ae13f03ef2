"""Keys in the database: made, rotated, revoked, and looked up by their text."""

import hmac
from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, delete, exists, insert, select, update

from sluicegate.audit.store import record
from sluicegate.ids import PLATFORM, IdSource
from sluicegate.keys import secret as text
from sluicegate.keys.model import (
    LONGEST_GRACE_MS,
    Grant,
    Key,
    KeyDraft,
    KeySecret,
    Principal,
    Refusal,
    RoleName,
    Scope,
)
from sluicegate.limits.admit import scope
from sluicegate.limits.model import NO_BUDGET, NO_LIMITS, Budget, Limits
from sluicegate.storage import schema
from sluicegate.storage.codec import checked, decode, encode
from sluicegate.storage.errors import InvalidError, NameTakenError, NotFoundError
from sluicegate.storage.page import FIRST, Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains, require_version, require_workspace
from sluicegate.storage.transaction import Change, View

_KIND = "key"
_SECRET_LENGTHS = range(16, 513)
_BATCH = 500

_table = schema.keys
_secrets = schema.key_secrets
_alive = _table.c.deleted_at.is_(None)
_ids = IdSource("key_")
_secret_ids = IdSource("ks_")
_spaces = schema.workspaces
# A secret with its key, and all that decides whether it opens anything.
_granted = (
    select(_table, _secrets.c.id.label("secret"), _secrets.c.digest, _secrets.c.pepper)
    .add_columns(_secrets.c.not_after, _spaces.c.deleted_at.label("workspace_deleted_at"))
    .join_from(_secrets, _table, _secrets.c.key == _table.c.id)
    .join(_spaces, _spaces.c.id == _table.c.workspace)
)


async def create(  # noqa: PLR0913 (the last three are named)
    change: Change,
    workspace: str,
    draft: KeyDraft,
    *,
    kind: text.Kind = "client",
    role: RoleName | None = None,
    secret: str | None = None,
) -> tuple[Key, str]:
    """A new key and its text, which is never shown again. `role` belongs to admin keys; `secret` is one's
    own text.

    Raises NotFoundError (workspace), NameTakenError, InvalidError.
    """
    await require_workspace(change, workspace)
    draft = checked(draft)
    _require_role(workspace, kind, role)
    _require_limits_of_clients(kind, draft)
    await _require_free_name(change, workspace, draft.name)
    found = None if secret is None else text.read(secret)
    key, kid = _ids.next(), text.new_kid() if found is None else found.kid
    shown = text.mint(kind, kid) if secret is None else _own(secret, kind)
    if (await change.execute(select(exists().where(_table.c.kid == kid)))).scalar():
        raise InvalidError("secret", "this secret is in use already; leave it out and one is made")
    row = {
        "id": key,
        "workspace": workspace,
        "kid": kid,
        "kind": kind,
        "role": role,
        "created_by": change.actor.name,
        "version": 1,
        "created_at": change.now,
        "updated_at": change.now,
    }
    await change.execute(insert(_table).values(row | _columns(draft)))
    await _add_secret(change, key, shown)
    detail = {"name": draft.name, "kind": kind, "role": role, "kid": kid, "scopes": draft.scopes}
    record(change, workspace, "key.create", key, detail)
    return await get(change, workspace, key), shown


async def get(view: View, workspace: str, key: str) -> Key:
    """One key, revoked or not. Raises NotFoundError."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.id == key, _alive)
    row = (await view.execute(query)).first()
    if row is None:
        raise NotFoundError(_KIND, key)
    return (await _with_secrets(view, [row]))[0]


async def find(view: View, workspace: str, name: str) -> Key | None:
    """One key by its name, if it is there."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.name == name, _alive)
    row = (await view.execute(query)).first()
    return None if row is None else (await _with_secrets(view, [row]))[0]


async def entries(
    view: View,
    workspace: str,
    page: PageQuery = FIRST,
    *,
    name: str = "",
    revoked: bool | None = None,
) -> Page[Key]:
    """The keys of a workspace, oldest first; `name`: a part of it, without case."""
    query = select(_table).where(_table.c.workspace == workspace, _alive)
    if name:
        query = query.where(contains(_table.c.name, name))
    if revoked is not None:
        query = query.where(_table.c.revoked_at.is_not(None) if revoked else _table.c.revoked_at.is_(None))
    rows = (await view.execute(paged(query, _table.c.id, page))).all()
    return page_of(await _with_secrets(view, rows), [row.id for row in rows], page)


async def replace(
    change: Change, workspace: str, key: str, draft: KeyDraft, *, expected: int | None = None
) -> Key:
    """Write name, scopes, models, expiry and limits anew.

    Raises NotFoundError, ConflictError, NameTakenError, InvalidError.
    """
    before = await _writable(change, workspace, key, expected)
    draft = checked(draft)
    _require_limits_of_clients(before.kind, draft)
    if draft == draft_of(before):
        return before
    if draft.name != before.name:
        await _require_free_name(change, workspace, draft.name)
    await _set(change, before, _columns(draft))
    record(change, workspace, "key.update", key, {"name": before.name, "after": draft})
    return await get(change, workspace, key)


async def rotate(  # noqa: PLR0913 (the last three are named)
    change: Change,
    workspace: str,
    key: str,
    *,
    grace_ms: int,
    secret: str | None = None,
    expected: int | None = None,
) -> tuple[Key, str]:
    """A new secret; the one before stays valid for `grace_ms` (0 to 7 days), an older one ends now.

    Raises NotFoundError, ConflictError, InvalidError (also for a revoked key).
    """
    if not 0 <= grace_ms <= LONGEST_GRACE_MS:
        raise InvalidError("grace", "expected 0 seconds to 7 days")
    before = await _writable(change, workspace, key, expected)
    if before.revoked_at is not None:
        raise InvalidError("key", "a revoked key cannot be rotated; make a new one")
    newest = before.secrets[-1]
    await change.execute(delete(_secrets).where(_secrets.c.key == key, _secrets.c.id != newest.id))
    end = change.now + grace_ms
    if grace_ms:
        await change.execute(update(_secrets).where(_secrets.c.id == newest.id).values(not_after=end))
    else:
        await change.execute(delete(_secrets).where(_secrets.c.id == newest.id))
    shown = text.mint(before.kind, before.kid) if secret is None else _own(secret, before.kind)
    await _add_secret(change, key, shown)
    await _set(change, before, {})
    record(change, workspace, "key.rotate", key, {"name": before.name, "grace_ms": grace_ms})
    return await get(change, workspace, key), shown


async def revoke(change: Change, workspace: str, key: str, *, expected: int | None = None) -> Key:
    """From now on it opens nothing. It stays in the list; its secret can never be used again.

    Raises NotFoundError, ConflictError.
    """
    before = await _writable(change, workspace, key, expected)
    if before.revoked_at is not None:
        return before
    await _set(change, before, {"revoked_at": change.now})
    record(change, workspace, "key.revoke", key, {"name": before.name, "kid": before.kid})
    return await get(change, workspace, key)


async def remove(change: Change, workspace: str, key: str, *, expected: int | None = None) -> None:
    """Take it out of the list, with its secrets. Raises NotFoundError, ConflictError."""
    before = await _writable(change, workspace, key, expected)
    await change.execute(delete(_secrets).where(_secrets.c.key == key))
    await _set(change, before, {"deleted_at": change.now})
    record(change, workspace, "key.delete", key, {"name": before.name, "kid": before.kid})


async def look_up(view: View, key: str) -> Grant | None:
    """What this text is worth; None for one that nobody has. Digests are compared in constant time.

    The caller has refused mistyped keys before: they need no look-up.
    """
    given, peppers = key.encode(), view.keyring.peppers
    known = text.read(key)
    lookups = [text.lookup_of(pepper, given) for pepper in peppers.values()] if known is None else [known.kid]
    query = _granted.where(_secrets.c.lookup.in_(lookups), _alive)
    found: Grant | None = None
    for row in (await view.execute(query)).all():
        pepper = peppers.get(row.pepper)
        if pepper is not None and hmac.compare_digest(text.peppered(pepper, given), row.digest):
            found = _grant(row)
    return found


async def worth(view: View, secrets: Collection[str]) -> dict[str, Grant]:
    """What secrets are worth now, by their ids; those that are gone are left out."""
    query = _granted.where(_secrets.c.id.in_(secrets), _alive)
    return {row.secret: _grant(row) for row in (await view.execute(query)).all()}


async def has_clients(view: View) -> bool:
    """Whether anybody has a key for models that is not revoked."""
    alive = _alive & _table.c.revoked_at.is_(None) & (_table.c.kind == "client")
    return bool((await view.execute(select(exists().where(alive)))).scalar())


def draft_of(key: Key) -> KeyDraft:
    """What was written to get this record."""
    return KeyDraft(**{name: getattr(key, name) for name in KeyDraft.__struct_fields__})


async def note_used(view: View, used: dict[str, int]) -> None:
    """Write when secrets were used last (secret's id → milliseconds); for `Database.note`, in batches."""
    for secret, at in used.items():
        statement = update(_secrets).where(_secrets.c.id == secret)
        newer = _secrets.c.last_used_at.is_(None) | (_secrets.c.last_used_at < at)
        await view.execute(statement.where(newer).values(last_used_at=at))


async def _add_secret(change: Change, key: str, shown: str) -> None:
    given, peppers = shown.encode(), change.keyring.peppers
    # Under every pepper: a text that somebody chose may have been stored under an older one.
    digests = [text.peppered(pepper, given) for pepper in peppers.values()]
    if (await change.execute(select(exists().where(_secrets.c.digest.in_(digests))))).scalar():
        raise InvalidError("secret", "this secret is in use already; leave it out and one is made")
    version, known = max(peppers), text.read(shown)
    row = {
        "id": _secret_ids.next(),
        "key": key,
        "lookup": text.lookup_of(peppers[version], given) if known is None else known.kid,
        "digest": text.peppered(peppers[version], given),
        "pepper": version,
        "last4": text.last_digits(shown),
        "created_at": change.now,
    }
    await change.execute(insert(_secrets).values(row))


def _own(secret: str, kind: text.Kind) -> str:
    """A text that the caller brought. Raises InvalidError."""
    known = text.read(secret)
    if text.is_mistyped(secret):
        raise InvalidError("secret", "mistyped or cut off: the check digits are wrong")
    if kind == "admin" and known is None:
        raise InvalidError("secret", "an admin key has to be one that the gateway made (sk-sgadmin-…)")
    if known is not None and known.kind != kind:
        raise InvalidError("secret", f"this is the text of a key of the kind «{known.kind}»")
    if (
        len(secret) not in _SECRET_LENGTHS
        or not secret.isascii()
        or not secret.isprintable()
        or " " in secret
    ):
        raise InvalidError("secret", "expected 16 to 512 printable ASCII characters without spaces")
    return secret


def _require_role(workspace: str, kind: text.Kind, role: RoleName | None) -> None:
    if (role is None) != (kind == "client"):
        raise InvalidError("role", "an admin key needs a role, and a client key has none")
    if (workspace == PLATFORM) != (role == "platform_admin"):
        raise InvalidError(
            "role", "platform_admin is the role of the platform's own keys, and their only one"
        )


def _require_limits_of_clients(kind: text.Kind, draft: KeyDraft) -> None:
    if kind != "client" and (draft.limits != NO_LIMITS or draft.budget != NO_BUDGET):
        field = "limits" if draft.limits != NO_LIMITS else "budget"
        raise InvalidError(field, "an admin key cannot talk to models, so there is nothing to limit")


async def _require_free_name(change: Change, workspace: str, name: str) -> None:
    taken = exists().where(_table.c.workspace == workspace, _table.c.name == name, _alive)
    if (await change.execute(select(taken))).scalar():
        raise NameTakenError(_KIND, name)


async def _writable(change: Change, workspace: str, key: str, expected: int | None) -> Key:
    before = await get(change, workspace, key)
    require_version(_KIND, expected, before.version)
    return before


async def _set(change: Change, before: Key, values: dict[str, Any]) -> None:
    values = values | {"version": before.version + 1, "updated_at": change.now}
    await change.execute(update(_table).where(_table.c.id == before.id).values(values))


def _columns(draft: KeyDraft) -> dict[str, Any]:
    models = None if draft.models is None else encode(draft.models)
    return {
        "name": draft.name,
        "scopes": encode(draft.scopes),
        "models": models,
        "expires_at": draft.expires_at,
        "limits": None if draft.limits == NO_LIMITS else encode(draft.limits),
        "budget": None if draft.budget == NO_BUDGET else encode(draft.budget),
    }


async def _with_secrets(view: View, rows: "list[Row[Any]] | Any") -> list[Key]:
    secrets: dict[str, list[KeySecret]] = {row.id: [] for row in rows}
    query = select(_secrets).where(_secrets.c.key.in_(secrets)).order_by(_secrets.c.id)
    for row in (await view.execute(query)).all():
        secrets[row.key].append(
            KeySecret(
                id=row.id,
                last4=row.last4,
                created_at=row.created_at,
                not_after=row.not_after,
                last_used_at=row.last_used_at,
            )
        )
    return [_key(row, tuple(secrets[row.id])) for row in rows]


def _key(row: Row[Any], secrets: tuple[KeySecret, ...]) -> Key:
    return Key(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        kid=row.kid,
        kind=row.kind,
        role=row.role,
        scopes=decode(row.scopes, tuple[Scope, ...]),
        models=None if row.models is None else decode(row.models, tuple[str, ...]),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        secrets=secrets,
        created_by=row.created_by,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        limits=_limits(row),
        budget=_budget(row),
    )


def _limits(row: Row[Any]) -> Limits:
    return NO_LIMITS if row.limits is None else decode(row.limits, Limits)


def _budget(row: Row[Any]) -> Budget:
    return NO_BUDGET if row.budget is None else decode(row.budget, Budget)


def _grant(row: Row[Any]) -> Grant:
    ends = [end for end in (row.expires_at, row.not_after) if end is not None]
    principal = Principal(
        name=row.name,
        id=row.id,
        workspace=row.workspace,
        scopes=decode(row.scopes, tuple[Scope, ...]),
        models=None if row.models is None else decode(row.models, tuple[str, ...]),
        kind=row.kind,
        role=row.role,
        limited=scope("key", row.id, row.name, _limits(row), _budget(row)),
        secret=row.secret,
        until=min(ends, default=None),
    )
    refused: Refusal | None = "revoked" if row.revoked_at is not None else None
    if row.workspace_deleted_at is not None:
        refused = "workspace_deleted"
    return Grant(principal, refused)
