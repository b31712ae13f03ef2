"""What a server said of itself, kept: as a change where it is news, else as an observation."""

from sluicegate.storage.database import Database
from sluicegate.storage.transaction import Actor
from sluicegate.upstreams import store
from sluicegate.upstreams.ask import Answer
from sluicegate.upstreams.discovery_store import differs
from sluicegate.upstreams.record import Discovered


async def keep(
    database: Database, actor: Actor, whose: tuple[str, str], before: Discovered, answer: Answer
) -> None:
    """Write the answer of an upstream; `whose`: its workspace and its id."""
    workspace, upstream = whose
    if differs(before.models, answer.models, (before.error, answer.error)):
        # No configuration, so no audit; but what workers have in memory is out of date.
        async with database.change(actor) as change:
            await store.note_discovered(change, upstream, answer.models, answer.error)
            change.touch(workspace)
        return
    async with database.note() as view:
        await store.note_discovered(view, upstream, answer.models, answer.error)
