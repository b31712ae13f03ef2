"""Ask one server what it has: its models, and how long their contexts are. No question costs tokens."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import orjson

from sluicegate.settings import UpstreamConfig
from sluicegate.upstreams.discover import LIMIT, LONGEST_CONTEXT, read_cards
from sluicegate.upstreams.model import profile_named
from sluicegate.upstreams.record import LearnedModel

if TYPE_CHECKING:
    from sluicegate.engine import Engine
    from sluicegate.engine import Upstream as Handle

# The handle of a server, or with `exact` of one of its addresses. Raises ValueError.
Open = Callable[..., "Handle"]

_LONGEST_NAME = 256
# Models that a server is asked about one by one.
_MOST_SHOWN = 200
_PARALLEL = 4
_MOST_ABILITIES = 16


class Answer(NamedTuple):
    """What a server said: `models`, or None with the cause in `error`."""

    models: tuple[LearnedModel, ...] | None
    error: str | None = None


class _Learned(NamedTuple):
    length: int | None = None
    abilities: tuple[str, ...] = ()


async def ask(engine: "Engine", open_handle: Open, config: UpstreamConfig, *, trusted: bool) -> Answer:
    """Ask the server of `config`. Never fails for anything that the server does."""
    try:
        handle = open_handle(config, trusted=trusted)
        asker = _Asker(engine, open_handle, config, trusted=trusted)
    except ValueError:
        return Answer(None, "upstream_invalid_settings")
    body, error = await asker.get(handle)
    if error is not None:
        alone = await asker.only_model() if error == "model_not_found" else ()
        return Answer(alone) if alone else Answer(None, error)
    cards = read_cards(body)
    if cards is None:
        return Answer(None, "upstream_invalid_answer")
    names = [name for name in cards if len(name) <= _LONGEST_NAME]
    if not names:
        return Answer(None, "upstream_empty")
    told = {name: _Learned(cards[name].tokens()) for name in names}
    for name, more in (await asker.more(names)).items():
        if name in told:
            told[name] = _Learned(more.length or told[name].length, more.abilities)
    return Answer(
        tuple(
            LearnedModel(model=name, context_length=found.length, abilities=found.abilities)
            for name, found in told.items()
        )
    )


class _Asker:
    """The questions beside the list of models, which each kind of server answers at a place of its own."""

    def __init__(self, engine: "Engine", open_handle: Open, config: UpstreamConfig, *, trusted: bool) -> None:
        self._engine = engine
        self._open = open_handle
        self._config = config
        self._trusted = trusted
        self._source = profile_named(config.kind, config.base_url).context
        # Native addresses stand beside the `/v1` of the compatible ones.
        self._root = config.base_url.rstrip("/").removesuffix("/v1")

    async def get(self, handle: "Handle", body: bytes | None = None) -> tuple[bytes, str | None]:
        """The answer, or the cause of a failure."""
        reply = await self._engine.call(
            handle, "models", body, first_event_timeout=LIMIT, total_timeout=LIMIT
        )
        return (b"", reply.failure.cause) if reply.failure is not None else (reply.body, None)

    async def only_model(self) -> tuple[LearnedModel, ...]:
        """The model of a server without a list: TGI has one, and its older versions do not list it."""
        info = await self._native("/info") if self._source == "tgi_info" else {}
        name = info.get("model_id")
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            return ()
        return (LearnedModel(model=name, context_length=_tokens(info.get("max_total_tokens"))),)

    async def more(self, names: list[str]) -> Mapping[str, _Learned]:
        """What the server tells of these models apart from its list."""
        if self._source == "ollama_show":
            return await self._ollama(names)
        if self._source == "max_context_length":
            return _lm_studio(await self._native("/api/v0/models"))
        if self._source == "llamacpp_meta":
            props = await self._native("/props")
            settings = props.get("default_generation_settings")
            length = _tokens(settings.get("n_ctx") if isinstance(settings, dict) else None)
            return {} if length is None else dict.fromkeys(names, _Learned(length))
        if self._source == "tgi_info":
            info = await self._native("/info")
            length = _tokens(info.get("max_total_tokens"))
            return {} if length is None else dict.fromkeys(names, _Learned(length))
        return {}

    async def _ollama(self, names: list[str]) -> Mapping[str, _Learned]:
        gate = asyncio.Semaphore(_PARALLEL)

        async def show(name: str) -> _Learned:
            async with gate:
                shown = await self._native("/api/show", orjson.dumps({"model": name}))
            info = shown.get("model_info")
            lengths = [
                _tokens(value)
                for field, value in (info.items() if isinstance(info, dict) else ())
                if field.endswith(".context_length")
            ]
            return _Learned(next(iter(lengths), None), _texts(shown.get("capabilities")))

        asked = names[:_MOST_SHOWN]
        return dict(zip(asked, await asyncio.gather(*map(show, asked)), strict=True))

    async def _native(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The object at an address of the server; nothing where there is none."""
        try:
            handle = self._open(self._config, trusted=self._trusted, exact=self._root + path)
        except ValueError:
            return {}
        answer, error = await self.get(handle, body)
        if error is not None:
            return {}
        try:
            found = msgspec.json.decode(answer)
        except (msgspec.MsgspecError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _lm_studio(answer: dict[str, Any]) -> Mapping[str, _Learned]:
    """A loaded model may have been given less than it could have."""
    cards = answer.get("data")
    found: dict[str, _Learned] = {}
    for card in cards if isinstance(cards, list) else ():
        if not isinstance(card, dict) or not isinstance(card.get("id"), str):
            continue
        length = _tokens(card.get("loaded_context_length")) or _tokens(card.get("max_context_length"))
        kinds = {"vlm": ("vision",), "embeddings": ("embeddings",)}
        kind = card.get("type")
        abilities = kinds.get(kind, ()) if isinstance(kind, str) else ()
        found[card["id"]] = _Learned(length, abilities + _texts(card.get("capabilities")))
    return found


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 < value <= LONGEST_CONTEXT else None


def _texts(value: object) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else []
    short = [text for text in listed if isinstance(text, str) and text.isprintable() and len(text) <= 64]  # noqa: PLR2004
    return tuple(short[:_MOST_ABILITIES])
