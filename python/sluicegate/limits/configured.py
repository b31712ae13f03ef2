"""The limits of the keys and of the upstreams of a settings file."""

from collections.abc import Mapping

from sluicegate.limits.admit import Scope, scope
from sluicegate.limits.model import Budget, Limits
from sluicegate.settings import Settings


def read_keys(settings: Settings, ids: Mapping[str, str]) -> dict[str, Scope]:
    """By the id of a key. `ids`: the id of each key, by its name. Raises SettingsError."""
    found = {}
    for index, key in enumerate(settings.keys):
        limits = settings.section(key.limits, Limits, ("keys", index, "limits"))
        budget = settings.section(key.budget, Budget, ("keys", index, "budget"))
        id = ids[key.name]
        made = scope("key", id, key.name, limits, budget)
        if made is not None:
            found[id] = made
    return found


def read_upstreams(settings: Settings) -> dict[str, Scope]:
    """By the name of an upstream. Raises SettingsError."""
    found = {}
    for index, upstream in enumerate(settings.upstreams):
        limits = settings.section(upstream.limits, Limits, ("upstreams", index, "limits"))
        made = scope("upstream", upstream.name, upstream.name, limits)
        if made is not None:
            found[upstream.name] = made
    return found
