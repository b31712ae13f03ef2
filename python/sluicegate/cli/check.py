"""`sluicegate check`: what would run with these settings, without running it."""

import ipaddress
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from sluicegate.cli.refuse import refuse

_SHORT_KEY = 20

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sluicegate.settings import ServerConfig, Settings, UpstreamConfig


def check(
    config: Annotated[str | None, typer.Option(help="Settings file (TOML), or SLUICEGATE_CONFIG.")] = None,
) -> None:
    """Read the settings as `serve` would, and print them. Exit status 2 if they cannot be used."""
    from sluicegate import settings as config_file  # noqa: PLC0415
    from sluicegate.app import verify  # noqa: PLC0415
    from sluicegate.cli.serve import require_upstreams  # noqa: PLC0415
    from sluicegate.storage.errors import StorageError  # noqa: PLC0415
    from sluicegate.storage.location import in_use  # noqa: PLC0415

    try:
        settings = config_file.load(config)
        location = in_use()
        if location is None:
            require_upstreams(settings)
        verify(settings)
    except (config_file.SettingsError, StorageError) as error:
        refuse(str(error))
    for line in report(settings):
        typer.echo(line)
    if location is not None:
        typer.echo(f"database       {'PostgreSQL' if location.is_postgresql else location.sqlite_file}")
    for warning in warnings(settings):
        typer.echo(f"warning: {warning}", err=True)


def report(settings: "Settings") -> "Iterator[str]":
    """The settings for people; keys masked."""
    # Here, not at the top: other commands need not wait for these imports.
    from sluicegate.assistants import configured as assistants  # noqa: PLC0415
    from sluicegate.workspaces import configured as workspaces  # noqa: PLC0415
    from sluicegate.workspaces.model import DEFAULT  # noqa: PLC0415

    server = settings.server
    yield f"settings file  {settings.source.path or 'none (environment only)'}"
    yield f"listen         {server.host}:{server.port}, {server.workers} worker(s)"
    yield f"default model  {settings.default_model or 'the first model of the first upstream'}"
    yield (
        f"limits         body {server.max_body_bytes} bytes, at least {server.body_min_rate} bytes/s in "
        f"{server.body_timeout:g} s; comment in a silent stream after {server.stream_keep_alive:g} s; "
        f"drain {server.drain_timeout:g} s"
    )
    if server.redis_url is not None:
        yield f"counted        in Redis, with other machines; in shares after {server.redis_timeout:g} s"
    yield f"metrics        {_metrics(server)}"
    for key in settings.keys:
        yield f"key            {key.name}: {masked(key.key.reveal())}"
    for upstream in settings.upstreams:
        yield from _upstream(upstream)
    rules = workspaces.read(settings)
    limits = {"context window": rules.context_window, "answer tokens": rules.max_tokens}
    said = [f"{name} {limit}" for name, limit in limits.items() if limit is not None]
    models = "all models" if rules.allowed_models is None else ", ".join(rules.allowed_models)
    said.append(f"plain models: {models if rules.plain_models else 'none'}")
    yield f"workspace      {'; '.join(said)}"
    for assistant in assistants.read(settings, DEFAULT, 0):
        yield f"assistant      {assistant.name}: {', '.join(assistant.spec.model)}"
        if assistant.spec.locked:
            yield f"  locked       {', '.join(sorted(assistant.spec.locked))}"


def _upstream(upstream: "UpstreamConfig") -> "Iterator[str]":
    yield f"upstream       {upstream.name}: {upstream.base_url}"
    key = "none" if upstream.api_key is None else masked(upstream.api_key.reveal())
    yield f"  key          {key}"
    models = "asked from the upstream" if upstream.models is None else ", ".join(upstream.models) or "none"
    yield f"  models       {models}"
    if upstream.aliases:
        yield f"  aliases      {', '.join(f'{public} = {name}' for public, name in upstream.aliases.items())}"
    if upstream.tokenizers:
        named = ", ".join(f"{model} = {name}" for model, name in upstream.tokenizers.items())
        yield f"  tokenizers   {named}"
    yield f"  weight       {upstream.weight}"
    yield (
        f"  timeouts     connect {upstream.connect_timeout:g} s, "
        f"first event {upstream.first_event_timeout:g} s, idle {upstream.idle_timeout:g} s, "
        f"total {upstream.total_timeout:g} s"
    )
    yield f"  sizes        event {upstream.max_event_bytes} bytes, answer {upstream.max_answer_bytes} bytes"
    if upstream.headers:
        yield f"  headers      {', '.join(upstream.headers)}"
    if upstream.ca_file:
        yield f"  ca file      {upstream.ca_file}"
    if upstream.allow_private_networks:
        yield f"  private      {', '.join(upstream.allow_private_networks)}"


def warnings(settings: "Settings") -> "Iterator[str]":
    """What works, but is probably not meant."""
    if not settings.keys:
        yield "no key is set: `serve` makes one for each run on a loopback address, and refuses any other"
    for key in settings.keys:
        if len(key.key.reveal()) < _SHORT_KEY:
            yield f"key {key.name}: shorter than {_SHORT_KEY} characters, so it can be guessed"
    for upstream in settings.upstreams:
        url = urlsplit(upstream.base_url)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield f"upstream {upstream.name}: plain http to {url.hostname}: key and texts go unencrypted"
        if url.path in ("", "/"):
            yield f"upstream {upstream.name}: its base URL has no path; most servers want /v1 at its end"
    strict = all(upstream.models is not None for upstream in settings.upstreams)
    names = {
        name for upstream in settings.upstreams for name in (*(upstream.models or ()), *upstream.aliases)
    }
    if settings.default_model is not None and strict and settings.default_model not in names:
        yield f"the default model {settings.default_model} is not among the models of any upstream"


def is_loopback(host: str) -> bool:
    """`localhost`, or an address of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def masked(key: str) -> str:
    """Enough of a key to recognise it: nothing of a short one."""
    return f"{key[:3]}…{key[-4:]}" if len(key) >= _SHORT_KEY else "…"


def _metrics(server: "ServerConfig") -> str:
    if not server.metrics:
        return "off"
    from sluicegate.observability import key_of  # noqa: PLC0415

    key = "with admin keys of the platform" if key_of(server) is None else "with a key of its own, ***"
    own = "" if server.metrics_address is None else f"; without a key on {server.metrics_address}"
    return f"/metrics {key}{own}"
