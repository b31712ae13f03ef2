"""Lists in pages: a cursor names the last row that was shown, so pages stay right while rows come and go."""

import base64
import binascii
from typing import Any, Generic, TypeVar

from msgspec import Struct
from sqlalchemy import ColumnElement, Select

from sluicegate.storage.errors import InvalidError

T = TypeVar("T")

LARGEST = 200
DEFAULT = 50
_LONGEST_CURSOR = 400


class Page(Struct, Generic[T], frozen=True):
    """Some items, and the cursor of the next page; None: this is the last one."""

    items: tuple[T, ...]
    next: str | None = None


class PageQuery(Struct, frozen=True):
    """What part of a list is wanted."""

    cursor: str | None = None
    limit: int = DEFAULT
    newest_first: bool = False


FIRST = PageQuery()
NEWEST = PageQuery(newest_first=True)


def paged(query: "Select[Any]", column: "ColumnElement[Any]", page: PageQuery) -> "Select[Any]":
    """The query for one page, ordered by a unique column, with one row more to see whether there is a next
    page.

    Raises InvalidError for a limit or a cursor that cannot be.
    """
    require_limit(page)
    last = last_of(page)
    if last is not None:
        after: str | int = _number(last) if column.type.python_type is int else last
        query = query.where(column < after if page.newest_first else column > after)
    return query.order_by(column.desc() if page.newest_first else column).limit(page.limit + 1)


def require_limit(page: PageQuery) -> None:
    """Raises InvalidError for a limit that cannot be."""
    if not 1 <= page.limit <= LARGEST:
        raise InvalidError("limit", f"expected 1 to {LARGEST}")


def last_of(page: PageQuery) -> str | None:
    """The ordering column of the last row that was shown. Raises InvalidError for what is no cursor."""
    return None if page.cursor is None else _decode(page.cursor)


def page_of(items: list[T], keys: list[Any], page: PageQuery) -> Page[T]:
    """The page of what `paged` found; `keys` are the ordering column's values."""
    if len(items) <= page.limit:
        return Page(tuple(items))
    return Page(tuple(items[: page.limit]), _encode(str(keys[page.limit - 1])))


def _encode(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        if len(cursor) <= _LONGEST_CURSOR:
            padded = cursor + "=" * (-len(cursor) % 4)
            text = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True).decode()
            if text.isprintable():
                return text
    except (UnicodeError, binascii.Error, ValueError):
        pass
    raise InvalidError("cursor", "not a cursor of this list; leave it out for the first page")


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 19:  # noqa: PLR2004 (a 64-bit number)
        return int(text)
    raise InvalidError("cursor", "not a cursor of this list; leave it out for the first page")
