"""Whose limits count for a request, and what it may use of them at most."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sluicegate.chat.window import BYTES_A_TOKEN, MEDIA_TOKENS
from sluicegate.keys.model import Principal
from sluicegate.limits.admit import (
    ANSWER_TOKENS,
    Demand,
    Limiter,
    Scope,
    Together,
    check_size,
    reserved,
    together,
)
from sluicegate.upstreams.profile import kind_of
from sluicegate.usage.prices import FREE, Price, Prices

if TYPE_CHECKING:
    from sluicegate.chat.directory import Plan
    from sluicegate.chat.prepare import Ask
    from sluicegate.engine import LimitRules
    from sluicegate.errors import GatewayError
    from sluicegate.upstreams.model import Candidate
    from sluicegate.usage.settle import Entry

_MOST_SEEN = 10_000
# What a chat template adds to a short prompt.
_TEMPLATE_TOKENS = 16


class Scopes:
    """The limits of workspaces, assistants and keys, as the requests of one worker find them."""

    __slots__ = ("_keys", "_prices", "_seen", "_seen_by", "_together")

    def __init__(
        self, keys: Mapping[str, Scope], prices: Prices, on_new: Callable[[Scope], None] | None = None
    ) -> None:
        """`keys`: those of the settings, by id. `on_new` is told of each when it is first used."""
        self._keys = keys
        self._prices = prices
        self._together: dict[tuple[Scope | None, ...], Together] = {}
        self._seen: set[LimitRules] = set()
        self._seen_by = on_new

    def of(self, plan: "Plan", principal: Principal) -> Together | None:
        """Of workspace, assistant and key; None where none of them has limits."""
        view = plan.view
        of_key = self._keys.get(principal.id) if principal.is_configured else principal.limited
        of_assistant = None if plan.assistant is None else view.assistant_scopes.get(plan.assistant.name)
        if view.scope is None and of_assistant is None and of_key is None:
            return None
        found = view.scope, of_assistant, of_key
        return self._together.get(found) or self._put_together(found)

    def _put_together(self, found: tuple[Scope | None, ...]) -> Together:
        scopes = [one for one in found if one is not None]
        # Workspaces change: what is no longer in use must not stay for ever.
        if len(self._together) >= _MOST_SEEN:
            self._together.clear()
            self._seen.clear()
        if self._seen_by is not None:
            for one in scopes:
                if one.rules not in self._seen:
                    self._seen.add(one.rules)
                    self._seen_by(one)
        made = self._together[found] = together(*scopes)
        return made

    def price(self, candidate: "Candidate") -> Price:
        """What the candidate's tokens cost."""
        upstream, model = candidate
        found = self._prices.known(upstream.name, model)
        if found is None:
            kind = upstream.config.kind or kind_of(upstream.config.base_url)
            found = self._prices.find(upstream.name, kind, model)
        return found


def demand(ask: "Ask", price: Price) -> Demand:
    """An estimate: the prompt by its length, the answer as long as it may be."""
    plan, rules, request = ask.plan, ask.rules, ask.request
    prompt = (plan.prompt_bytes + request.prompt_bytes) // BYTES_A_TOKEN + _TEMPLATE_TOKENS
    prompt += MEDIA_TOKENS * request.media_count
    answer = 0
    if rules.limits_answer:
        wanted, most = request.max_tokens, plan.most_tokens
        answer = ANSWER_TOKENS if wanted is None else wanted
        if most is not None and (wanted is None or most < wanted):
            answer = most
        answer *= max(request.n, 1)
    return Demand(prompt, answer, 0 if price is FREE else price.cost(prompt, answer))


def leave(entry: "Entry") -> None:
    """The upstream that was asked has failed: its place is free, and it has used no tokens."""
    if entry.at_upstream is not None:
        entry.at_upstream.settle(0, 0)
        entry.at_upstream = None


async def enter(limiter: Limiter, limited: Together, entry: "Entry") -> None:
    """Reserve of an upstream's own limits, until its answer ends. Raises 413 or 429."""
    check_size(limited, entry.bytes_in)
    prompt = entry.prompt_tokens
    tokens = reserved(limited, Demand(prompt, max(entry.reserved_tokens - prompt, 0)))
    entry.at_upstream = await limiter.hold(limited, tokens, 0)


def worth_telling(refused: "list[GatewayError]") -> "GatewayError":
    """Of what kept every upstream from being asked: the shortest wait, else what came first."""
    return min(refused, key=_wait)


def _wait(error: "GatewayError") -> float:
    waits = [int(value) for name, value in error.headers if name == b"retry-after-ms"]
    return min(waits, default=float("inf"))
