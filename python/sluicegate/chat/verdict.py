"""What follows from a failed call: another try, or what the client is told."""

from typing import TYPE_CHECKING

from sluicegate import errors
from sluicegate.chat.directory import Plan
from sluicegate.errors import GatewayError
from sluicegate.keys.model import Principal
from sluicegate.upstreams.select import shortest_wait_ms

if TYPE_CHECKING:
    from sluicegate.engine import Failure


def may_go_on(failure: "Failure") -> bool:
    """Another one may do better: all that the core calls retryable, and a model that only this one lacks."""
    return failure.retryable or failure.status == errors.NOT_FOUND


def final_error(plan: Plan, principal: Principal, failure: "Failure", *, retried: bool) -> GatewayError:
    """What the client is told when nobody is left."""
    if failure.status == errors.NOT_FOUND:
        if plan.assistant is not None:
            return errors.upstream_lacks_model(plan.name)
        # A name that was only passed on: the upstream cannot know that one here differs in case alone.
        wanted = plan.name.casefold()
        names = [name for name in plan.view.names(principal) if name.casefold() == wanted]
        if names and plan.name not in names:
            return errors.unknown_model(plan.name, names)
    wait = shortest_wait_ms(plan.steps) if failure.status == errors.TOO_MANY else None
    return errors.from_failure(failure, retried=retried, retry_after_ms=wait)


def refuses_stream_options(failure: "Failure") -> bool:
    """The server does not know what we have added to the request: ask again without it."""
    return failure.status in (400, 422) and "stream_options" in f"{failure.param} {failure.message}"
