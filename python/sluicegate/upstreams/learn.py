"""Ask one upstream for its models, once: which they are, how long their context is, what they can do."""

from typing import Any

import msgspec
from msgspec import Struct

from sluicegate.engine import Engine
from sluicegate.engine import Upstream as Handle
from sluicegate.upstreams.record import Credentials, LearnedModel, UpstreamRecord

SECONDS = 10.0
_MOST_MODELS = 10_000
_LONGEST_NAME = 256
_LONGEST = 100_000_000


class Learned(Struct, frozen=True):
    """The models, or why there are none: `cause` is a code of ours, never a text of the server."""

    models: tuple[LearnedModel, ...] | None
    cause: str | None = None


class _Card(Struct):
    """What servers tell of a model, each in its own way; texts and nulls stand everywhere."""

    id: str
    max_model_len: object = None
    context_length: object = None
    context_window: object = None
    max_context_length: object = None
    max_completion_tokens: object = None
    meta: object = None
    top_provider: object = None
    architecture: object = None
    supported_parameters: object = None
    type: object = None


class _List(Struct):
    data: list[_Card]


_decoder = msgspec.json.Decoder(_List)


def handle_of(
    record: UpstreamRecord, credentials: Credentials, allow_private_networks: tuple[str, ...] = ()
) -> Handle:
    """The core's handle of a stored upstream. Raises ValueError with a text that names the field."""
    clocks = record.timeouts
    return Handle(
        record.base_url,
        api_key=None if credentials.api_key is None else credentials.api_key.reveal(),
        headers=[(name, value.reveal()) for name, value in credentials.headers.items()],
        connect_timeout=clocks.connect,
        first_event_timeout=clocks.first_event,
        idle_timeout=clocks.idle,
        total_timeout=clocks.total,
        allow_private_networks=list(allow_private_networks),
    )


async def ask(engine: Engine, handle: Handle) -> Learned:
    """GET /models below its base URL: free of paid tokens."""
    reply = await engine.call(handle, "models", None, first_event_timeout=SECONDS, total_timeout=SECONDS)
    if reply.failure is not None:
        return Learned(None, reply.failure.cause)
    try:
        cards = _decoder.decode(reply.body).data
    except (msgspec.MsgspecError, RecursionError):
        return Learned(None, "upstream_invalid_answer")
    found: dict[str, LearnedModel] = {}
    for card in cards[:_MOST_MODELS]:
        if 0 < len(card.id) <= _LONGEST_NAME and card.id.isprintable():
            found.setdefault(card.id, _learned(card))
    return Learned(tuple(found.values())) if found else Learned(None, "upstream_empty")


def _learned(card: _Card) -> LearnedModel:
    meta = _entry(card.meta, "n_ctx")
    lengths = (card.max_model_len, card.context_length, card.context_window, card.max_context_length, meta)
    outputs = (card.max_completion_tokens, _entry(card.top_provider, "max_completion_tokens"))
    return LearnedModel(
        model=card.id,
        context_length=_first(lengths),
        max_output=_first(outputs),
        abilities=tuple(sorted(_abilities(card))),
    )


def _abilities(card: _Card) -> set[str]:
    found = set()
    takes = card.supported_parameters
    if isinstance(takes, list):
        found |= {name for name in ("tools", "reasoning") if name in takes}
    modalities = _entry(card.architecture, "input_modalities")
    if card.type == "vlm" or (isinstance(modalities, list) and "image" in modalities):
        found.add("vision")
    if card.type in ("embedding", "embeddings"):
        found.add("embeddings")
    return found


def _entry(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _first(given: tuple[object, ...]) -> int | None:
    return next((n for n in given if type(n) is int and 0 < n <= _LONGEST), None)
