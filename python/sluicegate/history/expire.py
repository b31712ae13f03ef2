"""Conversations end when their workspace says so (`retention_days`), else when they are deleted."""

from collections.abc import Mapping

from sluicegate.storage.shelf import Shelf

DAY_MS = 86_400_000
# In one transaction, so that nobody waits long for it.
MOST = 100


async def retentions(shelf: Shelf, configured: Mapping[str, int]) -> dict[str, int]:
    """Days by workspace, of those that say how many. `configured`: as the settings say. Raises 503."""
    # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
    from sluicegate.history import store  # noqa: PLC0415

    return {**await shelf.read(store.retentions), **configured}


async def sweep(shelf: Shelf, now_ms: int, configured: Mapping[str, int]) -> None:
    """Delete what is too old. Raises 503."""
    for workspace, days in (await retentions(shelf, configured)).items():
        before = now_ms - days * DAY_MS
        while await _some(shelf, workspace, before) == MOST:
            pass


async def _some(shelf: Shelf, workspace: str, before: int) -> int:
    from sluicegate.history import store  # noqa: PLC0415

    return await shelf.write(lambda view: store.expire(view, workspace, before, MOST))
