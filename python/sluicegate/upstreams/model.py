"""An upstream at work: its settings, its handle in the core, and its health."""

from typing import TYPE_CHECKING

from sluicegate.errors import TOO_MANY
from sluicegate.settings import UpstreamConfig
from sluicegate.upstreams.health import Health

if TYPE_CHECKING:
    from sluicegate.engine import Failure, Outcome
    from sluicegate.engine import Upstream as Handle

# Names come from clients: what is learned of them is bounded.
_MOST_MODELS = 1024


class Upstream:
    """One configured server in one worker."""

    __slots__ = ("_refuses_stream_options", "config", "handle", "health", "name")

    def __init__(self, config: UpstreamConfig, handle: "Handle") -> None:
        self.config = config
        self.handle = handle
        self.name = config.name
        self.health = Health()
        self._refuses_stream_options: frozenset[str] = frozenset()

    def takes_stream_options(self, model: str) -> bool:
        """Older servers refuse `stream_options`; which ones has to be learned, for each model."""
        return model not in self._refuses_stream_options

    def note_refused_stream_options(self, model: str) -> None:
        """Leave them out for this model from now on."""
        if len(self._refuses_stream_options) < _MOST_MODELS:
            self._refuses_stream_options |= {model}

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
