"""The limits of the keys and of the upstreams of a settings file."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sluicegate.engine import Limits as Counting
from sluicegate.limits.admit import Scope, Together, scope, together
from sluicegate.limits.model import Budget, Limits
from sluicegate.settings import Settings, SettingsError
from sluicegate.telemetry.logs import Log

if TYPE_CHECKING:
    from sluicegate.limits.shared import SharedLimits


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


def read_upstreams(settings: Settings) -> dict[str, Together]:
    """By the name of an upstream. Raises SettingsError."""
    found = {}
    for index, upstream in enumerate(settings.upstreams):
        limits = settings.section(upstream.limits, Limits, ("upstreams", index, "limits"))
        made = scope("upstream", upstream.name, upstream.name, limits)
        if made is not None:
            found[upstream.name] = together(made)
    return found


def open_shared(settings: Settings, source: str, log: Log) -> "SharedLimits | None":
    """The limits that several machines count together; None: there is one machine. Raises SettingsError.

    Opens no connection. `source`: names the usage records that budgets are read from.
    """
    server = settings.server
    if server.redis_url is None:
        return None
    # Here, not at the top: who has one machine must not wait for these imports.
    from sluicegate.limits.alone import Alone  # noqa: PLC0415
    from sluicegate.limits.shared import SharedLimits  # noqa: PLC0415
    from sluicegate.storage.redis_link import RedisLink  # noqa: PLC0415

    try:
        link = RedisLink(server.redis_url.reveal())
    except (TypeError, ValueError):
        message = "expected redis://, rediss:// or unix://, such as redis://:password@host:6379/0"
        if ("server", "redis_url") in settings.source.lines:
            raise settings.source.error(("server", "redis_url"), message) from None
        raise SettingsError(f"SLUICEGATE_REDIS_URL: {message}") from None
    alone = Alone(lambda processes: Counting(None, processes), server.workers * server.redis_machines)
    return SharedLimits(link, alone, log, source=source, deadline=server.redis_timeout)
