"""The database: opened, checked and migrated, read in views and changed in transactions."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from sqlalchemy import event, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sluicegate.clock import wall_ns
from sluicegate.engine import SharedTable
from sluicegate.storage import migrate, schema
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.faults import translated
from sluicegate.storage.keyring import Keyring
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import Actor, Change, View
from sluicegate.storage.vault import make_master_key, read_master_key

# How long one waits for another's transaction; they take milliseconds.
LOCK_SECONDS = 5
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
# For a connection of one's own. A machine that stands still for some seconds must not turn its queue away:
# what hangs in the database itself ends by the clocks above.
QUEUE_SECONDS = 15
_CONNECTIONS = 4
# What a busy machine may add for a moment.
_MORE_CONNECTIONS = 4

CHANNEL = "sluicegate"


class Database:
    """One process's way to the database.

    Open it in the process that uses it: connections do not survive a fork.
    """

    def __init__(
        self, location: Location, engine: AsyncEngine, keyring: Keyring, shared: SharedTable
    ) -> None:
        self.location = location
        self.engine = engine
        self.keyring = keyring
        self.shared = shared

    @classmethod
    async def open(cls, location: Location) -> Self:
        """Open, and on SQLite make and migrate; on PostgreSQL `sluicegate migrate` has done so before.

        Raises SchemaTooNewError, SchemaTooOldError, SecretsError (before anything is written),
        UnavailableError.
        """
        location.make_data_dir()
        engine = make_engine(location)
        try:
            keyring = await prepare(engine, location, may_migrate=not location.is_postgresql)
            return cls(location, engine, keyring, open_shared(location))
        except BaseException:
            await engine.dispose()
            raise

    @asynccontextmanager
    async def read(self) -> AsyncIterator[View]:
        """A view for a few queries. Raises UnavailableError."""
        with translated():
            async with self.engine.connect() as connection:
                yield View(connection, self.keyring, now_ms())

    @asynccontextmanager
    async def note(self) -> AsyncIterator[View]:
        """A transaction for observations (last used, discovered): no configuration, so no generation, no
        audit.
        """
        with translated():
            async with self._immediate() as connection, connection.begin():
                yield View(connection, self.keyring, now_ms())

    @asynccontextmanager
    async def change(self, actor: Actor) -> AsyncIterator[Change]:
        """A transaction that changes configuration, committed at the end of the block; an error undoes all
        of it.

        Changes come one after the other, on PostgreSQL too: the generation's row is locked first. When the
        block has ended, every process of this machine knows that something changed.
        """
        committing = False
        try:
            with translated():
                async with self._immediate() as connection, connection.begin():
                    table = schema.generation
                    row = select(table.c.value).where(table.c.id == 1).with_for_update()
                    before: int = (await connection.execute(row)).scalar_one()
                    change = Change(connection, self.keyring, now_ms(), actor=actor, generation=before + 1)
                    yield change
                    await self._finish(change)
                    committing = True
        except BaseException:
            # A data key that was made is gone again.
            self.keyring.forget()
            if committing:
                # Nobody knows whether the commit arrived: rather one look too many.
                self.shared.advance()
            raise
        self.shared.note(change.generation)

    async def row_generation(self) -> int:
        """The number of committed changes, as the database has it. Raises UnavailableError."""
        async with self.read() as view:
            found: int = (await view.execute(select(schema.generation.c.value))).scalar_one()
            return found

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    def reopen_shared(self) -> None:
        """Map the shared file anew, where somebody has removed or replaced it."""
        self.shared = open_shared(self.location)

    async def _finish(self, change: Change) -> None:
        for step in change.last_steps:
            await step(change)
        connection = change.connection
        await connection.execute(update(schema.generation).values(value=change.generation))
        table = schema.workspaces
        for workspace in sorted(change.touched):
            stamp = update(table).where(table.c.id == workspace).values(generation=change.generation)
            await connection.execute(stamp)
        if self.location.is_postgresql:
            await connection.execute(
                text("SELECT pg_notify(:channel, :payload)"),
                {"channel": CHANNEL, "payload": str(change.generation)},
            )

    @asynccontextmanager
    async def _immediate(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose transaction writes: SQLite takes its lock at the beginning."""
        async with self.engine.connect() as connection:
            yield await connection.execution_options(immediate=True)


def make_engine(location: Location) -> AsyncEngine:
    """The pool of connections; opens none yet. Parameters never show in an exception."""
    common: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": _CONNECTIONS,
        "pool_timeout": QUEUE_SECONDS,
    }
    common["max_overflow"] = _MORE_CONNECTIONS
    if location.database_url is None:
        _make_private(location)
        engine = create_async_engine(f"sqlite+aiosqlite:///{location.sqlite_file}", **common)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    try:
        url = make_url(location.database_url.reveal()).set(drivername="postgresql+psycopg")
    except Exception:  # noqa: BLE001 (the text may hold the password)
        raise UnavailableError("SLUICEGATE_DATABASE_URL cannot be read as a URL.") from None
    options = f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s"
    connect = {"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": "sluicegate"}
    given = url.query.get("options")
    if isinstance(given, str):
        connect["options"] = f"{options} {given}"
    return create_async_engine(url, connect_args=connect, pool_pre_ping=True, **common)


async def schema_version(location: Location) -> str | None:
    """The schema of a database that is there; None for an empty one.

    Raises SchemaTooNewError, SchemaError, UnavailableError.
    """
    engine = make_engine(location)
    try:
        with translated():
            async with engine.connect() as connection:
                found = await migrate.version_of(connection)
    finally:
        await engine.dispose()
    migrate.refuse_newer(found)
    return found


async def prepare(engine: AsyncEngine, location: Location, *, may_migrate: bool) -> Keyring:
    """Check the schema and the master key, migrate where that is allowed, and give the keys."""
    with translated():
        async with engine.connect() as connection:
            found = await migrate.version_of(connection)
            migrate.refuse_newer(found)
            keyring = await _existing_keys(connection, location, found)
    if found == schema.HEAD and keyring is not None:
        return keyring
    if found != schema.HEAD and not may_migrate:
        migrate.refuse_older(found)
    with translated():
        async with engine.connect() as plain:
            connection = await plain.execution_options(immediate=True)
            async with connection.begin():
                await migrate.lock(connection)
                await migrate.upgrade(connection)
                # Another process may have made them while this one waited.
                keyring = await _existing_keys(connection, location, schema.HEAD)
                if keyring is None:
                    keyring = Keyring(read_master_key(location) or make_master_key(location))
                    await keyring.create(connection)
    return keyring


async def _existing_keys(
    connection: AsyncConnection, location: Location, found: str | None
) -> Keyring | None:
    """The keys of a database that has some. A wrong master key is refused before a byte is written."""
    if found is None or not await migrate.has_keys(connection):
        return None
    master = read_master_key(location)
    # With none at all, one that cannot be right gives the message.
    keyring = Keyring(master or bytes(32))
    await keyring.load(connection)
    return keyring


def open_shared(location: Location) -> SharedTable:
    """The mapped file of this machine. Raises UnavailableError."""
    try:
        return SharedTable(location.shared_file)
    except OSError as error:
        raise UnavailableError(
            f"The shared file {location.shared_file} cannot be opened: {error.strerror or 'not usable'}. "
            "Stop the gateway, remove the file and start again."
        ) from None


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return wall_ns() // 1_000_000


def _make_private(location: Location) -> None:
    """The file with mode 0600 before SQLite makes it with another; its -wal and -shm take the same."""
    with suppress(FileExistsError):
        try:
            os.close(os.open(location.sqlite_file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise
        except OSError as error:
            raise UnavailableError(
                f"The database {location.sqlite_file} cannot be made: {error.strerror}."
            ) from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Transactions begin where SQLAlchemy says so, and not before the first write.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        # What is acknowledged is on the disk: with NORMAL a power cut may take the last transactions back.
        "synchronous = FULL",
        f"busy_timeout = {LOCK_SECONDS * 1000}",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
