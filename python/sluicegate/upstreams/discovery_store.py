"""Which upstreams have to be asked again, by whom, and what the answer changes."""

from typing import NamedTuple

from sqlalchemy import exists, insert, or_, select, update

from sluicegate.ids import PLATFORM
from sluicegate.storage import schema
from sluicegate.storage.codec import decode, encode
from sluicegate.storage.transaction import View
from sluicegate.upstreams.record import LearnedModel
from sluicegate.upstreams.thinking import MOST_LEARNED, LearnedSwitch

_table = schema.upstreams
_discoveries = schema.discoveries
_alive = _table.c.deleted_at.is_(None) & _table.c.enabled.is_(True)


class Due(NamedTuple):
    """An upstream that should be asked: its owner, its id, and when it was asked last."""

    workspace: str
    upstream: str
    asked_at: int | None


async def due(view: View, period_ms: int, retry_ms: int, limit: int) -> tuple[Due, ...]:
    """Those never asked, then those changed since, or asked `period_ms` ago, or `retry_ms` if that failed."""
    asked, spaces = _discoveries.c.asked_at, schema.workspaces
    query = (
        select(_table.c.workspace, _table.c.id, asked)
        .join(spaces, spaces.c.id == _table.c.workspace)
        .outerjoin(_discoveries, _discoveries.c.upstream == _table.c.id)
        .where(
            _alive,
            or_(spaces.c.deleted_at.is_(None), spaces.c.id == PLATFORM),
            or_(
                asked.is_(None),
                asked < view.now - period_ms,
                asked < _table.c.updated_at,
                _discoveries.c.error.is_not(None) & (asked < view.now - retry_ms),
            ),
        )
        .order_by(asked.is_not(None), asked)
        .limit(limit)
    )
    return tuple(Due(row.workspace, row.id, row.asked_at) for row in (await view.execute(query)).all())


async def claim(view: View, found: Due) -> bool:
    """Take the question upon oneself; False where somebody else has, on this machine or another."""
    mine = _discoveries.c.upstream == found.upstream
    unchanged = mine & (
        _discoveries.c.asked_at.is_(None)
        if found.asked_at is None
        else _discoveries.c.asked_at == found.asked_at
    )
    if (await view.execute(update(_discoveries).where(unchanged).values(asked_at=view.now))).rowcount:
        return True
    if (await view.execute(select(exists().where(mine)))).scalar():
        return False
    row = {"upstream": found.upstream, "models": "[]", "asked_at": view.now}
    await view.execute(insert(_discoveries).values(row))
    return True


def differs(
    before: tuple[LearnedModel, ...],
    after: tuple[LearnedModel, ...] | None,
    errors: tuple[str | None, str | None],
) -> bool:
    """Whether views have to be built anew: other models, or a server that began or ceased to fail."""
    return (after is not None and after != before) or bool(errors[0]) != bool(errors[1])


async def note_switch(view: View, upstream: str, learned: LearnedSwitch) -> None:
    """What was seen of one way to tell a model how much to think. Nothing for an upstream that is gone."""
    mine = _discoveries.c.upstream == upstream
    row = (await view.execute(select(_discoveries.c.thinking).where(mine).with_for_update())).first()
    known = () if row is None else decode(row.thinking or "[]", tuple[LearnedSwitch, ...])
    of_one = (learned.model, learned.asked, learned.way)
    before = next((one for one in known if (one.model, one.asked, one.way) == of_one), None)
    if before is not None and learned.verdict == "effective":
        # Another process has seen it fail, or has said the same.
        return
    kept = [*(one for one in known if one is not before), learned][-MOST_LEARNED:]
    if row is not None:
        await view.execute(update(_discoveries).where(mine).values(thinking=encode(kept)))
    elif (await view.execute(select(exists().where(_table.c.id == upstream, _alive)))).scalar():
        values = {"upstream": upstream, "models": "[]", "thinking": encode(kept)}
        await view.execute(insert(_discoveries).values(values))
