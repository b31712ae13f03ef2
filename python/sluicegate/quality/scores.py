"""What one worker keeps and tells of scores: ranks among earlier answers, and words in the log."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sluicegate import engine as core
from sluicegate.quality.model import Opinion

if TYPE_CHECKING:
    from sluicegate.engine import Outcome
    from sluicegate.telemetry.logs import Log

# As the core compares with no fewer.
ENOUGH = 200


class Scores:
    """Of one worker; the file is that of all workers of the machine, and outlives them."""

    def __init__(self, path: Path | None, log: "Log | None" = None) -> None:
        """None: what was seen is forgotten with this process."""
        self._path = path
        self._log = log
        self._ranks: core.Ranks | None = None

    def rank(self, whose: tuple[str, ...], outcome: "Outcome") -> Opinion:
        """The rank of an answer among those of the same assistant and model, else why it has none."""
        found = outcome.certainty
        if found is None:
            return None, outcome.uncertain or "no_logprobs"
        taken = self._open().take(whose, *found)
        if taken is None:
            return None, "no_room"
        percent, among = taken
        return percent, None if percent is not None else f"history {among}/{ENOUGH}"

    def refused(self, upstream: str, model: str) -> None:
        """An upstream gives no log-probabilities for this model, so that its answers have no rank."""
        if self._log is not None:
            self._log.warning("logprobs_refused", upstream=upstream, upstream_model=model)

    def judged(self, request_id: str, judge_id: str, opinion: Opinion) -> None:
        """A judge has answered; `judge_id`: its own request."""
        if self._log is not None:
            score, reason = opinion
            self._log.info("judged", request_id=request_id, by=judge_id, score=score, reason=reason)

    def skipped(self, request_id: str) -> None:
        """Too many answers wait for their judges."""
        if self._log is not None:
            self._log.warning("judge_skipped", request_id=request_id)

    def judge_failed(self, request_id: str, cause: str) -> None:
        """A fault of our own: the answer has no score of a judge."""
        if self._log is not None:
            self._log.error("judge_failed", request_id=request_id, cause=cause)

    def _open(self) -> core.Ranks:
        if self._ranks is None:
            self._ranks = _opened(self._path, self._warn)
        return self._ranks

    def _warn(self, error: OSError) -> None:
        if self._log is not None:
            cause = error.strerror or type(error).__name__
            message = f"{self._path} cannot be used: each worker ranks answers among its own alone."
            self._log.warning("ranks_not_shared", cause=cause, message=message)


def _opened(path: Path | None, warn: Callable[[OSError], None]) -> core.Ranks:
    if path is None:
        return core.Ranks(None)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise PermissionError(None, "the folder belongs to somebody else")
        return core.Ranks(path)
    except OSError as error:
        warn(error)
        return core.Ranks(None)
