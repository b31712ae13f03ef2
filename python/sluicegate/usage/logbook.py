"""Where the usage records of a gateway are, whatever its database is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from sluicegate.usage.bodies import Body
from sluicegate.usage.model import MOST_SUMS, Facet, Filter, Interval, Packed, Page, Record, Sum

if TYPE_CHECKING:
    from sluicegate.storage.location import Location


class Logbook(Protocol):
    """The records of a gateway. Blocking: call it in a thread. Everything raises UnavailableError."""

    def write(self, records: Packed) -> int:
        """Add records; those that are there stay as they are. Returns how many were new."""

    def page(self, wanted: Filter, *, below: str | None = None, limit: int = 50) -> Page:
        """The newest records below an id. A search that has looked at many stops, with `next` to go on."""

    def one(self, id: str) -> Record | None:
        """One record. Raises ValueError for what is no id."""

    def facets(self, wanted: Filter, dimension: str, most: int = 100) -> list[Facet]:
        """The values of a field with the most requests; whole hours, and only what is exact in the filter."""

    def hours(self, wanted: Filter) -> list[Sum]:
        """Sums by the hour, the oldest first."""

    def sums(
        self,
        wanted: Filter,
        by: Sequence[str] = (),
        interval: Interval | None = None,
        most: int = MOST_SUMS,
    ) -> list[Sum]:
        """Sums by these fields, and by time; whole hours, and only what is exact in the filter.

        Of more than `most` rows the first ones, by time.
        """

    def delete_before(self, at: int) -> int:
        """Delete the days that ended before a time. Returns how many."""

    def delete_of(self, workspace: str, before: int) -> int:
        """Delete what a workspace has from days that ended before a time. Its sums stay. Returns how many."""

    def keep(self, bodies: Iterable[Body]) -> None:
        """Keep requests and answers, apart from their records."""

    def body(self, workspace: str, id: str) -> Body | None:
        """What is kept of one request. Raises ValueError for what is no id."""

    def delete_bodies(self, before: Mapping[str, int]) -> int:
        """Delete what ended before a workspace's time; all of one without. How many files, or rows."""

    def close(self) -> None:
        """Let go of what is open."""


def open_logbook(location: "Location") -> Logbook:
    """On PostgreSQL the records of all machines are together; else they are files of this one."""
    if location.database_url is not None:
        # Here, not at the top: who has no PostgreSQL must not wait for its driver.
        from sluicegate.usage.partition_store import Partitions  # noqa: PLC0415

        return Partitions(location.database_url)
    from sluicegate.usage.day_files import DayFiles  # noqa: PLC0415

    return DayFiles(location.usage_dir)
