"""POST /v1/embeddings."""

from starlette.routing import Route

from sluicegate.chat.endpoint import Endpoint
from sluicegate.chat.parts import Parts
from sluicegate.chat.pipeline import Pipeline
from sluicegate.embeddings.prepare import EMBEDDINGS


def route(parts: Parts) -> Route:
    """The route of this operation."""
    return Route("/v1/embeddings", Endpoint(Pipeline(parts, EMBEDDINGS)))
