"""POST /v1/completions."""

from starlette.routing import Route

from sluicegate.chat.endpoint import Endpoint
from sluicegate.chat.parts import Parts
from sluicegate.chat.pipeline import Pipeline
from sluicegate.completions.prepare import COMPLETIONS


def route(parts: Parts) -> Route:
    """The route of this operation."""
    return Route("/v1/completions", Endpoint(Pipeline(parts, COMPLETIONS)))
