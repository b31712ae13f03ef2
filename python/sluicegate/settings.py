"""The operator's settings: a TOML file and environment variables, read into immutable typed values."""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from sluicegate import conversion
from sluicegate.secret import Secret as Secret  # noqa: PLC0414 (a part of the settings)
from sluicegate.toml_lines import Path as KeyPath
from sluicegate.toml_lines import TomlError, line_of, parse

Seconds = Annotated[float, Meta(gt=0, le=86400)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Model = Annotated[str, Meta(min_length=1, max_length=256)]

S = TypeVar("S", bound=Struct)

_ENV_UPSTREAM = "default"
_KEY_LENGTHS = range(1, 513)


class SettingsError(Exception):
    """Settings that cannot be used. The text names file, line and key, and what is expected."""


HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
# Open WebUI, LibreChat, proxies that keep sessions together, and coding agents.
CONVERSATION_HEADERS = (
    *("x-openwebui-chat-id", "x-librechat-conversation-id", "x-session-id", "x-session-affinity"),
    *("x-opencode-session", "x-claude-code-session-id", "session_id"),
)


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[server]`: where to listen, and the limits of a client's request."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8080
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    access_log: bool = False
    max_body_bytes: Bytes = 32 * 1024 * 1024
    # A body must bring `body_min_rate` bytes/s in each window of `body_timeout` seconds, or it is a 408.
    body_timeout: Seconds = 10.0
    body_min_rate: Annotated[int, Meta(ge=1)] = 1024
    # A stream without a first event gets a comment after so many seconds; 0 turns it off.
    stream_keep_alive: Annotated[float, Meta(ge=0, le=3600)] = 15.0
    drain_timeout: Annotated[float, Meta(ge=0, le=86400)] = 120.0
    # Usage records are kept so long; 0: for ever. A workspace may keep its own for less.
    usage_days: Annotated[int, Meta(ge=0, le=36_500)] = 400
    # While the disk takes no usage records: wait in memory, or take no requests.
    records: Literal["spool", "strict"] = "spool"
    # Where several machines count their limits together; None: this one counts for itself.
    redis_url: Secret | None = None
    # A decision waits so long for it.
    redis_timeout: Annotated[float, Meta(ge=0.005, le=1)] = 0.1
    # Into the shares of so many machines limits are divided where it has not been reached since the start.
    redis_machines: Annotated[int, Meta(ge=1, le=1000)] = 2
    metrics: bool = True
    # Opens /metrics, beside the admin keys of the platform.
    metrics_key: Secret | None = None
    # A second address for /metrics alone, without a key; see `telemetry/listener.py`.
    metrics_address: str | None = None
    # Answers under way end within seconds after their key was revoked, deleted or has expired.
    cut_revoked: bool = True
    # Networks whose `X-Forwarded-For` tells the address of a client. Read by `http/proxies.py`.
    trusted_proxies: tuple[str, ...] = ()
    # Taken for `x-conversation-id` where that is missing, the first that is there.
    conversation_headers: tuple[HeaderName, ...] = CONVERSATION_HEADERS


class KeyConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[keys]]`: one client key and the name that logs show for it."""

    name: Name
    key: Secret
    # Globs over the names of assistants and models, and over «upstream/model»; None: all of them.
    models: tuple[Model, ...] | None = None
    # Read by `limits/configured.py`.
    limits: dict[str, Any] = {}
    budget: dict[str, Any] = {}


# How a server is told how much to think.
ThinkingWay = Literal["effort", "minimal", "template", "reasoning", "enabled", "type", "flag", "omit"]


class UpstreamConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[upstreams]]`: one OpenAI-compatible server."""

    name: Name
    base_url: str
    # None: told by the host of the base URL, else "custom". See `upstreams/profile.py`.
    kind: str | None = None
    api_key: Secret | None = None
    api_key_env: str | None = None
    # Without a list, GET {base_url}/models is asked, and unknown names are passed on.
    models: tuple[Model, ...] | None = None
    aliases: dict[Model, Model] = {}
    # By its own name of a model, or `*`: dollars for a million tokens. Read by `usage/configured.py`.
    prices: dict[Model, dict[str, Any]] = {}
    # The upstream's own model name to an encoding, or to the path of a tokenizer.json.
    tokenizers: dict[Model, str] = {}
    weight: Annotated[int, Meta(ge=0, le=1000)] = 1  # 0: only where all others are out.
    # 0 is asked first; the next number only where nobody of it is left.
    priority: Annotated[int, Meta(ge=0, le=100)] = 0
    responses: bool = False  # It has /v1/responses itself.
    # How it is told how much to think, the likeliest way first; without any, as its kind is.
    thinking: Annotated[tuple[ThinkingWay, ...], Meta(max_length=8)] = ()
    limits: dict[str, Any] = {}  # Read by `limits/configured.py`.
    # By the upstream's own name of the model, where a person knows better than the server tells.
    context_lengths: dict[Model, Annotated[int, Meta(ge=1, le=100_000_000)]] = {}
    # Fields of a request that it refuses: they are left out, and named in `x-dropped-params`.
    denied_params: tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")], ...] = ()
    connect_timeout: Seconds = 5.0
    first_event_timeout: Seconds = 300.0
    idle_timeout: Seconds = 120.0
    total_timeout: Seconds = 1800.0
    max_event_bytes: Bytes = 1024 * 1024
    max_answer_bytes: Bytes = 64 * 1024 * 1024
    headers: dict[str, Secret] = {}
    ca_file: str | None = None
    # Filled with the top-level list as well.
    allow_private_networks: tuple[str, ...] = ()


class _File(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    server: ServerConfig = ServerConfig()
    keys: tuple[KeyConfig, ...] = ()
    default_model: Model | None = None
    allow_private_networks: tuple[str, ...] = ()
    upstreams: tuple[UpstreamConfig, ...] = ()
    # What they may hold is known above: `assistants/configured.py` and `workspaces/configured.py` read them.
    workspace: dict[str, Any] = {}
    assistants: tuple[dict[str, Any], ...] = ()


class Source(Struct, frozen=True):
    """The settings file, kept for messages that name file, line and key."""

    path: str = ""
    lines: dict[KeyPath, int] = {}

    def error(self, key: KeyPath, message: str) -> SettingsError:
        """A `SettingsError` at `key`; without a file only the key is named."""
        line = line_of(self.lines, key)
        place = self.path if line is None else f"{self.path}:{line}"
        return SettingsError(": ".join(part for part in (place, _dotted(key), message) if part))


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that was set, checked and merged."""

    server: ServerConfig = ServerConfig()
    keys: tuple[KeyConfig, ...] = ()
    upstreams: tuple[UpstreamConfig, ...] = ()
    default_model: str | None = None
    allow_private_networks: tuple[str, ...] = ()  # as those of upstreams, but for the database's
    workspace: dict[str, Any] = {}
    assistants: tuple[dict[str, Any], ...] = ()
    source: Source = Source()

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def with_server(self, changes: dict[str, Any]) -> Self:
        """A copy with other `[server]` values; the command line has the last word."""
        return self.replace(server=msgspec.structs.replace(self.server, **changes))

    def section(self, values: dict[str, Any], kind: type[S], path: KeyPath) -> S:
        """A table that the file holds at `path`, as a value. Raises SettingsError for what does not fit."""
        try:
            return msgspec.convert(values, kind)
        except msgspec.ValidationError as error:
            raise _explain(str(error), self.source, path, kind) from None

    def upstream_error(self, name: str, message: str, *key: str) -> SettingsError:
        """An error of one upstream that shows only when it is built; `key` is where in it."""
        for index, upstream in enumerate(self.upstreams):
            if upstream.name == name and ("upstreams", index) in self.source.lines:
                if key:
                    return self.source.error(("upstreams", index, *key), message)
                # The core begins with the field, where one is to blame.
                field, _, rest = message.partition(": ")
                if field in UpstreamConfig.__struct_fields__:
                    return self.source.error(("upstreams", index, field), rest)
                return self.source.error(("upstreams", index), message)
        return SettingsError(f"upstream {name}: {message}")


def load(path: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the file (`path`, else `SLUICEGATE_CONFIG`) and the environment; neither is required."""
    path = path or environ.get("SLUICEGATE_CONFIG") or None
    file, source = _read(path) if path else (_File(), Source())
    networks = (*file.allow_private_networks, *_listed(environ, "SLUICEGATE_ALLOW_PRIVATE_NETWORKS"))
    file = msgspec.structs.replace(file, allow_private_networks=networks)
    keys = (*file.keys, *_env_keys(environ))
    upstreams = tuple(
        _finish_upstream(upstream, ("upstreams", index), file, source, environ)
        for index, upstream in enumerate(file.upstreams)
    )
    upstreams = (*upstreams, *_env_upstream(environ, upstreams, file))
    for index, key in enumerate(keys):
        _check_key(key, keys[:index], source, index)
    _check_unique([u.name for u in file.upstreams], "upstreams", source)
    return Settings(
        server=_with_proxies(_with_redis(file.server, environ), environ),
        keys=keys,
        upstreams=upstreams,
        default_model=file.default_model or environ.get("OPENAI_COMPATIBLE_MODEL") or None,
        allow_private_networks=file.allow_private_networks,
        workspace=file.workspace,
        assistants=file.assistants,
        source=source,
    )


def _with_proxies(server: ServerConfig, environ: Mapping[str, str]) -> ServerConfig:
    proxies = (*server.trusted_proxies, *_listed(environ, "SLUICEGATE_TRUSTED_PROXIES"))
    return msgspec.structs.replace(server, trusted_proxies=proxies)


def _read(path: str) -> tuple[_File, Source]:
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        values, lines = parse(raw)
    except TomlError as error:
        raise SettingsError(f"{path}:{error.line}: {error}") from None
    source = Source(path, lines)
    try:
        return msgspec.convert(values, _File, dec_hook=_secret), source
    except msgspec.ValidationError as error:
        raise _explain(str(error), source) from None


def _secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        if not value.strip():
            raise ValueError("Expected a text that is not empty")
        return Secret(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


# What the patterns of texts mean, by the key; any other pattern is that of a name.
_NAME = "1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit"
_FREE_NAME = "a name without control characters"
_FORMS = {
    "context_window": 'a share such as "40%", or a number of tokens such as 4096',
    "denied_params": "names of fields: letters, digits, `_` and `-`",
    "model": "an upstream's name, a slash, the model's id",
    "public_base_url": "a URL that begins with http:// or https://",
}


def _explain(
    message: str, source: Source, table: KeyPath = (), kind: type[Struct] | None = None
) -> SettingsError:
    """msgspec's `message - at `$.upstreams[0].weight`` as file, line, key and a suggestion.

    `table` and `kind`: what was read is a part of the file, at that path and of that kind.
    """
    what, inner = conversion.split(message)
    path = (*table, *inner)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        known = sorted(kind.__struct_fields__ if kind and not inner else _fields_at(path))
        close = get_close_matches(unknown[1], known, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else f" Known here: {', '.join(known)}."
        return source.error((*path, unknown[1]), f"unknown key.{hint}")
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if missing:
        return source.error(path, f"the key `{missing[1]}` is missing")
    if "matching regex" in what:
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        free = key == "name" and kind is not None
        return source.error(path, f"expected {_FREE_NAME if free else _FORMS.get(key, _NAME)}")
    return source.error(path, conversion.words(what))


def _fields_at(path: KeyPath) -> list[str]:
    kinds: dict[tuple[str | int, ...], type[Struct]] = {(): _File, ("server",): ServerConfig}
    kinds |= {("keys",): KeyConfig, ("upstreams",): UpstreamConfig}
    kind = kinds.get(tuple(part for part in path if isinstance(part, str)))
    return list(kind.__struct_fields__) if kind else []


def _with_redis(server: ServerConfig, environ: Mapping[str, str]) -> ServerConfig:
    url = environ.get("SLUICEGATE_REDIS_URL", "").strip()
    return msgspec.structs.replace(server, redis_url=Secret(url)) if url else server


def _finish_upstream(
    upstream: UpstreamConfig, key: KeyPath, file: _File, source: Source, environ: Mapping[str, str]
) -> UpstreamConfig:
    """Resolve what points elsewhere: the key's variable, the CA file, the common networks."""
    if not upstream.base_url.startswith(("http://", "https://")):
        raise source.error((*key, "base_url"), "expected a URL that begins with http:// or https://")
    api_key = upstream.api_key
    if upstream.api_key_env is not None:
        if api_key is not None:
            raise source.error((*key, "api_key_env"), "set either api_key or api_key_env, not both")
        value = environ.get(upstream.api_key_env, "").strip()
        if not value:
            raise source.error((*key, "api_key_env"), f"the variable {upstream.api_key_env} is not set")
        api_key = Secret(value)
    ca_file = upstream.ca_file
    if ca_file is not None:
        # Relative to the settings file: the working directory of a service is nobody's choice.
        ca_file = str(Path(source.path).parent / ca_file)
        if not Path(ca_file).is_file():
            raise source.error((*key, "ca_file"), f"there is no file {ca_file}")
    tokenizers = {
        model: _tokenizer(name, source, (*key, "tokenizers", model))
        for model, name in upstream.tokenizers.items()
    }
    networks = (*file.allow_private_networks, *upstream.allow_private_networks)
    return msgspec.structs.replace(
        upstream, api_key=api_key, ca_file=ca_file, tokenizers=tokenizers, allow_private_networks=networks
    )


def _tokenizer(name: str, source: Source, key: KeyPath) -> str:
    """An encoding's name as it is; of a file, found from the settings file, its path."""
    if not name.endswith(".json") and "/" not in name:
        return name
    path = (Path(source.path).parent / name).absolute()
    if not path.is_file():
        raise source.error(key, f"there is no file {path}")
    return str(path)


def _env_keys(environ: Mapping[str, str]) -> Sequence[KeyConfig]:
    texts = enumerate(_listed(environ, "SLUICEGATE_API_KEYS"), 1)
    return [KeyConfig(name=f"env-{n}", key=Secret(text)) for n, text in texts]


def _listed(environ: Mapping[str, str], name: str) -> list[str]:
    """The parts of a comma-separated variable."""
    return [text.strip() for text in environ.get(name, "").split(",") if text.strip()]


def _env_upstream(
    environ: Mapping[str, str], others: Sequence[UpstreamConfig], file: _File
) -> Sequence[UpstreamConfig]:
    """The upstream of the two variables, beside those of the file."""
    base_url = environ.get("OPENAI_COMPATIBLE_BASE_URL", "").strip()
    if not base_url:
        return ()
    if not base_url.startswith(("http://", "https://")):
        raise SettingsError("OPENAI_COMPATIBLE_BASE_URL: expected a URL that begins with http:// or https://")
    if any(other.name == _ENV_UPSTREAM for other in others):
        raise SettingsError(
            f"OPENAI_COMPATIBLE_BASE_URL makes an upstream named `{_ENV_UPSTREAM}`, and the settings file "
            "has one of that name too: rename that one or unset the variable"
        )
    api_key = environ.get("OPENAI_COMPATIBLE_API_KEY", "").strip()
    return (
        UpstreamConfig(
            name=_ENV_UPSTREAM,
            base_url=base_url,
            api_key=Secret(api_key) if api_key else None,
            allow_private_networks=file.allow_private_networks,
        ),
    )


def _check_key(key: KeyConfig, before: Sequence[KeyConfig], source: Source, index: int) -> None:
    text = key.key.reveal()
    where: KeyPath = ("keys", index, "key") if ("keys", index) in source.lines else ()
    if len(text) not in _KEY_LENGTHS or not text.isascii() or not text.isprintable() or " " in text:
        raise source.error(
            where, f"the key `{key.name}`: expected 1 to 512 printable ASCII characters without spaces"
        )
    for other in before:
        if other.name == key.name or other.key == key.key:
            raise source.error(where, f"the keys `{other.name}` and `{key.name}` have the same name or text")


def _check_unique(names: Sequence[str], section: str, source: Source) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise source.error((section, index, "name"), f"the name `{name}` is used twice")


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
