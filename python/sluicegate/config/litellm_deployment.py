"""One deployment of a LiteLLM `model_list`: its server, its model, and the parameters that it sets."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from sluicegate.assistants.model import AssistantName
from sluicegate.config.yaml_text import YamlFile
from sluicegate.toml_lines import Path
from sluicegate.upstreams.profile import kind_of

# How LiteLLM writes «the value of this variable».
ENV = "os.environ/"


class Provider(Struct, frozen=True):
    """What a prefix of `model` stands for. `base_url`: where it is, unless `api_base` says so."""

    kind: str
    base_url: str | None = None
    key: str | None = None


# Those that speak the OpenAI API.
PROVIDERS: dict[str, Provider] = {
    "openai": Provider("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    "text-completion-openai": Provider("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    "custom_openai": Provider("custom"),
    "openai_like": Provider("custom"),
    "litellm_proxy": Provider("custom", None, "LITELLM_PROXY_API_KEY"),
    "hosted_vllm": Provider("vllm", None, "HOSTED_VLLM_API_KEY"),
    "ollama": Provider("ollama", "http://localhost:11434"),
    "ollama_chat": Provider("ollama", "http://localhost:11434"),
    "lm_studio": Provider("lmstudio", None, "LM_STUDIO_API_KEY"),
    "llamafile": Provider("llamacpp", "http://127.0.0.1:8080/v1"),
    "huggingface": Provider("tgi", None, "HUGGINGFACE_API_KEY"),
    "xinference": Provider("custom", "http://127.0.0.1:9997/v1"),
    "openrouter": Provider("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together_ai": Provider("together", "https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "fireworks_ai": Provider("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    "groq": Provider("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "deepseek": Provider("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "mistral": Provider("custom", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "xai": Provider("custom", "https://api.x.ai/v1", "XAI_API_KEY"),
    "perplexity": Provider("custom", "https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "nvidia_nim": Provider("custom", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "cerebras": Provider("custom", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "deepinfra": Provider("custom", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
}
# Defaults of a request, by the same name in an assistant.
_PARAMETERS = (
    *("temperature", "max_tokens", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty"),
    *("response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"),
)
_READ = {
    *("model", "api_base", "base_url", "api_key", "timeout", "stream_timeout", "extra_headers", "headers"),
    *("organization", "weight", "order", "litellm_credential_name", "custom_llm_provider", *_PARAMETERS),
}
_LIMITS = {"rpm", "tpm", "max_parallel_requests", "max_budget", "budget_duration"}
_MODES = (None, "chat", "completion", "embedding", "responses")
# The API wants a path at the end of these servers' addresses, and LiteLLM adds it.
_PATHLESS = ("ollama", "tgi", "vllm", "lmstudio")
_NO_KEY = ("", "none", "null", "empty")
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
# What keys begin with, whatever the header is called.
_SECRET_VALUE = re.compile(r"\s*(bearer|basic|token)\s|\s*(sk|pk|rk|gsk|hf|xai|key|api)[-_]", re.IGNORECASE)


class Deployment(Struct):
    """What one entry says. `upstream_name` is known once the servers are sorted out."""

    name: str
    path: Path
    model: str
    upstream: dict[str, Any]
    parameters: dict[str, Any]
    suggested: str
    context_length: int | None = None
    upstream_name: str = ""

    @property
    def server(self) -> bytes:
        """Equal where one upstream can stand for both."""
        return msgspec.json.encode(self.upstream, order="sorted")

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for all models of its server."""
        return "*" in self.model

    def renamed(self, name: str) -> "Deployment":
        """The same behind another name."""
        return msgspec.structs.replace(self, name=name)


class Notes:
    """Warnings, each with its place in the file."""

    def __init__(self, source: YamlFile) -> None:
        self._source = source
        self.lines: list[str] = []

    def add(self, path: Path, message: str) -> None:
        """Note what is not carried over as it was."""
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        line = f"{self._source.place(path)}: {where}: {message}"
        if line not in self.lines:
            self.lines.append(line)


def read_deployment(
    entry: Any,
    path: Path,
    notes: Notes,
    known: Mapping[str, Any],
    shared: tuple[dict[str, Any], dict[str, Any]],
) -> Deployment | None:
    """One entry; None, and a warning, for what cannot be carried over. `known`: variables and their values.
    `shared`: credentials by name, and parameters that hold where an entry has none.
    """
    name = entry.get("model_name") if isinstance(entry, dict) else None
    given = entry.get("litellm_params") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not isinstance(given, dict) or not isinstance(given.get("model"), str):
        notes.add(path, "left out: expected model_name, and litellm_params with a model")
        return None
    if not _is_name(name) or not _is_name(given["model"]):
        notes.add(path, "left out: expected names of 1 to 256 characters without control characters")
        return None
    credentials, defaults = shared
    borrowed = credentials.get(str(given.get("litellm_credential_name")))
    params = {**defaults, **(borrowed if isinstance(borrowed, dict) else {}), **given}
    provider, model = _provider(params)
    info = entry.get("model_info")
    info = info if isinstance(info, dict) else {}
    if provider is None or info.get("mode") not in _MODES:
        what = "its provider does not speak the OpenAI API" if provider is None else f"mode {info['mode']}"
        notes.add(path, f"`{name}` is left out: {what} ({params['model']})")
        return None
    _warn(params, info, (*path, "litellm_params"), notes)
    base_url = _base_url(params, PROVIDERS[provider], path, notes, known)
    if base_url is None:
        return None
    upstream = _upstream(params, PROVIDERS[provider], base_url, path, notes)
    kind, length = upstream["kind"], info.get("max_input_tokens")
    return Deployment(
        name=name,
        path=path,
        model=model,
        upstream=upstream,
        parameters=_parameters(params),
        suggested=_suggested(provider if kind == PROVIDERS[provider].kind else kind, base_url),
        context_length=length if isinstance(length, int) and length > 0 else None,
    )


def secret_ref(value: Any, variable: str, path: Path, notes: Notes) -> str | None:
    """A reference to a secret; one that stands in the file as text is not copied."""
    text = str(value).strip()
    if text.startswith(ENV):
        return f"env:{text.removeprefix(ENV)}"
    if value is None or text.lower() in _NO_KEY:
        return None
    notes.add(path, f"the secret itself is not copied: set the variable {variable} to it")
    return f"env:{variable}"


def _is_name(text: str) -> bool:
    try:
        msgspec.convert(text, AssistantName)
    except msgspec.ValidationError:
        return False
    return True


def _provider(params: dict[str, Any]) -> tuple[str | None, str]:
    """The provider's name, and the model without it."""
    model = params["model"]
    prefix, slash, rest = model.partition("/")
    named = params.get("custom_llm_provider")
    if isinstance(named, str):
        return (named if named in PROVIDERS else None), rest if prefix == named else model
    if slash and prefix in PROVIDERS:
        return prefix, rest
    if slash and not params.get("api_base"):
        return None, model
    if model.startswith(("claude", "gemini", "command")):
        return None, model
    return ("openai", model) if not slash else (None, model)


def _base_url(
    params: dict[str, Any], provider: Provider, path: Path, notes: Notes, known: Mapping[str, Any]
) -> str | None:
    given = params.get("api_base") or params.get("base_url") or provider.base_url
    where = (*path, "litellm_params", "api_base")
    if isinstance(given, str) and given.startswith(ENV):
        variable = given.removeprefix(ENV)
        given = known.get(variable)
        if not given:
            notes.add(where, f"left out: an address has to be known; set {variable} and import again")
            return None
    try:
        parts = urlsplit(str(given))
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        notes.add(where, "left out: expected a URL that begins with http:// or https://")
        return None
    url = str(given).rstrip("/")
    if parts.path in ("", "/") and provider.kind in _PATHLESS:
        return f"{url}/v1"
    return url


def _upstream(
    params: dict[str, Any], provider: Provider, base_url: str, path: Path, notes: Notes
) -> dict[str, Any]:
    """The keys of an upstream that stand for the server."""
    where: Path = (*path, "litellm_params")
    # `openai/` with an address of one's own is any server that speaks the API.
    own_server = provider.kind == "openai" and base_url != provider.base_url
    kind = kind_of(base_url) if own_server else provider.kind
    values: dict[str, Any] = {"kind": kind, "base_url": base_url}
    variable = re.sub(r"\W", "_", _suggested(kind, base_url)).upper() + "_KEY"
    if "api_key" in params:
        key = secret_ref(params["api_key"], variable, (*where, "api_key"), notes)
    else:
        # What LiteLLM reads where the file has no key, and only for the provider's own address.
        own = provider.key is not None and base_url == provider.base_url
        key = f"env:{provider.key}" if own else None
    if key is not None:
        values["api_key"] = key
    timeouts = {
        ours: float(params[theirs])
        for ours, theirs in (("total", "timeout"), ("first_event", "stream_timeout"))
        if isinstance(params.get(theirs), int | float) and not isinstance(params[theirs], bool)
    }
    if timeouts:
        values["timeouts"] = timeouts
    headers = _headers(params, where, notes)
    if headers:
        values["headers"] = headers
    for ours, theirs in (("weight", "weight"), ("priority", "order")):
        if isinstance(params.get(theirs), int) and not isinstance(params[theirs], bool):
            values[ours] = params[theirs]
    return values


def _headers(params: dict[str, Any], path: Path, notes: Notes) -> dict[str, str]:
    found: dict[str, str] = {}
    given = params.get("extra_headers") or params.get("headers")
    for name, value in (given if isinstance(given, dict) else {}).items():
        ref = _header_ref(name, value, (*path, "extra_headers", name), notes)
        if ref is not None:
            found[name] = ref
    organization = params.get("organization")
    if isinstance(organization, str):
        ref = _header_ref("OpenAI-Organization", organization, (*path, "organization"), notes)
        if ref is not None:
            found["OpenAI-Organization"] = ref
    elif organization is not None:
        notes.add((*path, "organization"), "not carried over: one upstream for each organization is needed")
    return found


def _header_ref(name: str, value: Any, path: Path, notes: Notes) -> str | None:
    """A header's value as the file has it: a reference where it is a secret, by its name or by its look."""
    text = str(value)
    if text.startswith(ENV) or _SECRET_HEADER.search(name) or _SECRET_VALUE.match(text):
        return secret_ref(value, re.sub(r"\W", "_", name).upper(), path, notes)
    return f"text:{text}"


def _parameters(params: dict[str, Any]) -> dict[str, Any]:
    found = {name: params[name] for name in _PARAMETERS if params.get(name) is not None}
    if isinstance(found.get("stop"), str):
        found["stop"] = [found["stop"]]
    return found


def _warn(params: dict[str, Any], info: dict[str, Any], path: Path, notes: Notes) -> None:
    for name in params:
        if name in _LIMITS:
            notes.add(
                (*path, name),
                "not carried over: set `limits` of the upstream, for all of its models",
            )
        elif name not in _READ:
            notes.add((*path, name), "not carried over")
    for name in info:
        if name not in ("mode", "id", "max_input_tokens"):
            notes.add((*path[:-1], "model_info", name), "not carried over")


def _suggested(provider: str, base_url: str) -> str:
    """A name for the upstream: the provider's, with the host where it is the operator's own server."""
    known = PROVIDERS.get(provider)
    if known is not None and known.base_url is not None and base_url.startswith(known.base_url):
        return provider
    host = urlsplit(base_url).netloc
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{provider}-{host}")[:60]
