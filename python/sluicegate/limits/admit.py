"""All limits of a request in one step: a reservation, or the refusal that the client sees."""

from collections.abc import Callable
from typing import ClassVar, Protocol

from msgspec import Struct

from sluicegate import errors
from sluicegate.engine import Admission, LimitRules, LimitSets
from sluicegate.errors import GatewayError, Header
from sluicegate.limits.model import MICROS, NO_BUDGET, NO_LIMITS, Budget, Limits, Subject, rules_of

# What an answer is reserved with where nobody says how long it may be.
ANSWER_TOKENS = 1024
# Nobody knows when a place is free; the official clients wait longer each time by themselves.
_PLACE_MS = 1000

_KINDS = {
    "requests_per_minute": ("requests", "requests per minute"),
    "requests_per_day": ("requests", "requests per day"),
    "tokens_per_minute": ("tokens", "tokens per minute"),
    "tokens_per_day": ("tokens", "tokens per day"),
    "concurrent_requests": ("requests", "concurrent requests"),
}


class Scope(Struct, frozen=True, gc=False, eq=False):
    """The limits of one workspace, key, assistant or upstream, ready to be counted. Equal to itself alone."""

    subject: Subject
    id: str
    name: str
    rules: LimitRules
    limits: Limits = NO_LIMITS
    budget: Budget = NO_BUDGET
    # Tokens beyond which no request could ever be admitted.
    largest: int | None = None


class Together(Struct, frozen=True, gc=False):
    """All limits that count for a request, put together once for all requests that are alike."""

    scopes: tuple[Scope, ...]
    # Of each scope.
    sets: LimitSets
    # Tokens beyond which no request could ever be admitted.
    largest: int | None
    # The smallest of the sizes that a body may have.
    request_bytes: int | None


def together(*scopes: Scope) -> Together:
    """Whatever counts for a request."""
    largest = [one.largest for one in scopes if one.largest is not None]
    sizes = [one.limits.request_bytes for one in scopes if one.limits.request_bytes is not None]
    warn_percent = min((one.budget.warn_percent for one in scopes), default=100)
    return Together(
        scopes,
        LimitSets([one.rules for one in scopes], warn_percent),
        min(largest, default=None),
        min(sizes, default=None),
    )


class Demand(Struct, frozen=True, gc=False):
    """What a request may use at most: tokens of the prompt and of the answer, and what they cost."""

    prompt: int
    answer: int
    micros: int = 0


class Counting(Protocol):
    """The part of the core's `Limits` that admits."""

    def admit(self, sets: LimitSets, tokens: int, micros: int) -> Admission:
        """Reserve all or nothing."""


class Answer(Protocol):
    """What came of one request; the core's `Admission` is one."""

    @property
    def refused(self) -> tuple[int, str] | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def retry_after_ms(self) -> int | None: ...
    @property
    def budget(self) -> tuple[int, int] | None: ...
    @property
    def headers(self) -> list[Header]: ...
    def settle(self, tokens: int, micros: int) -> None: ...


class Sharing(Protocol):
    """Counts together with other machines; `limits.shared.SharedLimits` does."""

    async def admit(self, scopes: "tuple[Scope, ...]", tokens: int, micros: int) -> Answer:
        """Reserve all or nothing."""


class Held(Protocol):
    """What a request holds until its answer has ended, however it ends."""

    @property
    def headers(self) -> list[Header]:
        """What the client is told of its limits."""

    def settle(self, tokens: int, micros: int) -> None:
        """What was really used."""


class Nothing:
    """What a request holds that no limit counts."""

    __slots__ = ()
    headers: ClassVar[list[Header]] = []

    def settle(self, tokens: int, micros: int) -> None:
        """Nothing was reserved."""


NOTHING = Nothing()


class Warned:
    """An admission near the end of a budget: its headers say so."""

    __slots__ = ("_held", "headers")

    def __init__(self, held: Answer, percent: int) -> None:
        self._held = held
        self.headers = [*held.headers, (b"x-budget-used-percent", b"%d" % percent)]

    def settle(self, tokens: int, micros: int) -> None:
        """As the admission."""
        self._held.settle(tokens, micros)


def scope(subject: Subject, id: str, name: str, limits: Limits, budget: Budget = NO_BUDGET) -> Scope | None:
    """The limits of one object by its id; `name` is shown. None where there is nothing to count."""
    rules = rules_of(limits, budget)
    if not rules and limits.request_bytes is None:
        return None
    return Scope(
        subject, id, name, LimitRules(f"{subject}:{id}", rules), limits, budget, limits.largest_demand
    )


class Limiter:
    """Admits the requests of one worker."""

    __slots__ = ("_counting", "_on_refusal", "_on_warning", "_sharing")

    def __init__(
        self,
        counting: Counting,
        on_warning: Callable[[Scope, int], None],
        sharing: Sharing | None = None,
        *,
        on_refusal: Callable[[Subject, str], None] | None = None,
    ) -> None:
        """`on_warning` hears of a budget that is used up to its threshold, and of how far, in percent;
        `on_refusal` of each refusal: whose limit, and why.

        `sharing`: None where this machine counts for itself.
        """
        self._counting = counting
        self._sharing = sharing
        self._on_warning = on_warning
        self._on_refusal = on_refusal

    def at_once(self, limited: Together, tokens: int, micros: int) -> "Held | None":
        """Raises 429 where one of the limits refuses; then nothing is held. None: ask `hold`."""
        return None if self._sharing is not None else self._counted(limited, tokens, micros)

    async def hold(self, limited: Together, tokens: int, micros: int) -> Held:
        """The same, also where several machines count."""
        if self._sharing is None:
            return self._counted(limited, tokens, micros)
        return self._judged(await self._sharing.admit(limited.scopes, tokens, micros), limited, tokens)

    def _counted(self, limited: Together, tokens: int, micros: int) -> Held:
        """On this machine."""
        held = self._counting.admit(limited.sets, tokens, micros)
        return held if held.is_plain else self._judged(held, limited, tokens)

    def _judged(self, held: Answer, limited: Together, tokens: int) -> Held:
        if held.refused is not None:
            if self._on_refusal is not None:
                self._on_refusal(limited.scopes[held.refused[0]].subject, held.reason or "rate")
            raise refusal(held, limited.scopes, tokens)
        return held if held.budget is None else self._warned(held, limited.scopes, *held.budget)

    def _warned(self, held: Answer, scopes: tuple[Scope, ...], used: int, most: int) -> Held:
        percent = used * 100 // most if most else 100
        warned = [s for s in scopes if s.budget is not NO_BUDGET and percent >= s.budget.warn_percent]
        if not warned:
            return held
        self._on_warning(warned[0], percent)
        return Warned(held, percent)


def check_size(limited: Together, size: int) -> None:
    """Raises 413 for a body beyond what the limits allow."""
    if limited.request_bytes is None or size <= limited.request_bytes:
        return
    for one in limited.scopes:
        most = one.limits.request_bytes
        if most is not None and size > most:
            raise errors.request_above_limit(size, most, _owner(one))


def reserved(limited: Together | None, demand: Demand) -> int:
    """Tokens to reserve. An answer that may be longer than a burst takes all of it: it is settled later."""
    whole = demand.prompt + demand.answer
    if limited is None or limited.largest is None or whole <= limited.largest:
        return whole
    return max(limited.largest, demand.prompt)


def refusal(held: Answer, scopes: tuple[Scope, ...], tokens: int) -> GatewayError:
    """What the client is told: which limit, and how long to wait."""
    assert held.refused is not None  # noqa: S101 (the caller has looked)
    number, kind = held.refused
    refused = scopes[number]
    owner = _owner(refused)
    if held.reason == "budget":
        return errors.quota_exceeded(f"The budget of {owner} is used up ({_budget(refused, kind)}).")
    unit, words = _KINDS.get(kind, ("requests", kind))
    most = getattr(refused.limits, kind, None)
    limit = f"{owner}: {most} {words}"
    headers = tuple(held.headers)
    if held.reason == "too_large":
        return errors.above_limit(
            f"The request needs {tokens} tokens, more than {limit}. Send a shorter prompt.", headers
        )
    if held.reason == "full":
        return errors.limits_full()
    wait = _PLACE_MS if held.retry_after_ms is None else held.retry_after_ms
    message = f"Rate limit reached for {limit}."
    if held.reason == "rate":
        message += f" Try again in {wait / 1000:g} s."
    return errors.limit_reached(message, unit, wait, headers)


def _owner(limited: Scope) -> str:
    shown = errors.printable(limited.name)
    return "the workspace" if limited.subject == "workspace" else f"the {limited.subject} `{shown}`"


def _budget(refused: Scope, kind: str) -> str:
    field = kind.removeprefix("budget_")
    most = getattr(refused.budget, field)
    unit, _, period = field.partition("_")
    words = period.replace("_", " ").replace("total", "in total")
    return f"${most:g} {words}" if unit == "usd" else f"{most} tokens {words}"


def dollars(micros: int) -> float:
    """Millionths as dollars."""
    return micros / MICROS
