"""The first administrator: a token that is printed at the first start, and the key that it becomes, once."""

from sluicegate.members import store
from sluicegate.storage.database import Database
from sluicegate.storage.transaction import SYSTEM


async def offer(database: Database, base_url: str) -> str | None:
    """What `serve` prints while nobody may manage the platform; None: somebody may.

    Call it once at the start, in the main process: a second call ends the token of the first. `base_url` is
    where the gateway listens, such as `http://127.0.0.1:8080`.
    """
    async with database.read() as view:
        if await store.has_admin(view):
            return None
    async with database.change(SYSTEM) as change:
        # Two processes that start at once: the one that comes second finds an administrator or makes its own.
        if await store.has_admin(change):
            return None
        token = await store.make_bootstrap_token(change)
    minutes = store.BOOTSTRAP_MINUTES
    return (
        "There is no administrator yet. For the first admin key, on this machine and within "
        f"{minutes} minutes:\n"
        f"  curl -X POST {base_url}/api/v1/bootstrap -H 'Content-Type: application/json' "
        f'-d \'{{"token": "{token}"}}\''
    )
