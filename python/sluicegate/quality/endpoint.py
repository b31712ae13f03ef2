"""POST /v1/feedback: what the user of an application says of an answer."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Protocol

from starlette.routing import Route

from sluicegate import errors
from sluicegate.clock import wall_ns
from sluicegate.http.body import BodyReader
from sluicegate.http.door import Callers, Door, Json, Owner
from sluicegate.quality.feedback import LONGEST_CORRECTION, THUMBS, Feedback
from sluicegate.storage.shelf import Shelf

_PATH = "/v1/feedback"
_BEST = 100
_ID = re.compile(r"req_[0-9a-f]{28}")
# A record is in the log of requests a moment after its answer; until then the time in its id is believed.
FRESH_MS = 60_000


class Asked(Protocol):
    """What is on record of a request; `usage.model.Record` is one."""

    @property
    def workspace(self) -> str: ...
    @property
    def assistant(self) -> str | None: ...
    @property
    def score(self) -> int | None: ...


class Log(Protocol):
    """The log of requests; `usage.logbook.Logbook` is one."""

    def one(self, id: str) -> Asked | None:
        """One request. In a thread. Raises ValueError for what is no id."""


class FeedbackEndpoint:
    """Takes one word of feedback at a time."""

    def __init__(
        self, door: Door, shelf: Shelf, log: Callable[[], Log | None], time_of: Callable[[str], int]
    ) -> None:
        """`time_of`: when a request came, by its id."""
        self._door = door
        self._shelf = shelf
        self._log = log
        self._time_of = time_of

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        visit = await self._door.enter(scope)
        visit.require("POST")
        with self._shelf.answering():
            said = await self._about(visit.owner, read(await self._door.body(visit)))
            from sluicegate.quality import store  # noqa: PLC0415 (imports SQLAlchemy)

            again = await self._shelf.write(lambda view: store.save(view, visit.owner, said))
        await visit.answer({"object": "feedback", "id": said.request, "score": said.score, "updated": again})

    async def _about(self, owner: Owner, said: Feedback) -> Feedback:
        """With what is known of the answer. Raises 404 for an answer of nobody in this workspace."""
        age = wall_ns() // 1_000_000 - self._time_of(said.request)
        log = self._log()
        found = None if log is None else await asyncio.to_thread(log.one, said.request)
        if found is None and abs(age) < FRESH_MS:
            return said
        if found is None or found.workspace != owner.workspace:
            raise errors.not_kept("request", said.request)
        return Feedback(
            request=said.request,
            key=owner.key,
            score=said.score,
            correction=said.correction,
            answer_score=found.score,
            assistant=found.assistant,
        )


def read(body: Json) -> Feedback:
    """A rating or a score, and a correction. Raises 400."""
    ref, rating, score, correction = (body.get(name) for name in ("id", "rating", "score", "correction"))
    if not isinstance(ref, str) or not _ID.fullmatch(ref):
        raise _wrong("id", "must be the id of a request: the header 'x-request-id' of its answer")
    if rating is None and score is None:
        raise errors.bad_request(
            "missing_required_parameter",
            "Send a 'rating' ('up', 'down') or a 'score' from 0 to 100.",
            "rating",
        )
    if rating is not None:
        if score is not None or not isinstance(rating, str) or rating not in THUMBS:
            raise _wrong("rating", "must be 'up' or 'down', without a 'score' beside it")
        score = THUMBS[rating]
    if isinstance(score, bool) or not isinstance(score, int) or not 0 <= score <= _BEST:
        raise _wrong("score", "must be a whole number from 0 to 100")
    if correction is not None and (not isinstance(correction, str) or len(correction) > LONGEST_CORRECTION):
        raise _wrong("correction", f"must be a text of at most {LONGEST_CORRECTION} characters")
    # PostgreSQL has no such character.
    kept = correction.replace("\0", "\ufffd") if correction else None
    return Feedback(request=ref, key="", score=score, correction=kept)


def _wrong(param: str, said: str) -> errors.GatewayError:
    return errors.bad_request("invalid_value", f"'{param}' {said}.", param)


def routes(
    keys: Callers,
    bodies: BodyReader,
    shelf: Shelf,
    log: Callable[[], Log | None],
    time_of: Callable[[str], int],
) -> list[Route]:
    """The route."""
    door = Door(keys, bodies, "chat:write", _PATH)
    return [Route("/v1/feedback", FeedbackEndpoint(door, shelf, log, time_of))]
