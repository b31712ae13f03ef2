"""How a command works on the database: opened for it, its failures in one line, its changes signed."""

import getpass
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from sluicegate.storage.database import Database
    from sluicegate.storage.transaction import Actor, Change, View

T = TypeVar("T")


def opened(work: "Callable[[Database], Awaitable[T]]") -> T:
    """Run `work` on the database of `SLUICEGATE_DATA_DIR` or `SLUICEGATE_DATABASE_URL`."""
    import asyncio  # noqa: PLC0415 (`--help` stays quick)

    from sluicegate.storage.errors import StorageError  # noqa: PLC0415
    from sluicegate.storage.location import from_environment  # noqa: PLC0415

    async def run() -> T:
        from sluicegate.storage.database import Database  # noqa: PLC0415

        database = await Database.open(from_environment())
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except StorageError as error:
        refuse(str(error))


def reading(work: "Callable[[View], Awaitable[T]]") -> T:
    """Run `work` on a view."""

    async def read(database: "Database") -> T:
        async with database.read() as view:
            return await work(view)

    return opened(read)


def changing(work: "Callable[[Change], Awaitable[T]]") -> T:
    """Run `work` in a change: all of it, or nothing."""

    async def change(database: "Database") -> T:
        async with database.change(actor()) as opened_change:
            return await work(opened_change)

    return opened(change)


def actor() -> "Actor":
    """Who the audit log names: the user of this machine."""
    from sluicegate.storage.transaction import Actor  # noqa: PLC0415

    try:
        return Actor(f"cli:{getpass.getuser()}")
    except (KeyError, OSError):
        # A user id without a name, as in many containers.
        return Actor("cli")


def refuse_all(lines: tuple[str, ...]) -> NoReturn:
    """Several errors, one a line."""
    import typer  # noqa: PLC0415

    for line in lines[:-1]:
        typer.echo(f"sluicegate: {line}", err=True)
    refuse(lines[-1])
