"""How a command works on the database: opened for it, its failures in one line, its changes signed."""

import getpass
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from sluicegate.storage.database import Database
    from sluicegate.storage.location import Location
    from sluicegate.storage.transaction import Actor, Change, View

T = TypeVar("T")
# Where `serve` would use no database. To make one turns `serve` into a gateway that uses it, which whoever
# only looks must not do. `pretend`: an empty one, for this time.
Missing = Literal["refuse", "make", "pretend"]


def opened(work: "Callable[[Database], Awaitable[T]]", *, missing: Missing = "refuse") -> T:
    """Run `work` on the database that `serve` uses; `missing`: what happens where that is none."""
    import asyncio  # noqa: PLC0415 (`--help` stays quick)

    from sluicegate.storage.errors import StorageError  # noqa: PLC0415

    async def run(location: "Location") -> T:
        from sluicegate.storage.database import Database  # noqa: PLC0415

        database = await Database.open(location)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        with _location(missing) as location:
            return asyncio.run(run(location))
    except StorageError as error:
        refuse(str(error))


@contextmanager
def _location(missing: Missing) -> "Iterator[Location]":
    from tempfile import TemporaryDirectory  # noqa: PLC0415

    from sluicegate.storage.location import Location, from_environment, in_use  # noqa: PLC0415

    found = in_use()
    if found is None and missing == "pretend":
        with TemporaryDirectory(prefix="sluicegate-") as folder:
            yield Location(data_dir=Path(folder))
        return
    location = found or from_environment()
    if found is None and missing == "refuse":
        refuse(
            f"there is no database in {location.data_dir}. Set SLUICEGATE_DATA_DIR or "
            "SLUICEGATE_DATABASE_URL to where it is; `sluicegate workspaces create ID` makes a new one"
        )
    yield location


def reading(work: "Callable[[View], Awaitable[T]]") -> T:
    """Run `work` on a view."""

    async def read(database: "Database") -> T:
        async with database.read() as view:
            return await work(view)

    return opened(read)


def changing(work: "Callable[[Change], Awaitable[T]]", *, begins: bool = False) -> T:
    """Run `work` in a change: all of it, or nothing. `begins`: one that may make the database."""

    async def change(database: "Database") -> T:
        async with database.change(actor()) as opened_change:
            return await work(opened_change)

    return opened(change, missing="make" if begins else "refuse")


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
