"""`sluicegate migrate`: make the database's schema, or bring it up to date."""

from typing import TYPE_CHECKING, Annotated

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from sluicegate.storage.location import Location

# Of `--check`: there is something to do.
OUTDATED = 1


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit status 1 if there is something to do.")
    ] = False,
) -> None:
    """Bring the database's schema up to date. On SQLite, `serve` does so itself."""
    import asyncio  # noqa: PLC0415 (`--help` stays quick)

    from sluicegate.storage.errors import StorageError  # noqa: PLC0415
    from sluicegate.storage.location import from_environment  # noqa: PLC0415

    try:
        location = from_environment()
        before = asyncio.run(_version(location))
        if check:
            _tell_check(before)
        elif asyncio.run(_migrate(location)) == before:
            typer.echo(f"Nothing to do: the database has schema {before}.")
        else:
            typer.echo(f"The database has schema {_head()} now ({before or 'nothing'} before).")
    except StorageError as error:
        refuse(str(error))


def _tell_check(found: str | None) -> None:
    if found == _head():
        typer.echo(f"Nothing to do: the database has schema {found}.")
        return
    typer.echo(
        "The database is empty." if found is None else f"The database has schema {found}, not {_head()}."
    )
    raise typer.Exit(OUTDATED)


def _head() -> str:
    from sluicegate.storage.schema import HEAD  # noqa: PLC0415

    return HEAD


async def _version(location: "Location") -> str | None:
    """The schema that is there, without making anything."""
    from sluicegate.storage import database  # noqa: PLC0415

    if not location.is_postgresql and not location.sqlite_file.exists():
        return None
    return await database.schema_version(location)


async def _migrate(location: "Location") -> str:
    """Make it the newest, and give its version."""
    from sluicegate.storage import database  # noqa: PLC0415

    location.make_data_dir()
    engine = database.make_engine(location)
    try:
        await database.prepare(engine, location, may_migrate=True)
    finally:
        await engine.dispose()
    return _head()
