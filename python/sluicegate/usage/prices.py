"""What tokens cost: as the operator says, else by the public price list of the provider, else nothing."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta, Struct

__all__ = ["FREE", "Price", "PriceConfig", "Prices"]

Dollars = Annotated[float, Meta(ge=0, le=1_000_000)]

_MILLION = 1_000_000
# A sample from which the price of one token is read; small enough for the first tier of a tiered price.
_SAMPLE = 1000
# Names of models come from clients: what is kept of them is bounded.
_MOST = 4096
# Kinds of upstreams whose prices are public; what one runs oneself costs what its operator says.
_PROVIDERS = {
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
    "fireworks": "fireworks",
    "groq": "groq",
    "deepseek": "deepseek",
}


class PriceConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Dollars for a million tokens. `cached`: of what the upstream had in its cache; None: as `prompt`."""

    prompt: Dollars = 0.0
    completion: Dollars = 0.0
    cached: Dollars | None = None


class Price(Struct, frozen=True, gc=False):
    """Millionths of a dollar for a million tokens."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def cost(self, prompt: int, completion: int, cached: int = 0) -> int:
        """Millionths of a dollar, rounded up: what costs something never counts as nothing."""
        whole = prompt * self.prompt + completion * self.completion
        if cached:
            whole += min(cached, prompt) * (self.cached - self.prompt)
        return -(-whole // _MILLION)


FREE = Price()


class Prices:
    """The prices in one worker, by upstream and model."""

    __slots__ = ("_known", "_own")

    def __init__(self, own: Mapping[str, Mapping[str, PriceConfig]]) -> None:
        """`own`: by the name of an upstream, the prices of its models; `*` is every other model."""
        self._own = own
        self._known: dict[tuple[str, str], Price] = {}

    def known(self, upstream: str, model: str) -> Price | None:
        """The price of a model there, where it was found before."""
        return self._known.get((upstream, model))

    def find(self, upstream: str, kind: str, model: str) -> Price:
        """The price of a model there; `kind` of upstream."""
        found = self._find(upstream, kind, model)
        if len(self._known) < _MOST:
            self._known[upstream, model] = found
        return found

    def _find(self, upstream: str, kind: str, model: str) -> Price:
        own = self._own.get(upstream, {})
        config = own.get(model) or own.get("*")
        if config is not None:
            cached = config.prompt if config.cached is None else config.cached
            return Price(_micros(config.prompt), _micros(config.completion), _micros(cached))
        provider = _PROVIDERS.get(kind)
        return FREE if provider is None else _public(provider, model)


def _micros(dollars: float) -> int:
    return round(dollars * _MILLION)


def _public(provider: str, model: str) -> Price:
    """As the price list has it; a model that it does not know costs nothing."""
    # Imported late: whoever runs models oneself needs no price list.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    def one(side: str, **tokens: Any) -> int:
        price: Decimal = getattr(calc_price(Usage(**tokens), model, provider_id=provider), side)
        return round(price * _MILLION * _MILLION / _SAMPLE)

    try:
        return Price(
            one("input_price", input_tokens=_SAMPLE),
            one("output_price", output_tokens=_SAMPLE),
            one("input_price", input_tokens=_SAMPLE, cache_read_tokens=_SAMPLE),
        )
    except (LookupError, ValueError):
        return FREE
