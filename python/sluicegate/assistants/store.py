"""Assistants in the database, with every version that they had."""

from typing import Any

from sqlalchemy import Row, delete, exists, insert, select, update

from sluicegate.assistants.model import Assistant, AssistantDraft, AssistantSpec, AssistantVersion
from sluicegate.audit.store import record
from sluicegate.ids import IdSource
from sluicegate.storage import schema
from sluicegate.storage.codec import checked, decode, encode
from sluicegate.storage.errors import InvalidError, NameTakenError, NotFoundError
from sluicegate.storage.page import FIRST, NEWEST, Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains, require_version, require_workspace
from sluicegate.storage.transaction import Change, View

_KIND = "assistant"

_table = schema.assistants
_versions = schema.assistant_versions
_models = schema.assistant_models
_alive = _table.c.deleted_at.is_(None)
_ids = IdSource("asst_")


async def create(change: Change, workspace: str, draft: AssistantDraft) -> Assistant:
    """A new assistant. Its upstreams need not be there yet: what they serve is seen when it is called.

    Raises NotFoundError (workspace), NameTakenError, InvalidError.
    """
    await require_workspace(change, workspace)
    draft = _checked(draft)
    await _require_free_name(change, workspace, draft.name)
    assistant = _ids.next()
    row: dict[str, Any] = {"id": assistant, "workspace": workspace}
    row |= {"name": draft.name, "spec": encode(draft.spec)}
    row |= {"version": 1, "created_at": change.now, "updated_at": change.now}
    await change.execute(insert(_table).values(row))
    made = await get(change, workspace, assistant)
    await _write_version(change, made)
    record(change, workspace, "assistant.create", assistant, {"name": draft.name})
    return made


async def get(view: View, workspace: str, assistant: str) -> Assistant:
    """One assistant by its id. Raises NotFoundError."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.id == assistant, _alive)
    row = (await view.execute(query)).first()
    if row is None:
        raise NotFoundError(_KIND, assistant)
    return _assistant(row)


async def find(view: View, workspace: str, name: str) -> Assistant | None:
    """One assistant by its exact name, if it is there."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.name == name, _alive)
    row = (await view.execute(query)).first()
    return None if row is None else _assistant(row)


async def find_in_other_case(view: View, workspace: str, name: str) -> str | None:
    """The name of an assistant that differs from `name` in case only, for the message of a 404."""
    wanted = name.casefold()
    # Compared here: each database folds case in a way of its own, SQLite's only that of ASCII.
    listed = await names(view, workspace)
    return next((found for found, _ in listed if found.casefold() == wanted and found != name), None)


async def entries(
    view: View,
    workspace: str,
    page: PageQuery = FIRST,
    *,
    name: str = "",
) -> Page[Assistant]:
    """The assistants of a workspace, oldest first; `name`: a part of it, without case."""
    query = select(_table).where(_table.c.workspace == workspace, _alive)
    if name:
        query = query.where(contains(_table.c.name, name))
    rows = (await view.execute(paged(query, _table.c.id, page))).all()
    return page_of([_assistant(row) for row in rows], [row.id for row in rows], page)


async def in_use(view: View, workspace: str) -> tuple[Assistant, ...]:
    """Every assistant of a workspace, oldest first: what its requests need."""
    query = select(_table).where(_table.c.workspace == workspace, _alive).order_by(_table.c.id)
    return tuple(_assistant(row) for row in (await view.execute(query)).all())


async def names(view: View, workspace: str) -> tuple[tuple[str, int], ...]:
    """Name and time of making of every assistant, in the order of the names, for lists of models."""
    query = select(_table.c.name, _table.c.created_at).where(_table.c.workspace == workspace, _alive)
    return tuple(sorted((row.name, row.created_at) for row in (await view.execute(query)).all()))


async def replace(
    change: Change, workspace: str, assistant: str, draft: AssistantDraft, *, expected: int | None = None
) -> Assistant:
    """Write it anew as its next version; without a difference there is none.

    Raises NotFoundError, ConflictError, NameTakenError, InvalidError.
    """
    before = await _writable(change, workspace, assistant, expected)
    draft = _checked(draft)
    if (before.name, before.spec) == (draft.name, draft.spec):
        return before
    return await _next_version(change, before, draft, None)


async def roll_back(
    change: Change, workspace: str, assistant: str, version: int, *, expected: int | None = None
) -> Assistant:
    """Bring an older version again, as a new one.

    Raises NotFoundError (also for the version), ConflictError, NameTakenError for a name that others have
    now.
    """
    before = await _writable(change, workspace, assistant, expected)
    mine = (_versions.c.assistant == assistant) & (_versions.c.version == version)
    row = (await change.execute(select(_versions).where(mine))).first()
    if row is None:
        raise NotFoundError("version", str(version))
    return await _next_version(change, before, AssistantDraft(name=row.name, spec=_spec(row.spec)), version)


async def versions(
    view: View,
    workspace: str,
    assistant: str,
    page: PageQuery = NEWEST,
) -> Page[AssistantVersion]:
    """What it was, newest first. Raises NotFoundError."""
    await get(view, workspace, assistant)
    query = select(_versions).where(_versions.c.assistant == assistant)
    rows = (await view.execute(paged(query, _versions.c.version, page))).all()
    found = [
        AssistantVersion(
            version=row.version,
            name=row.name,
            spec=_spec(row.spec),
            at=row.at,
            by=row.by,
            restored_from=row.restored_from,
        )
        for row in rows
    ]
    return page_of(found, [row.version for row in rows], page)


async def remove(change: Change, workspace: str, assistant: str, *, expected: int | None = None) -> None:
    """Delete it; its name is free again, its versions stay for the records.

    Raises NotFoundError, ConflictError.
    """
    before = await _writable(change, workspace, assistant, expected)
    gone = {"deleted_at": change.now, "updated_at": change.now, "version": before.version + 1}
    await change.execute(update(_table).where(_table.c.id == assistant).values(gone))
    await change.execute(delete(_models).where(_models.c.assistant == assistant))
    record(change, workspace, "assistant.delete", assistant, {"name": before.name})


def _checked(draft: AssistantDraft) -> AssistantDraft:
    draft = checked(draft)
    if len(set(draft.spec.model)) != len(draft.spec.model):
        raise InvalidError("spec.model", "the same model stands twice in the list")
    return draft


async def _require_free_name(change: Change, workspace: str, name: str) -> None:
    taken = exists().where(_table.c.workspace == workspace, _table.c.name == name, _alive)
    if (await change.execute(select(taken))).scalar():
        raise NameTakenError(_KIND, name)


async def _writable(change: Change, workspace: str, assistant: str, expected: int | None) -> Assistant:
    before = await get(change, workspace, assistant)
    require_version(_KIND, expected, before.version)
    return before


async def _next_version(
    change: Change, before: Assistant, draft: AssistantDraft, restored_from: int | None
) -> Assistant:
    if draft.name != before.name:
        await _require_free_name(change, before.workspace, draft.name)
    version = before.version + 1
    values = {"name": draft.name, "spec": encode(draft.spec), "version": version, "updated_at": change.now}
    await change.execute(update(_table).where(_table.c.id == before.id).values(values))
    written = await get(change, before.workspace, before.id)
    await _write_version(change, written, restored_from)
    changed = [
        name
        for name in AssistantSpec.__struct_fields__
        if getattr(before.spec, name) != getattr(draft.spec, name)
    ]
    detail = {"name": draft.name, "version": version, "changed": changed, "restored_from": restored_from}
    action = "assistant.update" if restored_from is None else "assistant.roll_back"
    record(change, before.workspace, action, before.id, detail)
    return written


async def _write_version(change: Change, written: Assistant, restored_from: int | None = None) -> None:
    assistant = written.id
    row: dict[str, Any] = {"assistant": assistant, "version": written.version, "name": written.name}
    row |= {"spec": encode(written.spec), "at": change.now, "by": change.actor.name}
    row |= {"restored_from": restored_from}
    await change.execute(insert(_versions).values(row))
    await change.execute(delete(_models).where(_models.c.assistant == assistant))
    await change.execute(
        insert(_models),
        [
            {
                "assistant": assistant,
                "position": position,
                "workspace": written.workspace,
                "upstream": model.partition("/")[0],
            }
            for position, model in enumerate(written.spec.model)
        ],
    )


def _assistant(row: Row[Any]) -> Assistant:
    return Assistant(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        spec=_spec(row.spec),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _spec(stored: str) -> AssistantSpec:
    return decode(stored, AssistantSpec)
