"""What a route of the management API declares: everything that the checks, the call and the document need."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from sluicegate.engine import Engine, Upstream
from sluicegate.http.body import BodyReader
from sluicegate.http.guard import Caller, Permission
from sluicegate.ids import PLATFORM
from sluicegate.keys.cache import KeyReader
from sluicegate.management.cursor import Cursors
from sluicegate.storage.database import Database
from sluicegate.storage.page import DEFAULT, LARGEST, Page, PageQuery
from sluicegate.storage.transaction import Change, View
from sluicegate.telemetry.logs import Log
from sluicegate.usage.logbook import Logbook

T = TypeVar("T")

# «read» has a view, «change» a transaction that is committed before the answer; «open» opens its own.
Mode = Literal["read", "change", "open"]
Method = Literal["GET", "POST", "PATCH", "PUT", "DELETE"]
CREATED = 201
# Texts to search for: no control characters, which no database has and one of them refuses.
Filter = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")]


class Parts(Struct, frozen=True):
    """What the operations work with; `app.py` makes it."""

    database: Database
    keys: KeyReader
    engine: Engine
    # The handle of an upstream; `upstreams.ask.Open`.
    open_handle: Callable[..., Upstream]
    log: Log
    bodies: BodyReader
    logbook: Logbook
    # The operator's: private ranges that upstreams of tenants may be in.
    allow_private_networks: tuple[str, ...] = ()


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


Limit = Annotated[int, Meta(ge=1, le=LARGEST, description="Entries of a page.")]
# Not None: a text «null» would be read as that.
Cursor = (
    Annotated[str, Meta(max_length=600, description="`next` of the page before; leave it out for the first.")]
    | UnsetType
)


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of every list."""

    limit: Limit = DEFAULT
    cursor: Cursor = UNSET


class NamedQuery(ListQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of a list with names."""

    name: Annotated[Filter, Meta(description="A part of the name, without case.")] = ""


class Answer(Struct, frozen=True):
    """What an operation gives. `version` becomes the ETag, `location` a path below /api/v1."""

    value: Any = None
    version: int | None = None
    location: str | None = None
    # Instead of a value: pieces of a file of this kind.
    stream: AsyncIterator[bytes] | None = None
    media: str = ""


class Call:
    """One call, after all checks: who, about what, and the way to the database."""

    def __init__(
        self, parts: Parts, caller: Caller | None, path: Mapping[str, str], *, is_local: bool, request_id: str
    ) -> None:
        self.parts = parts
        self.path = path
        # Whether the peer is the gateway's own machine.
        self.is_local = is_local
        self.request_id = request_id
        self.query: Any = None
        self.body: Any = None
        self.expected: int | None = None
        self._caller = caller
        self._view: View | None = None

    @property
    def caller(self) -> Caller:
        """Who is calling; a public operation has nobody."""
        if self._caller is None:
            raise RuntimeError("a public operation has no caller")
        return self._caller

    @property
    def workspace(self) -> str:
        """The workspace of the path, else the platform's own."""
        return self.path.get("workspace", PLATFORM)

    @property
    def view(self) -> View:
        """The view of a «read», or the change of a «change»."""
        if self._view is None:
            raise RuntimeError("this operation opens its own views")
        return self._view

    @property
    def change(self) -> Change:
        """The change of a «change»."""
        if not isinstance(self._view, Change):
            raise TypeError("this operation does not change anything")
        return self._view

    def opened(self, view: View) -> "Call":
        """The same call, with this view."""
        self._view = view
        return self

    def page(self, *, newest_first: bool = False) -> PageQuery:
        """The part of the list that is wanted. Raises InvalidError for a cursor of another list."""
        query: ListQuery = self.query
        cursor = None
        if query.cursor is not UNSET:
            cursor = Cursors(self.parts.database.keyring).open(self._list, query.cursor)
        return PageQuery(cursor=cursor, limit=query.limit, newest_first=newest_first)

    def listed(self, page: Page[T]) -> Answer:
        """The answer with a page, whose cursor works in this list only."""
        if page.next is None:
            return Answer(page)
        return Answer(Page(page.items, Cursors(self.parts.database.keyring).seal(self._list, page.next)))

    @property
    def _list(self) -> str:
        """What a cursor is bound to: the operation's template and all ids of its path."""
        return "/".join(f"{name}={value}" for name, value in self.path.items()) + f"#{self.template}"

    template = ""


Run = Callable[[Call], Awaitable[Answer]]


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path below /api/v1. Without a `permission` it is for everybody."""

    method: Method
    path: str
    # Its name in the document and in generated clients.
    id: str
    summary: str
    permission: Permission | None
    run: Run
    answer: type | None = None
    # What kinds of file it gives, instead of JSON.
    media: tuple[str, ...] = ()
    status: int = 200
    body: Any = None
    query: type[Struct] = NoQuery
    mode: Mode = "read"
    # Takes an Idempotency-Key.
    creates: bool = False
    # Takes If-Match, and gives an ETag.
    versioned: bool = False
    # What exists can stand against it (409).
    conflicts: bool = False

    @property
    def tag(self) -> str:
        """The group in the document."""
        return self.id.partition(".")[0]

    @property
    def takes_if_match(self) -> bool:
        """Whether it changes something that has a version already."""
        return self.versioned and self.method != "GET" and self.status != CREATED

    @property
    def is_scoped(self) -> bool:
        """Whether it is about one workspace, which its path names."""
        return "{workspace}" in self.path
