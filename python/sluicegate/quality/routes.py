"""What was said of an answer, and how far an assistant's scores can be trusted: below /api/v1."""

import asyncio

from msgspec import Struct

from sluicegate.assistants import store as assistants
from sluicegate.management.operation import Answer, Call, Operation
from sluicegate.quality import store
from sluicegate.quality.feedback import GOOD_FROM, Threshold, suggested, thresholds
from sluicegate.storage.errors import NotFoundError

# Those of a settings file have no row.
_OF_SETTINGS = "asst_settings_"


class Said(Struct, frozen=True, kw_only=True):
    """What one key said of an answer."""

    key: str
    score: int
    correction: str | None
    at: int


class SaidOf(Struct, frozen=True, kw_only=True):
    """All that was said of an answer, the oldest first."""

    items: tuple[Said, ...]


class Reliability(Struct, frozen=True, kw_only=True):
    """What a least score would do, by the newest labelled answers."""

    labelled: int
    bad: int
    thresholds: tuple[Threshold, ...]
    # Null where there are fewer than 50 labels, or scores part good from bad no better than chance.
    suggested: int | None


async def _feedback(call: Call) -> Answer:
    ref = call.path["request"]
    try:
        asked = await asyncio.to_thread(call.parts.logbook.one, ref)
    except ValueError:
        asked = None
    if asked is None or asked.workspace != call.workspace:
        raise NotFoundError("request")
    found = await store.of_request(call.view, call.workspace, ref)
    items = tuple(Said(key=one.key, score=one.score, correction=one.correction, at=one.at) for one in found)
    return Answer(SaidOf(items=items))


async def _reliability(call: Call) -> Answer:
    ref = call.path["assistant"]
    if not ref.startswith(_OF_SETTINGS):
        await assistants.get(call.view, call.workspace, ref)
    found = await store.labelled(call.view, call.workspace, ref)
    bad = sum(one.said < GOOD_FROM for one in found)
    made = Reliability(labelled=len(found), bad=bad, thresholds=thresholds(found), suggested=suggested(found))
    return Answer(made)


OPERATIONS = (
    Operation(
        method="GET",
        path="/workspaces/{workspace}/requests/{request}/feedback",
        id="requests.feedback",
        summary="What was said of an answer, with corrections",
        permission="bodies:read",
        run=_feedback,
        answer=SaidOf,
    ),
    Operation(
        method="GET",
        path="/workspaces/{workspace}/assistants/{assistant}/reliability",
        id="assistants.reliability",
        summary="How far the scores of an assistant agree with feedback, for each least score",
        permission="usage:read",
        run=_reliability,
        answer=Reliability,
    ),
)
