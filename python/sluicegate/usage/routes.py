"""/api/v1/requests and /usage, of all workspaces and of one: the log of requests, and what was used."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from sluicegate.http.guard import Permission
from sluicegate.management.operation import Answer, Call, Cursor, Limit, Operation
from sluicegate.management.operation import Filter as Text
from sluicegate.quality import store as feedback
from sluicegate.storage.errors import InvalidError, NotFoundError
from sluicegate.storage.page import DEFAULT, Page
from sluicegate.usage.export import MEDIA, Format, exported
from sluicegate.usage.model import DIMENSIONS, Facet, Filter, Interval, Sum
from sluicegate.usage.shown import (
    FeedbackLine,
    RequestDetail,
    RequestLine,
    UsageRow,
    detail_of,
    line_of,
    row_of,
)

Time = Annotated[int, Meta(ge=0, le=9_000_000_000_000)]
Millis = Annotated[float, Meta(ge=0, le=1_000_000_000)]
_EXACTLY = "Only those with exactly this."
# Of one answer: a chart of a month by the hour and four models fits.
MOST_ROWS = 5000
_MOST_VALUES = 100
_MOST_EXPORTED = 1_000_000


class Narrowed(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which requests: what the hourly sums know."""

    since: Annotated[Time, Meta(description="From then on; milliseconds since 1970.")] | UnsetType = UNSET
    until: Annotated[Time, Meta(description="Before then.")] | UnsetType = UNSET
    workspace: Annotated[Text, Meta(description="Where the path names none.")] | UnsetType = UNSET
    key: Annotated[Text, Meta(description="Only of the key with this id.")] | UnsetType = UNSET
    assistant: Annotated[Text, Meta(description="Only of the one with this id.")] | UnsetType = UNSET
    model: Annotated[Text, Meta(description=_EXACTLY)] | UnsetType = UNSET
    upstream: Annotated[Text, Meta(description="Only of the one with this name.")] | UnsetType = UNSET
    status: Annotated[int, Meta(ge=100, le=599, description=_EXACTLY)] | UnsetType = UNSET
    code: Annotated[Text, Meta(description="Only those with this error code.")] | UnsetType = UNSET
    failed: Annotated[bool, Meta(description="Only those that failed.")] = False


class Searched(Narrowed, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which requests, by what only the records know as well."""

    min_ms: Annotated[Millis, Meta(description="Only those that took so long.")] | UnsetType = UNSET
    max_ms: Annotated[Millis, Meta(description="Only those that took no longer.")] | UnsetType = UNSET
    text: Annotated[Text, Meta(description="A part of the error's text, without case.")] | UnsetType = UNSET
    conversation: Annotated[Text, Meta(description=_EXACTLY)] | UnsetType = UNSET


class RequestQuery(Searched, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of the log."""

    limit: Limit = DEFAULT
    cursor: Cursor = UNSET


class ExportQuery(Searched, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of the log."""

    format: Annotated[Format, Meta(description="What kind of file.")] = "csv"
    limit: Annotated[int, Meta(ge=1, le=_MOST_EXPORTED, description="So many at most.")] = 100_000


class FacetQuery(Narrowed, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Values of fields."""

    fields: Annotated[Text, Meta(description="Some of them, with commas; all if left out.")] | UnsetType = (
        UNSET
    )


class UsageQuery(Narrowed, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sums."""

    by: Annotated[Text, Meta(description="What to sum by: fields, with commas.")] | UnsetType = UNSET
    interval: Annotated[Interval, Meta(description="Sums of each hour or day (UTC).")] | UnsetType = UNSET


class KeptBody(Struct, frozen=True, kw_only=True):
    """What a client sent and what it got, as texts; of a stream the whole answer as one object."""

    request: str
    answer: Annotated[str, Meta(description="Empty where it was not whole.")]
    cut: Annotated[bool, Meta(description="Whether one of them was longer than what is kept.")]


class Facets(Struct, frozen=True):
    """How many requests have which value, the most frequent first; whole hours."""

    facets: dict[str, tuple[Facet, ...]]


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """Sums by what was asked for, the oldest first; whole hours."""

    items: tuple[UsageRow, ...]
    total: UsageRow
    # Whether there were more, which are in `total` only.
    cut: bool


def filter_of(call: Call) -> Filter:
    """What the query asks for, of the workspace that the path names."""
    query: Narrowed = call.query
    values = {
        name: value
        for name in Filter.__struct_fields__
        if (value := getattr(query, name, UNSET)) is not UNSET
    }
    if "workspace" in call.path:
        if query.workspace not in (UNSET, call.workspace):
            raise InvalidError("workspace", "the path names another one; leave it out")
        values["workspace"] = call.workspace
    for name, field in (("min_ms", "least_us"), ("max_ms", "most_us")):
        found = getattr(query, name, UNSET)
        if found is not UNSET:
            values[field] = int(found * 1000)
    return Filter(**values)


async def _list(call: Call) -> Answer:
    page = call.page(newest_first=True)
    logbook = call.parts.logbook
    found = await asyncio.to_thread(logbook.page, filter_of(call), below=page.cursor, limit=page.limit)
    return call.listed(Page(tuple(map(line_of, found.records)), found.next))


async def _get(call: Call) -> Answer:
    try:
        found = await asyncio.to_thread(call.parts.logbook.one, call.path["request"])
    except ValueError:
        found = None
    if found is None or ("workspace" in call.path and found.workspace != call.workspace):
        raise NotFoundError("request")
    said = await feedback.of_request(call.view, found.workspace, found.id)
    lines = tuple(FeedbackLine(key=one.key, score=one.score, at=one.at) for one in said)
    return Answer(detail_of(found, lines))


async def _body(call: Call) -> Answer:
    try:
        found = await asyncio.to_thread(call.parts.logbook.body, call.workspace, call.path["request"])
    except ValueError:
        found = None
    if found is None:
        raise NotFoundError("request with a kept body")
    request, answer = found.request.decode("utf-8", "replace"), found.answer.decode("utf-8", "replace")
    return Answer(KeptBody(request=request, answer=answer, cut=found.cut))


async def _facets(call: Call) -> Answer:
    known = [name for name in DIMENSIONS if name != "workspace" or "workspace" not in call.path]
    fields = _named(call.query.fields, known, "fields") or known
    wanted, logbook = filter_of(call), call.parts.logbook
    found = {
        name: tuple(await asyncio.to_thread(logbook.facets, wanted, name, _MOST_VALUES)) for name in fields
    }
    return Answer(Facets(found))


async def _usage(call: Call) -> Answer:
    query: UsageQuery = call.query
    by = tuple(_named(query.by, DIMENSIONS, "by"))
    interval = None if query.interval is UNSET else query.interval
    wanted, logbook = filter_of(call), call.parts.logbook
    found = await asyncio.to_thread(logbook.sums, wanted, by, interval, MOST_ROWS + 1)
    # By itself: there may be more rows than are given.
    total = await asyncio.to_thread(logbook.sums, wanted)
    items = tuple(row_of(one, by) for one in found[:MOST_ROWS])
    whole = row_of(total[0] if total else Sum())
    return Answer(UsageAnswer(items=items, total=whole, cut=len(found) > MOST_ROWS))


async def _export(call: Call) -> Answer:
    query: ExportQuery = call.query
    pieces = exported(call.parts.logbook, filter_of(call), query.format, query.limit)
    return Answer(stream=_in_thread(pieces), media=MEDIA[query.format])


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    following = partial(next, pieces, None)
    while (piece := await asyncio.to_thread(following)) is not None:
        yield piece


def _named(given: Any, known: "tuple[str, ...] | list[str]", parameter: str) -> list[str]:
    """The fields of a list with commas."""
    if given is UNSET:
        return []
    names = list(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in names:
        if name not in known:
            raise InvalidError(parameter, f"expected some of {', '.join(known)}")
    return names


def _operations(prefix: str, suffix: str, permission: Permission) -> tuple[Operation, ...]:
    """The questions that are the same for one workspace and for all."""
    of = "of a workspace" if prefix else "of all workspaces"
    return (
        Operation(
            method="GET",
            path=f"{prefix}/requests",
            id=f"requests.list{suffix}",
            summary=f"The requests {of}, newest first; a search may give an empty page and `next`",
            permission=permission,
            run=_list,
            query=RequestQuery,
            answer=Page[RequestLine],
        ),
        Operation(
            method="GET",
            path=f"{prefix}/requests/facets",
            id=f"requests.facets{suffix}",
            summary=f"Which values the requests {of} have, and how often",
            permission=permission,
            run=_facets,
            query=FacetQuery,
            answer=Facets,
        ),
        Operation(
            method="GET",
            path=f"{prefix}/requests/export",
            id=f"requests.export{suffix}",
            summary=f"The requests {of} as a file: CSV or JSON lines",
            permission=permission,
            run=_export,
            query=ExportQuery,
            media=("text/csv", "application/jsonl"),
        ),
        Operation(
            method="GET",
            path=f"{prefix}/usage",
            id=f"usage.get{suffix}",
            summary=f"What was used {of}: requests, tokens and cost, by time and by field",
            permission=permission,
            run=_usage,
            query=UsageQuery,
            answer=UsageAnswer,
        ),
    )


OPERATIONS = (
    *_operations("/workspaces/{workspace}", "", "usage:read"),
    *_operations("", "_all", "platform:manage"),
    Operation(
        method="GET",
        path="/workspaces/{workspace}/requests/{request}",
        id="requests.get",
        summary="One request in full, with its phases",
        permission="usage:read",
        run=_get,
        answer=RequestDetail,
    ),
    Operation(
        method="GET",
        path="/requests/{request}",
        id="requests.get_all",
        summary="One request of any workspace in full",
        permission="platform:manage",
        run=_get,
        answer=RequestDetail,
    ),
    Operation(
        method="GET",
        path="/workspaces/{workspace}/requests/{request}/body",
        id="requests.body",
        summary="What was sent and answered, where the workspace keeps it",
        permission="bodies:read",
        run=_body,
        answer=KeptBody,
    ),
)
