"""What was found out about the quality of one answer."""

import msgspec
from msgspec import Struct

# The methods, by how much they know. A score says which of them it comes from: `L0+L1`.
CHECKS = "L0"
LOGPROBS = "L1"
JUDGE = "L2"

# What one method says: 0 to 100, or None and why. A judge says why in both cases.
Opinion = tuple[int | None, str | None]


class Grade(Struct, frozen=True):
    """`score` None: nothing can be said of it, and `reason` tells why. Never a pass or a fail by accident."""

    score: int | None
    failed: tuple[str, ...] = ()
    method: str = CHECKS
    reason: str | None = None
    # What the checks alone say, for a comparison of two that have no score; None: it is no answer of a chat.
    checks: int | None = None

    @property
    def failed_checks(self) -> str | None:
        """In one text, as records have them."""
        return ",".join(self.failed) or None

    @property
    def why(self) -> tuple[str, ...]:
        """What is to be told of it."""
        return self.failed or (() if self.reason is None else (self.reason,))

    def line(self) -> dict[str, object]:
        """What a log line has of it."""
        return {
            "score": self.score,
            "score_method": self.method,
            "score_reason": self.reason,
            "failed_checks": self.failed_checks,
        }

    def judged(self, opinion: Opinion) -> "Grade":
        """With what a judge says, who counts more than log-probabilities.

        A judge that fails says nothing: then a rank or a failed check is left, never that nothing failed.
        """
        if self.checks is None:
            return self
        score, reason = opinion
        if score is not None:
            method = f"{CHECKS}+{JUDGE}"
            return msgspec.structs.replace(self, score=min(self.checks, score), method=method, reason=reason)
        kept = self.score if self.failed or self.method != CHECKS else None
        return msgspec.structs.replace(self, score=kept, reason=reason)


def combined(checks: tuple[int, list[str]] | None, rank: Opinion | None = None) -> Grade:
    """The grade of an answer by its checks (None: it is no chat) and by its rank among earlier ones.

    `rank`: None where it is not asked for. A check that failed caps the score, and is certain also where the
    rank is not known.
    """
    if checks is None:
        return Grade(None, reason="not_a_chat")
    score, failed = checks[0], tuple(checks[1])
    if rank is None:
        return Grade(score, failed, checks=score)
    percent, reason = rank
    if percent is not None:
        return Grade(min(score, percent), failed, f"{CHECKS}+{LOGPROBS}", checks=score)
    return Grade(score if failed else None, failed, reason=reason, checks=score)
