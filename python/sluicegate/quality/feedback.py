"""What people say of answers, and how far scores can be trusted by it."""

from typing import NamedTuple

from msgspec import Struct

# Below this an answer is a bad one, for who said a number instead of a thumb.
GOOD_FROM = 50
THUMBS = {"up": 100, "down": 0}
LONGEST_CORRECTION = 10_000
# Fewer labels tell nothing of a threshold.
ENOUGH = 50


class Feedback(Struct, frozen=True, kw_only=True):
    """Of one answer, by one key; the last word counts."""

    request: str
    key: str
    # 0 to 100; a thumb is 100 or 0.
    score: int
    correction: str | None = None
    # Milliseconds since 1970.
    at: int = 0
    # The answer's own score and its assistant, where its record was there already.
    answer_score: int | None = None
    assistant: str | None = None


class Labelled(NamedTuple):
    """An answer's score, and what was said of it."""

    score: int
    said: int


class Threshold(Struct, frozen=True, kw_only=True):
    """What would follow from a least score. Rates are null where nothing can be said."""

    least: int
    # Of all labelled answers, so many would not be good enough.
    fails: float | None
    # Of those that pass, so many are bad all the same; of those that fail, so many are good.
    bad_that_pass: float | None
    good_that_fail: float | None


def thresholds(found: list[Labelled], step: int = 10) -> tuple[Threshold, ...]:
    """For each tenth."""
    return tuple(_threshold(found, least) for least in range(step, 101, step))


def suggested(found: list[Labelled]) -> int | None:
    """The least score that parts good from bad best: bad ones that fail, less the good ones that do.

    None: there are too few labels, or it parts no better than chance.
    """
    bad = sum(one.said < GOOD_FROM for one in found)
    good = len(found) - bad
    if len(found) < ENOUGH or not bad or not good:
        return None

    def gain(least: int) -> float:
        failing = [one for one in found if one.score < least]
        wrong = sum(one.said >= GOOD_FROM for one in failing)
        return (len(failing) - wrong) / bad - wrong / good

    best = max(range(1, 101), key=gain)
    return best if gain(best) > 0 else None


def _threshold(found: list[Labelled], least: int) -> Threshold:
    failing = [one for one in found if one.score < least]
    passing = [one for one in found if one.score >= least]
    return Threshold(
        least=least,
        fails=_share(len(failing), len(found)),
        bad_that_pass=_share(sum(one.said < GOOD_FROM for one in passing), len(passing)),
        good_that_fail=_share(sum(one.said >= GOOD_FROM for one in failing), len(failing)),
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
