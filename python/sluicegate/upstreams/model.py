"""An upstream at work: its settings, its handle in the core, its quirks, and its health."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sluicegate.clock import monotonic
from sluicegate.errors import TOO_MANY
from sluicegate.limits.admit import Together
from sluicegate.settings import UpstreamConfig
from sluicegate.upstreams.health import Health
from sluicegate.upstreams.profile import PROFILES, Profile, UpstreamKind, kind_of
from sluicegate.upstreams.thinking import Switches

if TYPE_CHECKING:
    from sluicegate.engine import Failure, Outcome
    from sluicegate.engine import Upstream as Handle

# Names come from clients: what is learned of them is bounded.
_MOST_MODELS = 1024
# A model that refuses log-probabilities is asked for them again after an hour: servers are updated.
_REFUSAL_SECONDS = 3600.0


class Stored(NamedTuple):
    """Which upstream of the database."""

    id: str
    workspace: str


class Upstream:
    """One configured server in one worker."""

    __slots__ = (
        "__weakref__",
        "_asked_at",
        "_learned",
        "_refuses_logprobs",
        "_refuses_stream_options",
        "config",
        "handle",
        "health",
        "limited",
        "name",
        "profile",
        "stored",
        "switches",
    )

    def __init__(
        self,
        config: UpstreamConfig,
        handle: "Handle",
        before: "Upstream | None" = None,
        *,
        stored: Stored | None = None,
        limited: Together | None = None,
    ) -> None:
        """`before`: the same server before its configuration changed. `stored`: which one it is.
        `limited`: its limits.

        Raises ValueError for a kind that is none.
        """
        self.config = config
        self.handle = handle
        self.name = config.name
        self.profile = profile_named(config.kind, config.base_url)
        self.limited = limited
        self.stored = stored
        self.health: Health = Health() if before is None else before.health
        ways = config.thinking or self.profile.thinking
        same = before is not None and before.switches.ways == ways
        self.switches: Switches = before.switches if before is not None and same else Switches(ways)
        self._asked_at: int | None = None
        self._learned: Mapping[str, int] = {}
        self._refuses_stream_options: frozenset[str] = frozenset()
        self._refuses_logprobs: dict[str, float] = {}

    @property
    def denied_params(self) -> tuple[str, ...]:
        """Fields of a request that are left out here."""
        return (*self.profile.denied_params, *self.config.denied_params)

    @property
    def guesses_thinking(self) -> bool:
        """How it is told how much to think is a guess."""
        return self.profile.guesses_thinking and not self.config.thinking

    def learn_context(self, lengths: Mapping[str, int]) -> None:
        """What the server tells of the context lengths of its models, in tokens."""
        self._learned = lengths

    def note_asked(self, at: int | None, error: str | None) -> None:
        """The cause that the last question for its models failed with. Told once: an answer since then counts
        more.
        """
        if at != self._asked_at:
            self._asked_at = at
            self.health.report(error)

    def context_length(self, model: str) -> int | None:
        """Tokens of the model's context: as set, else as the server tells; None where nobody knows."""
        return self.config.context_lengths.get(model) or self._learned.get(model)

    def takes_stream_options(self, model: str) -> bool:
        """Older servers refuse `stream_options`; which ones has to be learned, for each model."""
        return model not in self._refuses_stream_options

    def note_refused_stream_options(self, model: str) -> None:
        """Leave them out for this model from now on."""
        if len(self._refuses_stream_options) < _MOST_MODELS:
            self._refuses_stream_options |= {model}

    def takes_logprobs(self, model: str) -> bool:
        """Not where it has refused them for this model within the last hour."""
        refused_at = self._refuses_logprobs.get(model)
        return refused_at is None or monotonic() - refused_at > _REFUSAL_SECONDS

    def note_refused_logprobs(self, model: str) -> None:
        """Leave them out for this model for a while."""
        if len(self._refuses_logprobs) >= _MOST_MODELS:
            self._refuses_logprobs.clear()
        self._refuses_logprobs[model] = monotonic()

    def note_failure(self, model: str, failure: "Failure") -> None:
        """A call that failed before anything reached the client."""
        if failure.counts_against_upstream:
            self.health.failed()
        elif failure.status == TOO_MANY and failure.retry_after_ms is not None:
            self.health.limited(model, failure.retry_after_ms / 1000)

    def note_outcome(self, model: str, outcome: "Outcome | None") -> None:
        """An answer that has begun has ended. What the client ended says nothing about the server."""
        if outcome is None:
            return
        if outcome.failure is not None:
            self.note_failure(model, outcome.failure)
        elif outcome.state == "finished":
            self.health.succeeded()


# An upstream and the name that it has for the model.
Candidate = tuple[Upstream, str]
# In order: the next step only where nobody of one is left; within a step it is a choice by weight.
Steps = tuple[tuple[Candidate, ...], ...]


def profile_named(kind: str | None, base_url: str) -> Profile:
    """The profile of a configured kind, else of what the base URL tells. Raises ValueError for no kind."""
    if kind is None:
        return PROFILES[kind_of(base_url)]
    known: UpstreamKind
    for known, profile in PROFILES.items():
        if known == kind:
            return profile
    raise ValueError(f"kind `{kind}` is none of {', '.join(PROFILES)}")
