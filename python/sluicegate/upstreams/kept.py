"""Upstreams of the database at work: kept for as long as their configuration stays the same."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from msgspec.structs import asdict

from sluicegate.ids import PLATFORM
from sluicegate.limits.admit import scope, together
from sluicegate.settings import UpstreamConfig
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams.model import Stored, Upstream
from sluicegate.upstreams.record import Credentials, UpstreamRecord, Usable

if TYPE_CHECKING:
    from sluicegate.engine import Upstream as Handle

# Opens no connection. `trusted`: the base URL may name a private address by itself. Raises ValueError.
Connect = Callable[..., "Handle"]

_MOST_WARNINGS = 1024

# What decides about a handle; the rest of a configuration may change without closing its connections.
_OF_HANDLE = (
    "base_url",
    "api_key",
    "headers",
    "connect_timeout",
    "first_event_timeout",
    "idle_timeout",
    "total_timeout",
)


class KeptUpstreams:
    """All upstreams that the views of one worker refer to, once each; who is in no view is closed."""

    def __init__(self, connect: Connect, networks: tuple[str, ...], log: Log) -> None:
        """`networks`: private ranges that upstreams of the database may reach, as the operator allows."""
        self._connect = connect
        self._networks = networks
        self._log = log
        # Records, with their versions, that were complained about.
        self._warned: set[tuple[str, int]] = set()
        self._by_id: WeakValueDictionary[str, Upstream] = WeakValueDictionary()

    def take(self, usable: Usable) -> Upstream | None:
        """The upstream of a record; None for one that cannot be called, which the log explains."""
        record = usable.record
        if usable.credentials is None:
            self._warn(record, "its key or headers cannot be opened: set them again")
            return None
        config = config_of(record, usable.credentials, self._networks)
        upstream = self._by_id.get(record.id)
        if upstream is None or upstream.config != config:
            try:
                upstream = self._renewed(upstream, config, record)
            except ValueError as error:
                self._warn(record, str(error))
                return None
            self._by_id[record.id] = upstream
        upstream.note_asked(usable.discovered.asked_at, usable.discovered.error)
        upstream.learn_context(
            {m.model: m.context_length for m in usable.discovered.models if m.context_length is not None}
        )
        upstream.switches.learn(usable.discovered.thinking)
        return upstream

    def all(self) -> list[Upstream]:
        """Those in use."""
        return list(self._by_id.values())

    def _renewed(self, before: Upstream | None, config: UpstreamConfig, record: UpstreamRecord) -> Upstream:
        stored = Stored(record.id, record.workspace)
        own = scope("upstream", record.id, record.name, record.limits)
        limited = None if own is None else together(own)
        if before is not None and all(
            getattr(before.config, name) == getattr(config, name) for name in _OF_HANDLE
        ):
            return Upstream(config, before.handle, before, stored=stored, limited=limited)
        handle = self._connect(config, trusted=record.workspace == PLATFORM)
        return Upstream(config, handle, stored=stored, limited=limited)

    def _warn(self, record: UpstreamRecord, message: str) -> None:
        if (record.id, record.version) in self._warned:
            return
        if len(self._warned) < _MOST_WARNINGS:
            self._warned.add((record.id, record.version))
        self._log.warning(
            "upstream_unusable",
            workspace=record.workspace,
            upstream=record.name,
            upstream_id=record.id,
            message=message,
        )


def config_of(record: UpstreamRecord, credentials: Credentials, networks: tuple[str, ...]) -> UpstreamConfig:
    """A stored upstream in the shape of a configured one."""
    return UpstreamConfig(
        name=record.name,
        base_url=record.base_url,
        # What is of no kind may still be told by its host, such as api.openai.com.
        kind=None if record.kind == "custom" else record.kind,
        api_key=credentials.api_key,
        models=record.models,
        aliases=record.aliases,
        weight=record.weight,
        priority=record.priority,
        context_lengths=record.context_lengths,
        tokenizers=record.tokenizers,
        responses=record.responses,
        thinking=record.thinking,
        limits=asdict(record.limits),
        connect_timeout=record.timeouts.connect,
        first_event_timeout=record.timeouts.first_event,
        idle_timeout=record.timeouts.idle,
        total_timeout=record.timeouts.total,
        headers=credentials.headers,
        allow_private_networks=networks,
    )
