"""The version of the schema: found, compared, and brought up to date."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy import Connection, inspect, text

from sluicegate.storage import schema
from sluicegate.storage.errors import SchemaError, SchemaTooNewError, SchemaTooOldError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# Any number that nothing else locks: "slui".
_ADVISORY = 0x736C7569

MIGRATIONS = Path(__file__).parent / "migrations"


async def version_of(connection: "AsyncConnection") -> str | None:
    """The schema's version, such as `0001`; None for an empty database.

    Raises SchemaError for a database that has tables, but not ours.
    """
    tables = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
    if "alembic_version" not in tables:
        if tables & set(schema.metadata.tables):
            raise SchemaError(
                "The database has tables with the names of Sluicegate's, but no version of a schema. "
                "Give the gateway a database of its own."
            )
        return None
    found: str | None = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    return found


async def has_keys(connection: "AsyncConnection") -> bool:
    """Whether the gateway's own keys were made."""
    tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    if schema.platform_keys.name not in tables:
        return False
    return bool((await connection.execute(text("SELECT count(*) FROM platform_keys"))).scalar())


def refuse_newer(found: str | None) -> None:
    """Versions are numbers: a higher one was written by a newer program. Raises SchemaTooNewError."""
    if found is not None and found > schema.HEAD:
        raise SchemaTooNewError(
            f"The database has schema {found}, written by a newer Sluicegate; this one knows up to "
            f"{schema.HEAD}. Nothing was changed. "
            "Install the newer version, or restore a backup from before the migration."
        )


def refuse_older(found: str | None) -> NoReturn:
    """Raises SchemaTooOldError."""
    what = "is empty" if found is None else f"has schema {found}; this program needs {schema.HEAD}"
    raise SchemaTooOldError(f"The database {what}. Run `sluicegate migrate`, with a backup at hand.")


async def lock(connection: "AsyncConnection") -> None:
    """One migration at a time, to the end of the transaction; SQLite's write lock does that by itself."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY})


async def upgrade(connection: "AsyncConnection", target: str = schema.HEAD) -> None:
    """Run what is missing up to `target`, in the caller's transaction: all or nothing, on both databases."""
    if await version_of(connection) != target:
        await connection.run_sync(_run, target)


def _run(connection: Connection, target: str) -> None:
    # Imported late: it takes 100 ms, and only a first start or a new version needs it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, target)
