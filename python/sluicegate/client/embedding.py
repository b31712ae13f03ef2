"""The request for embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluicegate.client.errors import InvalidRequestError
from sluicegate.client.request import Request
from sluicegate.client.settings import Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def embedding_request(
    texts: str | Sequence[str], model: str, timeout: float | Timeouts | None, extra: Mapping[str, Any] | None
) -> tuple[Request, int]:
    """The request, and how many vectors have to come back. Raises InvalidRequestError for no texts."""
    wanted = [texts] if isinstance(texts, str) else list(texts)
    if not wanted or not all(isinstance(text, str) for text in wanted):
        raise InvalidRequestError("embed needs a text, or a list of at least one.")
    body = {"model": model, "input": wanted, **(extra or {})}
    clocks = None if timeout is None else Timeouts.of(timeout)
    return Request("embeddings", model, body, timeouts=clocks), len(wanted)
