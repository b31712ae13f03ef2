"""From the configuration of an upstream to its handle in the core."""

from sluicegate import engine as core
from sluicegate.settings import Settings, UpstreamConfig
from sluicegate.upstreams.model import profile_named


def connect(settings: Settings, config: UpstreamConfig) -> core.Upstream:
    """The core's handle of an upstream of the settings. Raises SettingsError for what cannot work."""
    try:
        return open_handle(config)
    except ValueError as error:
        raise settings.upstream_error(config.name, str(error)) from None


def open_handle(config: UpstreamConfig, *, trusted: bool = True, exact: str | None = None) -> core.Upstream:
    """The core's handle of an upstream. Opens no connection; raises ValueError for what cannot work.

    `trusted`: its base URL may name a private address. `exact`: one address of the same server instead.
    """
    profile_named(config.kind, config.base_url)
    return core.Upstream(
        exact or config.base_url,
        api_key=None if config.api_key is None else config.api_key.reveal(),
        headers=[(name, value.reveal()) for name, value in config.headers.items()],
        connect_timeout=config.connect_timeout,
        first_event_timeout=config.first_event_timeout,
        idle_timeout=config.idle_timeout,
        total_timeout=config.total_timeout,
        max_event_bytes=config.max_event_bytes,
        max_answer_bytes=config.max_answer_bytes,
        allow_private_networks=list(config.allow_private_networks),
        ca_file=config.ca_file,
        trusted=trusted,
        exact=exact is not None,
    )
