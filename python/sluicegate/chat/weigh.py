"""Calls whose answers are weighed by log-probabilities, asked for where the client does not ask."""

from typing import TYPE_CHECKING, Any

from sluicegate.chat.call import Calls
from sluicegate.chat.prepare import Prepared
from sluicegate.engine import ask_logprobs

if TYPE_CHECKING:
    from sluicegate.chat.call import Job
    from sluicegate.engine import Failure
    from sluicegate.upstreams.model import Candidate

_FIELD = "logprobs"
_REFUSING = (400, 422)


class Weighed(Prepared, frozen=True):
    """One call whose log-probabilities are looked at; `strips`: they are ours, and no client's."""

    strips: bool = False


class WeighingCalls(Calls):
    """As `Calls`, for assistants whose score wants log-probabilities. Nobody else pays for them."""

    async def _prepared(self, job: "Job", candidate: "Candidate", inject: bool) -> Prepared:
        prepared = await super()._prepared(job, candidate, inject)
        if why_not(candidate) is not None:
            return prepared
        body, strips = ask_logprobs(prepared.body, candidate[0].profile.top_logprobs)
        values = {name: getattr(prepared, name) for name in Prepared.__struct_fields__}
        values["body"] = prepared.body if body is None else body
        return Weighed(**values, strips=strips)

    def _options(self, job: "Job", prepared: Prepared, deadline: float) -> dict[str, Any]:
        options = super()._options(job, prepared, deadline)
        if isinstance(prepared, Weighed):
            options["logprobs"] = prepared.strips
        return options

    def _asks_again(self, candidate: "Candidate", prepared: Prepared, failure: "Failure") -> bool:
        if isinstance(prepared, Weighed) and prepared.strips and _refuses(failure):
            upstream, model = candidate
            upstream.note_refused_logprobs(model)
            self._parts.scores.refused(upstream.name, model)
            return True
        return super()._asks_again(candidate, prepared, failure)


def why_not(candidate: "Candidate") -> str | None:
    """Why this upstream is not asked for log-probabilities; None: it is."""
    upstream, model = candidate
    if not upstream.profile.top_logprobs or _FIELD in upstream.denied_params:
        return "logprobs_unsupported"
    return None if upstream.takes_logprobs(model) else "logprobs_refused"


def _refuses(failure: "Failure") -> bool:
    """The server gives none for this model. OpenAI says so with a 403, which else is about the key."""
    if failure.cause == "upstream_auth_error":
        return "403" in failure.message
    return failure.status in _REFUSING and _FIELD in f"{failure.param} {failure.message}"
