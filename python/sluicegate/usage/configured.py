"""The prices of the upstreams of a settings file."""

from sluicegate.settings import Settings
from sluicegate.usage.prices import PriceConfig


def read_prices(settings: Settings) -> dict[str, dict[str, PriceConfig]]:
    """By the name of an upstream and the model's own name there. Raises SettingsError."""
    return {
        upstream.name: {
            model: settings.section(values, PriceConfig, ("upstreams", index, "prices", model))
            for model, values in upstream.prices.items()
        }
        for index, upstream in enumerate(settings.upstreams)
        if upstream.prices
    }
