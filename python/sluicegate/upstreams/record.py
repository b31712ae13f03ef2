"""An upstream as it is stored and managed, and what was learned of it; `model.py` is one at work."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct, structs

from sluicegate.limits.model import NO_LIMITS, Limits
from sluicegate.settings import Secret, ThinkingWay
from sluicegate.upstreams.health import OUT
from sluicegate.upstreams.profile import UpstreamKind
from sluicegate.upstreams.thinking import LearnedSwitch

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Model = Annotated[str, Meta(min_length=1, max_length=256)]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?\Z", max_length=2048)]
Tokens = Annotated[int, Meta(ge=1, le=100_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")]
Tokenizer = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
WorkspaceId = Annotated[str, Meta(max_length=63)]

# Of an operator's upstream: nobody, everybody, or these workspaces may use it.
Offer = Literal["none", "all"] | tuple[WorkspaceId, ...]

_PORTS = {"http": 80, "https": 443}


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """The four clocks of a call, in seconds."""

    connect: Seconds = 5.0
    first_event: Seconds = 300.0
    idle: Seconds = 120.0
    total: Seconds = 1800.0


class UpstreamDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An upstream as written: what an update replaces as a whole. Its key and headers' values come apart."""

    name: Name
    base_url: Url
    kind: UpstreamKind = "custom"
    # None: asked from the server.
    models: Annotated[tuple[Model, ...], Meta(max_length=10_000)] | None = None
    # Public name → the upstream's own.
    aliases: Annotated[dict[Model, Model], Meta(max_length=1000)] = {}
    # Share among those of one priority that serve a model; 0: only if all others are out.
    weight: Annotated[int, Meta(ge=0, le=1000)] = 1
    # 0 is asked first; the next number only where nobody of it is left.
    priority: Annotated[int, Meta(ge=0, le=100)] = 0
    timeouts: Timeouts = Timeouts()
    # Context length by model, where a person knows it better than the server tells.
    context_lengths: Annotated[
        dict[Model, Annotated[int, Meta(ge=1, le=100_000_000)]], Meta(max_length=1000)
    ] = {}
    # Its own name of a model → an encoding, or the path of a tokenizer.json, which is the operator's to name.
    tokenizers: Annotated[dict[Model, Tokenizer], Meta(max_length=1000)] = {}
    # It has /v1/responses itself.
    responses: bool = False
    # How it is told how much to think, the likeliest way first; without any, as its kind is.
    thinking: Annotated[tuple[ThinkingWay, ...], Meta(max_length=8)] = ()
    # Of all requests to it, whoever asks; where one is reached, the next upstream is asked.
    limits: Limits = NO_LIMITS
    enabled: bool = True
    # Only of the operator's own upstreams.
    offered_to: Offer = "none"


class UpstreamRecord(Struct, frozen=True, kw_only=True):
    """A stored upstream without its secrets. Times are milliseconds since 1970."""

    id: str
    # The owner; `_platform` for the operator's own.
    workspace: str
    name: str
    base_url: str
    kind: UpstreamKind
    models: tuple[str, ...] | None
    aliases: dict[str, str]
    weight: int
    priority: int
    timeouts: Timeouts
    context_lengths: dict[str, int]
    enabled: bool
    offered_to: Offer
    # Whether a key is set, and its last four characters ("" of a short one).
    has_key: bool
    key_last4: str
    # Names of further headers; their values are secrets.
    header_names: tuple[str, ...]
    version: int
    created_at: int
    updated_at: int
    # Rows that were written before there were these fields have none.
    tokenizers: dict[str, str] = {}
    responses: bool = False
    limits: Limits = NO_LIMITS
    thinking: tuple[ThinkingWay, ...] = ()

    @property
    def origin(self) -> str:
        """Where its secrets may be sent."""
        return origin_of(self.base_url)


class Credentials(Struct, frozen=True, kw_only=True):
    """What is sent to an upstream and to nobody else. Its texts never print."""

    api_key: Secret | None = None
    headers: dict[str, Secret] = {}


NO_CREDENTIALS = Credentials()


class LearnedModel(Struct, frozen=True, kw_only=True):
    """What a server told of one of its models; None where it did not say."""

    model: str
    context_length: int | None = None
    max_output: int | None = None
    # Such as "tools", "vision", "embeddings", "reasoning".
    abilities: tuple[str, ...] = ()


class Discovered(Struct, frozen=True, kw_only=True):
    """What the last question for its models gave: `error` is a cause of ours, never a server's text."""

    models: tuple[LearnedModel, ...]
    # When an answer came last, and when it was asked last (milliseconds since 1970).
    learned_at: int | None
    asked_at: int | None
    error: str | None
    # What was seen in its answers of the ways to tell its models how much to think.
    thinking: tuple[LearnedSwitch, ...] = ()


class Learned(Discovered, frozen=True, kw_only=True):
    """What is known of a server. `state`: «unasked» yet; «ok»; «failing»: it gave no list of models, and is
    used all the same; «out»: it cannot be reached or refuses its key, and others are asked before it.
    """

    state: Literal["unasked", "ok", "failing", "out"]


def learned(found: Discovered) -> Learned:
    """With what it says about the server."""
    state: Literal["unasked", "ok", "failing", "out"] = "ok"
    if found.asked_at is None:
        state = "unasked"
    elif found.error is not None:
        state = "out" if found.error in OUT else "failing"
    return Learned(**structs.asdict(found), state=state)


NOTHING_LEARNED = Discovered(models=(), learned_at=None, asked_at=None, error=None)


class Usable(Struct, frozen=True):
    """One upstream that a workspace may call, with what is needed for it."""

    record: UpstreamRecord
    # They never print. None: they cannot be opened, because somebody has moved or altered them.
    credentials: Credentials | None
    discovered: Discovered


def origin_of(base_url: str) -> str:
    """`scheme://host:port`, lower case, with the port that the scheme implies."""
    parts = urlsplit(base_url)
    scheme = parts.scheme.lower()
    return f"{scheme}://{(parts.hostname or '').lower()}:{parts.port or _PORTS[scheme]}"
