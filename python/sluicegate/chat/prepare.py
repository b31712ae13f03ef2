"""The body that goes to an upstream, and what has to be undone in its answer."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sluicegate.engine import Request


class Prepared(NamedTuple):
    """One call to one upstream."""

    body: bytes
    # Replaces `model` in the answer; None: the upstream's own name is what the client asked for.
    public_model: str | None
    # The client did not ask for usage: it is counted and dropped.
    hide_usage: bool
    # `stream_options` was added to the body, which some servers refuse.
    injected: bool


def prepare(
    request: "Request", body: bytes, public: str, upstream_model: str, inject_usage: bool
) -> Prepared:
    """Change as little as possible; where nothing has to change, the client's bytes go on as they are."""
    hide = request.stream and not request.include_usage
    inject = hide and inject_usage
    # A request that names no model gets one, and is answered with that name.
    rename = upstream_model if request.model != upstream_model else None
    if rename is not None or inject:
        body = request.rewrite(rename, inject)
    return Prepared(body, public if public != upstream_model else None, hide, inject)
