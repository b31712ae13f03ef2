"""The requests that have ended since the last look: a record comes when its request ends, in no order."""

import msgspec

from sluicegate.usage.logbook import Logbook
from sluicegate.usage.model import Filter, Record, id_bytes, time_of

EVERY_SECONDS = 1.0
# How far back each look goes, and each tenth: most requests end within seconds, and a look must stay cheap
# while a thousand come each second.
_NEAR_MS = 10_000
_FAR_MS = 120_000
# What takes longer than that is looked for by its duration, as far back as a request may last.
_LONG_MS = 100_000
_LONGEST_MS = 2_000_000
_DEEP_EVERY = 10
_PAGE = 500
_MOST_PAGES = 40


class Tail:
    """What is new in the log. Blocking, and raises UnavailableError, after which it may be asked again."""

    def __init__(self, logbook: Logbook, wanted: Filter, now_ms: int) -> None:
        """Begins now."""
        self._logbook = logbook
        self._wanted = wanted
        # Requests that had ended before the first look are not news.
        self._seen: set[str] = set()
        self._looks = 0
        self._take(now_ms, deep=True)

    def news(self, now_ms: int) -> list[Record]:
        """The oldest first."""
        self._looks += 1
        return self._take(now_ms, deep=self._looks % _DEEP_EVERY == 0)

    def _take(self, now_ms: int, *, deep: bool) -> list[Record]:
        found = self._read(self._since(now_ms - (_FAR_MS if deep else _NEAR_MS)))
        if deep:
            least = max(_LONG_MS * 1000, self._wanted.least_us or 0)
            since = self._since(now_ms - _LONGEST_MS)
            found += self._read(msgspec.structs.replace(since, least_us=least))
        news = {record.id: record for record in found if record.id not in self._seen}
        self._seen |= news.keys()
        if deep:
            old = now_ms - _LONGEST_MS - _FAR_MS
            self._seen = {id for id in self._seen if time_of(id_bytes(id)) >= old}
        return [news[id] for id in sorted(news)]

    def _since(self, at: int) -> Filter:
        return msgspec.structs.replace(self._wanted, since=max(at, self._wanted.since or 0))

    def _read(self, wanted: Filter) -> list[Record]:
        found: list[Record] = []
        below = None
        for _ in range(_MOST_PAGES):
            page = self._logbook.page(wanted, below=below, limit=_PAGE)
            found += page.records
            below = page.next
            if below is None:
                break
        return found
