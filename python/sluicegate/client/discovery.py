"""What a server can do: its models, and whether one of them calls tools."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from sluicegate.client.errors import ClientError, InvalidRequestError, ProtocolError
from sluicegate.client.request import Request
from sluicegate.client.settings import Timeouts
from sluicegate.fallback import FALLBACK_DEFAULT, FALLBACK_MODELS

if TYPE_CHECKING:
    from sluicegate.client.session import Session

LIMIT_SECONDS: Final = 5.0
_LIMITS: Final = Timeouts(first_event=LIMIT_SECONDS, idle=LIMIT_SECONDS, total=LIMIT_SECONDS)
# Of names that come from callers.
_MOST_MODELS: Final = 1024

_logger = logging.getLogger("sluicegate.client")
# Silent unless the program sets up logging, as a library has to be.
_logger.addHandler(logging.NullHandler())


class _Card(Struct):
    id: str
    supported_parameters: Any = None
    capabilities: Any = None


class _List(Struct):
    data: list[_Card]


_decoder = msgspec.json.Decoder(_List)

_PROBE: Final = {
    "type": "function",
    "function": {
        "name": "current_time",
        "description": "Tells the time.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}


class Discovery:
    """Asks one server; what was learned of tools is kept."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._first: str | None = None
        self._tools: dict[str, bool] = {}

    async def models(self, *, fallback: bool) -> tuple[str, ...]:
        """The ids that the server lists, or the fallback list if it gives none within 5 s."""
        try:
            cards = await self._cards()
        except ClientError as error:
            if not fallback:
                raise
            _logger.warning("a built-in list of models is used: %s", error)
            return FALLBACK_MODELS
        return tuple(cards)

    async def first_model(self) -> str:
        """The first of the list, or the fallback's default. Kept, once the server has answered."""
        if self._first is None:
            models = await self.models(fallback=True)
            if models is FALLBACK_MODELS:
                return FALLBACK_DEFAULT
            self._first = models[0]
        return self._first

    async def model(self) -> str:
        """The model of a call that names none."""
        return self._session.settings.model or await self.first_model()

    async def supports_tools(self, model: str) -> bool:
        """Ask the list of models where it tells; otherwise by a request with one tool, ended at its first
        word.
        """
        known = self._tools.get(model)
        if known is None:
            known = await self._told(model)
            if known is None:
                known = await self._tried(model)
            if len(self._tools) < _MOST_MODELS:
                self._tools[model] = known
        return known

    async def _cards(self) -> dict[str, _Card]:
        body = await self._session.plain("models", None, "", _LIMITS)
        try:
            cards = _decoder.decode(body).data
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"GET /models gave no list of models: {error}") from None
        found = {card.id: card for card in cards if card.id and card.id.isprintable()}
        if not found:
            raise ProtocolError("GET /models gave an empty list. Load a model on the server, or name one.")
        return found

    async def _told(self, model: str) -> bool | None:
        """What OpenRouter (`supported_parameters`), Mistral and LM Studio (`capabilities`) say in their
        lists.
        """
        try:
            card = (await self._cards()).get(model)
        except ClientError:
            return None
        if card is None:
            return None
        if isinstance(card.supported_parameters, list):
            return "tools" in card.supported_parameters
        match card.capabilities:
            case {"function_calling": bool(told)}:
                return told
            case list(words) if words:
                return any(word in words for word in ("tool_use", "tools", "function_calling"))
        return None

    async def _tried(self, model: str) -> bool:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Say OK."}],
            "tools": [_PROBE],
            "tool_choice": "auto",
            "stream": True,
        }
        try:
            line = await self._session.begin(Request("chat", model, body, stream=True))
        except InvalidRequestError as error:
            if "tool" in str(error).lower() or "function" in str(error).lower():
                return False
            raise
        line.close()
        return True
