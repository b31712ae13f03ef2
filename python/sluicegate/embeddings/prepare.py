"""The body of an embeddings request: only the model's name may have to change."""

from typing import TYPE_CHECKING

from sluicegate.chat.prepare import Prepared
from sluicegate.chat.prepare import prepare as prepare_chat

if TYPE_CHECKING:
    from sluicegate.engine import Request


def prepare(
    request: "Request", body: bytes, public: str, upstream_model: str, inject_usage: bool
) -> Prepared:
    """As for chat, but there is no stream and so no `stream_options`, whatever the upstream takes."""
    del inject_usage
    return prepare_chat(request, body, public, upstream_model, False)
