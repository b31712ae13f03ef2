"""Feedback in the database: one row for each answer and key."""

from sqlalchemy import and_, delete, insert, select, update

from sluicegate.http.door import Owner
from sluicegate.quality.feedback import Feedback, Labelled
from sluicegate.storage import kept_schema
from sluicegate.storage.transaction import View

# So many answers, the newest, tell how reliable scores are.
MOST = 5_000

_table = kept_schema.quality_feedback


async def save(view: View, owner: Owner, said: Feedback) -> bool:
    """Keep it in place of what the same key has said of the same answer before; true: it had."""
    mine = and_(
        _table.c.workspace == owner.workspace, _table.c.request == said.request, _table.c.owner == owner.key
    )
    values = {"score": said.score, "correction": said.correction, "at": view.now}
    # What is known of the answer stays known.
    values |= {
        name: value
        for name, value in (("answer_score", said.answer_score), ("assistant", said.assistant))
        if value is not None
    }
    if (await view.execute(update(_table).where(mine).values(values))).rowcount:
        return True
    identity = {"workspace": owner.workspace, "request": said.request, "owner": owner.key}
    await view.execute(insert(_table).values(**identity, **values))
    return False


async def of_request(view: View, workspace: str, request: str) -> tuple[Feedback, ...]:
    """All that was said of one answer, the oldest first."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.request == request)
    rows = (await view.execute(query.order_by(_table.c.at))).all()
    return tuple(
        Feedback(
            request=row.request,
            key=row.owner,
            score=row.score,
            correction=row.correction,
            at=row.at,
            answer_score=row.answer_score,
            assistant=row.assistant,
        )
        for row in rows
    )


async def labelled(view: View, workspace: str, assistant: str) -> list[Labelled]:
    """Answers of an assistant that have a score, with what was said of them; the newest."""
    query = select(_table.c.answer_score, _table.c.score).where(
        _table.c.workspace == workspace,
        _table.c.assistant == assistant,
        _table.c.answer_score.is_not(None),
    )
    rows = (await view.execute(query.order_by(_table.c.at.desc()).limit(MOST))).all()
    return [Labelled(row.answer_score, row.score) for row in rows]


async def expire(view: View, before: int, most: int) -> int:
    """Delete what was said before then (milliseconds since 1970), at most so much; how much it was."""
    old = select(_table.c.workspace, _table.c.request, _table.c.owner).where(_table.c.at < before).limit(most)
    rows = (await view.execute(old)).all()
    for row in rows:
        await view.execute(
            delete(_table).where(
                _table.c.workspace == row.workspace,
                _table.c.request == row.request,
                _table.c.owner == row.owner,
            )
        )
    return len(rows)
