"""Upstreams in the database: their owners, their users, their secrets, and what was learned."""

from typing import Any

import msgspec
from sqlalchemy import Row, Select, delete, exists, insert, or_, select, update

from sluicegate.audit.store import record
from sluicegate.ids import PLATFORM, IdSource
from sluicegate.settings import Secret
from sluicegate.storage import schema
from sluicegate.storage.codec import checked, decode, encode
from sluicegate.storage.errors import InUseError, InvalidError, NameTakenError, NotFoundError, SecretsError
from sluicegate.storage.page import FIRST, Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains, require_version, require_workspace
from sluicegate.storage.transaction import Change, View
from sluicegate.storage.vault import place_of
from sluicegate.upstreams.record import (
    NO_CREDENTIALS,
    NOTHING_LEARNED,
    Credentials,
    Discovered,
    LearnedModel,
    UpstreamDraft,
    UpstreamRecord,
    Usable,
    origin_of,
)
from sluicegate.upstreams.thinking import LearnedSwitch
from sluicegate.upstreams.tokenizers import require_tokenizers

_KIND = "upstream"
_SHOWN = 5
_LAST = 4
# Of a key shorter than that, four characters would be too much of it.
_SHORT_KEY = 20

_table = schema.upstreams
_offers = schema.upstream_offers
_discoveries = schema.discoveries
_alive = _table.c.deleted_at.is_(None)
_ids = IdSource("up_")

# Fields of a draft with a column of their own; the rest is in `options`.
_COLUMNS = ("name", "kind", "base_url", "enabled", "offered_to")


async def create(
    change: Change,
    workspace: str,
    draft: UpstreamDraft,
    credentials: Credentials = NO_CREDENTIALS,
) -> UpstreamRecord:
    """A new upstream of a workspace, or with `_platform` of the operator.

    Raises NotFoundError (workspace), NameTakenError, InvalidError.
    """
    await require_workspace(change, workspace)
    draft = await _checked(change, workspace, draft)
    await _require_free_name(change, workspace, draft.name)
    upstream = _ids.next()
    row = {"id": upstream, "workspace": workspace, "version": 1, "created_at": change.now}
    row |= {"updated_at": change.now, "key_last4": "", "header_names": "[]"}
    await change.execute(insert(_table).values(row | _values(draft)))
    await _offer(change, upstream, draft)
    sealed = await _sealed(change, workspace, upstream, draft.base_url, credentials)
    await change.execute(update(_table).where(_table.c.id == upstream).values(sealed))
    record(change, workspace, "upstream.create", upstream, _told(draft, credentials))
    return await get(change, workspace, upstream)


async def get(view: View, workspace: str, upstream: str) -> UpstreamRecord:
    """One upstream of this owner. Raises NotFoundError."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.id == upstream, _alive)
    return await _one(view, query, upstream)


async def find(view: View, workspace: str, name: str) -> UpstreamRecord | None:
    """One upstream of this owner by its name, if it is there."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.name == name, _alive)
    rows = (await view.execute(query)).all()
    return (await _records(view, rows))[0] if rows else None


async def entries(
    view: View, workspace: str, page: PageQuery = FIRST, *, name: str = ""
) -> Page[UpstreamRecord]:
    """The upstreams of this owner, oldest first; `name`: a part of it, without case."""
    query = select(_table).where(_table.c.workspace == workspace, _alive)
    if name:
        query = query.where(contains(_table.c.name, name))
    rows = (await view.execute(paged(query, _table.c.id, page))).all()
    return page_of(await _records(view, rows), [row.id for row in rows], page)


async def usable(view: View, workspace: str) -> tuple[UpstreamRecord, ...]:
    """All enabled upstreams that a workspace may call: its own, then the operator's that are offered to it.

    Where both have one of the same name, the workspace's own is meant.
    """
    rows = (await view.execute(_usable(workspace).order_by(_table.c.id))).all()
    own = [row for row in rows if row.workspace == workspace]
    names = {row.name for row in own}
    offered = [row for row in rows if row.workspace != workspace and row.name not in names]
    return tuple(await _records(view, own + offered))


async def in_use(view: View, workspace: str) -> tuple[Usable, ...]:
    """As `usable`, with their secrets and with what was learned of them."""
    rows = (await view.execute(_usable(workspace).order_by(_table.c.id))).all()
    secrets = {row.id: await _openable(view, row) for row in rows}
    query = select(_discoveries).where(_discoveries.c.upstream.in_(secrets))
    learned = {row.upstream: _discovered(row) for row in (await view.execute(query)).all()}
    return tuple(
        Usable(record, secrets[record.id], learned.get(record.id, NOTHING_LEARNED))
        for record in await usable(view, workspace)
    )


async def credentials_of(view: View, workspace: str, upstream: str) -> Credentials:
    """Key and headers of an upstream that the workspace may call, to be sent to its origin only.

    Raises NotFoundError, and SecretsError for a secret that was moved or altered.
    """
    query = _usable(workspace).where(_table.c.id == upstream)
    return await _credentials(view, await _row(view, query, upstream))


async def own_credentials(view: View, workspace: str, upstream: str) -> Credentials:
    """Key and headers of an upstream of this owner, enabled or not. Raises NotFoundError, SecretsError."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.id == upstream, _alive)
    return await _credentials(view, await _row(view, query, upstream))


async def _openable(view: View, row: Row[Any]) -> Credentials | None:
    try:
        return await _credentials(view, row)
    except SecretsError:
        return None


async def _credentials(view: View, row: Row[Any]) -> Credentials:
    upstream, owner = row.id, row.workspace
    key, headers = None, dict[str, str]()
    if row.api_key is not None:
        place = _place(upstream, "api_key", owner, row.base_url)
        key = Secret((await view.unseal(owner, row.api_key, place)).decode())
    if row.headers is not None:
        place = _place(upstream, "headers", owner, row.base_url)
        headers = decode((await view.unseal(owner, row.headers, place)).decode(), dict[str, str])
    return Credentials(api_key=key, headers={name: Secret(value) for name, value in headers.items()})


async def replace(  # noqa: PLR0913 (the last two are named)
    change: Change,
    workspace: str,
    upstream: str,
    draft: UpstreamDraft,
    *,
    credentials: Credentials | None = None,
    expected: int | None = None,
) -> UpstreamRecord:
    """Write it anew. Without `credentials` those stored stay, unless scheme, host or port change: then they
    go.

    Raises NotFoundError, ConflictError, InvalidError, and InUseError for a new name of one that is in use.
    """
    before = await _writable(change, workspace, upstream, expected)
    draft = await _checked(change, workspace, draft)
    moved = origin_of(draft.base_url) != before.origin
    if credentials is None and not moved and draft == draft_of(before):
        return before
    if draft.name != before.name:
        await _require_unused(change, workspace, before.name)
        await _require_free_name(change, workspace, draft.name)
    values = _values(draft) | {"version": before.version + 1, "updated_at": change.now}
    if credentials is None and moved:
        credentials = NO_CREDENTIALS
    if credentials is not None:
        values |= await _sealed(change, workspace, upstream, draft.base_url, credentials)
    await change.execute(update(_table).where(_table.c.id == upstream).values(values))
    await change.execute(delete(_offers).where(_offers.c.upstream == upstream))
    await _offer(change, upstream, draft)
    if moved:
        await change.execute(delete(_discoveries).where(_discoveries.c.upstream == upstream))
    record(change, workspace, "upstream.update", upstream, _told(draft, credentials) | {"moved": moved})
    return await get(change, workspace, upstream)


async def remove(change: Change, workspace: str, upstream: str, *, expected: int | None = None) -> None:
    """Delete it, and its secrets at once. Raises NotFoundError, ConflictError, InUseError."""
    before = await _writable(change, workspace, upstream, expected)
    await _require_unused(change, workspace, before.name)
    gone: dict[str, Any] = {"deleted_at": change.now, "updated_at": change.now, "version": before.version + 1}
    gone |= {"api_key": None, "key_last4": "", "headers": None, "header_names": "[]"}
    await change.execute(update(_table).where(_table.c.id == upstream).values(gone))
    await change.execute(delete(_offers).where(_offers.c.upstream == upstream))
    await change.execute(delete(_discoveries).where(_discoveries.c.upstream == upstream))
    record(change, workspace, "upstream.delete", upstream, {"name": before.name})


async def discovered(view: View, workspace: str, upstream: str) -> Discovered:
    """What was learned of an upstream that the workspace may call. Raises NotFoundError."""
    await _row(view, _usable(workspace).where(_table.c.id == upstream), upstream)
    return await _learned(view, upstream)


async def own_discovered(view: View, workspace: str, upstream: str) -> Discovered:
    """What was learned of an upstream of this owner, enabled or not. Raises NotFoundError."""
    await get(view, workspace, upstream)
    return await _learned(view, upstream)


async def _learned(view: View, upstream: str) -> Discovered:
    row = (await view.execute(select(_discoveries).where(_discoveries.c.upstream == upstream))).first()
    return NOTHING_LEARNED if row is None else _discovered(row)


def _discovered(row: Row[Any]) -> Discovered:
    return Discovered(
        models=decode(row.models, tuple[LearnedModel, ...]),
        learned_at=row.learned_at,
        asked_at=row.asked_at,
        error=row.error,
        thinking=decode(row.thinking or "[]", tuple[LearnedSwitch, ...]),
    )


async def note_discovered(
    view: View, upstream: str, models: tuple[LearnedModel, ...] | None, error: str | None = None
) -> None:
    """The answer to a question for models; None keeps what was learned before. For `Database.note`."""
    values: dict[str, Any] = {"asked_at": view.now, "error": error}
    if models is not None:
        values |= {"models": encode(models), "learned_at": view.now}
    mine = _discoveries.c.upstream == upstream
    changed = await view.execute(update(_discoveries).where(mine).values(values))
    still_there = (await view.execute(select(exists().where(_table.c.id == upstream, _alive)))).scalar()
    if not changed.rowcount and still_there:
        row = {"upstream": upstream, "models": "[]"} | values
        await view.execute(insert(_discoveries).values(row))


def draft_of(upstream: UpstreamRecord) -> UpstreamDraft:
    """What was written to get this record."""
    return UpstreamDraft(**{name: getattr(upstream, name) for name in UpstreamDraft.__struct_fields__})


def _usable(workspace: str) -> "Select[Any]":
    offered = exists().where(_offers.c.upstream == _table.c.id, _offers.c.workspace == workspace)
    theirs = (_table.c.workspace == PLATFORM) & (_table.c.offered_to_all.is_(True) | offered)
    return select(_table).where(
        or_(_table.c.workspace == workspace, theirs), _table.c.enabled.is_(True), _alive
    )


async def _checked(change: Change, workspace: str, draft: UpstreamDraft) -> UpstreamDraft:
    draft = checked(draft)
    try:
        origin_of(draft.base_url)
    except ValueError:
        raise InvalidError("base_url", "expected a URL with a host, and a port from 1 to 65535") from None
    require_tokenizers(draft.tokenizers)
    if draft.offered_to != "none" and workspace != PLATFORM:
        raise InvalidError("offered_to", "only the operator's own upstreams can be offered to workspaces")
    if isinstance(draft.offered_to, tuple):
        for other in draft.offered_to:
            await require_workspace(change, other)
        draft = msgspec.structs.replace(draft, offered_to=tuple(sorted(set(draft.offered_to))))
    return draft


async def _require_free_name(change: Change, workspace: str, name: str) -> None:
    taken = exists().where(_table.c.workspace == workspace, _table.c.name == name, _alive)
    if (await change.execute(select(taken))).scalar():
        raise NameTakenError(_KIND, name)


async def _require_unused(change: Change, workspace: str, name: str) -> None:
    """Assistants name upstreams: one that its own workspace names keeps its name, and is not deleted.

    The operator's own can always go: no tenant can hold one back.
    """
    models, assistants = schema.assistant_models, schema.assistants
    query = (
        select(assistants.c.name)
        .distinct()
        .join(models, models.c.assistant == assistants.c.id)
        .where(models.c.upstream == name, models.c.workspace == workspace, assistants.c.deleted_at.is_(None))
        .limit(_SHOWN)
    )
    users = [f"assistant «{found}»" for found in (await change.execute(query)).scalars()]
    spaces = schema.workspaces
    settings: str = (
        await change.execute(select(spaces.c.settings).where(spaces.c.id == workspace))
    ).scalar_one()
    if decode(settings, dict[str, Any]).get("default_upstream") == name:
        users.append("the workspace's setting default_upstream")
    if users:
        raise InUseError(_KIND, tuple(users))


async def _writable(change: Change, workspace: str, upstream: str, expected: int | None) -> UpstreamRecord:
    before = await get(change, workspace, upstream)
    require_version(_KIND, expected, before.version)
    return before


async def _offer(change: Change, upstream: str, draft: UpstreamDraft) -> None:
    if isinstance(draft.offered_to, tuple) and draft.offered_to:
        rows = [{"upstream": upstream, "workspace": workspace} for workspace in draft.offered_to]
        await change.execute(insert(_offers), rows)


async def _sealed(
    change: Change, workspace: str, upstream: str, base_url: str, credentials: Credentials
) -> dict[str, Any]:
    """The columns of the secrets, each sealed for its row, column, workspace and origin."""
    values: dict[str, Any] = {"api_key": None, "key_last4": "", "headers": None, "header_names": "[]"}
    if credentials.api_key is not None:
        plain = credentials.api_key.reveal()
        place = _place(upstream, "api_key", workspace, base_url)
        values["api_key"] = await change.seal(workspace, plain.encode(), place)
        values["key_last4"] = plain[-_LAST:] if len(plain) >= _SHORT_KEY else ""
    if credentials.headers:
        shown = {name: value.reveal() for name, value in credentials.headers.items()}
        place = _place(upstream, "headers", workspace, base_url)
        values["headers"] = await change.seal(workspace, encode(shown).encode(), place)
        values["header_names"] = encode(sorted(shown))
    return values


def _place(upstream: str, column: str, workspace: str, base_url: str) -> str:
    return place_of("upstreams", upstream, column, workspace, origin_of(base_url))


def _values(draft: UpstreamDraft) -> dict[str, Any]:
    options = {name: getattr(draft, name) for name in draft.__struct_fields__ if name not in _COLUMNS}
    return {
        "name": draft.name,
        "kind": draft.kind,
        "base_url": draft.base_url,
        "enabled": draft.enabled,
        "offered_to_all": draft.offered_to == "all",
        "options": encode(options),
    }


def _told(draft: UpstreamDraft, credentials: Credentials | None) -> dict[str, Any]:
    """What the audit log says: everything but the secrets."""
    secrets: Any = "kept"
    if credentials is not None:
        secrets = {"key": credentials.api_key is not None, "headers": sorted(credentials.headers)}
    return {"after": draft, "secrets": secrets}


async def _row(view: View, query: "Select[Any]", ref: str) -> Row[Any]:
    row = (await view.execute(query)).first()
    if row is None:
        raise NotFoundError(_KIND, ref)
    return row


async def _one(view: View, query: "Select[Any]", ref: str) -> UpstreamRecord:
    return (await _records(view, [await _row(view, query, ref)]))[0]


async def _records(view: View, rows: "Any") -> list[UpstreamRecord]:
    offers: dict[str, list[str]] = {row.id: [] for row in rows}
    query = select(_offers).where(_offers.c.upstream.in_(offers)).order_by(_offers.c.workspace)
    for found in (await view.execute(query)).all():
        offers[found.upstream].append(found.workspace)
    return [_record(row, tuple(offers[row.id])) for row in rows]


def _record(row: Row[Any], offered: tuple[str, ...]) -> UpstreamRecord:
    draft = msgspec.convert(
        {
            **decode(row.options, dict[str, Any]),
            "name": row.name,
            "kind": row.kind,
            "base_url": row.base_url,
            "enabled": row.enabled,
            "offered_to": "all" if row.offered_to_all else offered or "none",
        },
        UpstreamDraft,
    )
    return UpstreamRecord(
        **msgspec.structs.asdict(draft),
        id=row.id,
        workspace=row.workspace,
        has_key=row.api_key is not None,
        key_last4=row.key_last4,
        header_names=decode(row.header_names, tuple[str, ...]),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
