"""The audit log in the database: written with each change, listed, and checked for edits."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select, update

from sluicegate.audit.model import GENESIS, Entry, link
from sluicegate.storage import schema
from sluicegate.storage.codec import decode, encode
from sluicegate.storage.page import NEWEST, Page, PageQuery, page_of, paged
from sluicegate.storage.transaction import Change, View

_BATCH = 1000

_table = schema.audit


class Verdict(msgspec.Struct, frozen=True):
    """What `verify` found: how many entries are good, and the first one that is not (None: all are)."""

    good: int
    broken_at: int | None = None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are wanted; what is given has to match exactly."""

    action: str | None = None
    actor: str | None = None
    object: str | None = None


EVERYTHING = AuditFilter()


def record(change: Change, workspace: str, action: str, target: str, detail: dict[str, Any]) -> None:
    """Note what this change does; written with it, or not at all. `detail` must not hold secrets."""
    pending = next((step for step in change.last_steps if isinstance(step, _Append)), None)
    if pending is None:
        pending = _Append()
        change.last_steps.append(pending)
    pending.add(workspace, action, target, detail)
    change.touch(workspace)


class _Append:
    """Extends the chain by the entries of one change."""

    def __init__(self) -> None:
        self._notes: list[tuple[str, str, str, dict[str, Any]]] = []

    def add(self, workspace: str, action: str, target: str, detail: dict[str, Any]) -> None:
        self._notes.append((workspace, action, target, detail))

    async def __call__(self, change: Change) -> None:
        head = (await change.execute(select(schema.audit_head))).one()
        sequence, last = head.sequence, head.link
        rows = []
        for workspace, action, target, detail in self._notes:
            sequence += 1
            entry = Entry(
                sequence=sequence,
                at=change.now,
                workspace=workspace,
                actor=change.actor.name,
                action=action,
                object=target,
                # As it will be read again.
                detail=decode(encode(detail), dict[str, Any]),
                request_id=change.actor.request_id,
            )
            last = link(change.keyring.audit_key, last, entry)
            rows.append({**msgspec.structs.asdict(entry), "detail": encode(entry.detail), "link": last})
        await change.execute(insert(_table), rows)
        await change.execute(update(schema.audit_head).values(sequence=sequence, link=last))


async def entries(
    view: View,
    workspace: str | None,
    page: PageQuery = NEWEST,
    wanted: AuditFilter = EVERYTHING,
) -> Page[Entry]:
    """The entries of one workspace; None: of all, for the platform's admins."""
    query = select(_table)
    if workspace is not None:
        query = query.where(_table.c.workspace == workspace)
    for field, value in msgspec.structs.asdict(wanted).items():
        if value is not None:
            query = query.where(_table.c[field] == value)
    rows = (await view.execute(paged(query, _table.c.sequence, page))).all()
    return page_of([_entry(row) for row in rows], [row.sequence for row in rows], page)


async def verify(view: View) -> Verdict:
    """Follow the whole chain. Finds entries that were changed, inserted, removed or cut off at the end."""
    last, good = GENESIS, 0
    async for row in _in_order(view):
        entry = _entry(row)
        if row.sequence != good + 1 or row.link != link(view.keyring.audit_key, last, entry):
            return Verdict(good, broken_at=good + 1)
        last, good = row.link, good + 1
    head = (await view.execute(select(schema.audit_head))).one()
    if (head.sequence, head.link) != (good, last):
        return Verdict(good, broken_at=good + 1)
    return Verdict(good)


async def _in_order(view: View) -> AsyncIterator[Row[Any]]:
    after = -1
    while True:
        query = select(_table).where(_table.c.sequence > after).order_by(_table.c.sequence).limit(_BATCH)
        rows = (await view.execute(query)).all()
        for row in rows:
            yield row
        if len(rows) < _BATCH:
            return
        after = rows[-1].sequence


def _entry(row: Row[Any]) -> Entry:
    values = dict(row._mapping)
    del values["link"]
    return Entry(**{**values, "detail": decode(row.detail, dict[str, Any])})
