"""The database as the requests of clients see it: there, not configured, or not answering."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sluicegate import errors
from sluicegate.storage.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from sluicegate.storage.database import Database
    from sluicegate.storage.group import GroupWriter
    from sluicegate.storage.transaction import View

T = TypeVar("T")


class Shelf:
    """Where responses, conversations and stored chats are kept. Imports no SQL: it may stay empty."""

    def __init__(self, *, configured: bool) -> None:
        self.configured = configured
        self._database: Database | None = None
        self._writer: GroupWriter | None = None

    def open(self, database: "Database", writer: "GroupWriter") -> None:
        """The database has answered."""
        self._database, self._writer = database, writer

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writer is not None:
            await self._writer.close()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """An endpoint that cannot do without it. Raises 400 where there is none, 404 for what is not kept."""
        if not self.configured:
            raise not_configured(None)
        try:
            yield
        except NotFoundError as error:
            raise errors.not_kept(error.kind, error.ref) from None

    async def read(self, query: "Callable[[View], Awaitable[T]]") -> T:
        """Run some queries. Raises 503, and what `query` raises."""
        if self._database is None:
            raise unavailable()
        try:
            async with self._database.read() as view:
                return await query(view)
        except UnavailableError:
            raise unavailable() from None

    async def write(self, step: "Callable[[View], Awaitable[T]]") -> T:
        """Run `step` in a transaction that others may share, and wait until it is committed.

        Raises 503, and what `step` raises.
        """
        if self._writer is None:
            raise unavailable()
        try:
            return await self._writer.write(step)
        except UnavailableError:
            raise unavailable() from None


def unavailable() -> errors.GatewayError:
    """What is kept cannot be read or written now."""
    return errors.unavailable(
        "storage_unavailable",
        "The gateway's database does not answer: nothing stored can be read or written. Try again shortly.",
    )


def not_configured(param: str | None) -> errors.GatewayError:
    """A request that needs a database where there is none."""
    what = "This endpoint" if param is None else f"'{param}'"
    return errors.bad_request(
        "storage_not_configured",
        f"{what} needs the gateway's database, and this gateway has none. "
        + ("Send the whole conversation in 'input' and leave it out" if param else "Have one configured")
        + ", or start the gateway with --data-dir or SLUICEGATE_DATABASE_URL.",
        param,
    )
