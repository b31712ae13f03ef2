"""Kinds of upstream servers, and what is known of each kind before it was ever asked."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from sluicegate.upstreams.thinking import Way

UpstreamKind = Literal[
    "openai",
    "vllm",
    "ollama",
    "lmstudio",
    "tgi",
    "llamacpp",
    "openrouter",
    "together",
    "fireworks",
    "groq",
    "deepseek",
    "custom",
]

# Where a server tells the length of a model's context.
ContextSource = Literal[
    "max_model_len",  # vLLM: in each card of GET /v1/models
    "context_length",  # OpenRouter, Together and others: in each card of GET /v1/models
    "context_window",  # Groq: in each card
    "max_context_length",  # LM Studio: in each card of GET /api/v0/models
    "ollama_show",  # Ollama: POST /api/show, `model_info."<architecture>.context_length"`
    "llamacpp_meta",  # llama.cpp: `meta.n_ctx` of the card, else GET /props
    "tgi_info",  # TGI: GET /info, `max_total_tokens`
    "none",
]


class Profile(Struct, frozen=True, kw_only=True):
    """The quirks of one kind of server; «custom» assumes nothing but the OpenAI API."""

    # Asked for on «default_base_url»; None: it is the operator's own server.
    default_base_url: str | None = None
    context: ContextSource = "none"
    # Takes `stream_options.include_usage`; None: has to be found out.
    stream_options: bool | None = None
    # The name of the limit on the answer in a request.
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    # The role of the instructions that an assistant puts first.
    system_role: Literal["system", "developer"] = "system"
    # Fields that it answers with an error, so that they are left out.
    denied_params: tuple[str, ...] = ()
    # GET /models lists all that the server has, so that other names need not be asked for.
    lists_everything: bool = True
    # So many alternatives of a token are asked for, where log-probabilities are wanted; 0: it has none.
    top_logprobs: int = 5
    # Loads models on demand: the first event may take minutes.
    loads_on_demand: bool = False
    # Works without a key.
    keyless: bool = False
    # Takes `tools`, and `response_format` with a JSON schema; None: depends on the model.
    tools: bool | None = None
    json_schema: bool | None = None
    # Field of a message that carries thoughts.
    reasoning_field: Literal["reasoning_content", "reasoning", "none"] = "none"
    # How it is told how much to think, the likeliest way first; and whether that is only a guess.
    thinking: tuple[Way, ...] = ("effort",)
    guesses_thinking: bool = False


PROFILES: Mapping[UpstreamKind, Profile] = MappingProxyType(
    {
        "openai": Profile(
            default_base_url="https://api.openai.com/v1",
            stream_options=True,
            max_tokens_field="max_completion_tokens",
            system_role="developer",
            json_schema=True,
            thinking=("effort", "minimal"),
        ),
        "vllm": Profile(
            context="max_model_len",
            stream_options=True,
            keyless=True,
            json_schema=True,
            reasoning_field="reasoning_content",
            thinking=("template", "effort"),
        ),
        "ollama": Profile(
            context="ollama_show",
            stream_options=True,
            loads_on_demand=True,
            keyless=True,
            reasoning_field="reasoning",
            thinking=("effort", "reasoning"),
        ),
        "lmstudio": Profile(
            context="max_context_length",
            top_logprobs=0,
            loads_on_demand=True,
            keyless=True,
            json_schema=True,
            reasoning_field="reasoning_content",
            thinking=("effort", "template"),
        ),
        "tgi": Profile(context="tgi_info", keyless=True, thinking=("template", "effort")),
        "llamacpp": Profile(
            context="llamacpp_meta",
            stream_options=True,
            keyless=True,
            json_schema=True,
            reasoning_field="reasoning_content",
            thinking=("template", "effort"),
        ),
        "openrouter": Profile(
            default_base_url="https://openrouter.ai/api/v1",
            context="context_length",
            stream_options=True,
            reasoning_field="reasoning",
            thinking=("reasoning", "enabled"),
        ),
        "together": Profile(
            default_base_url="https://api.together.xyz/v1",
            context="context_length",
            stream_options=True,
            # Its `logprobs` is a number, and its answers have a shape of their own.
            top_logprobs=0,
            thinking=("enabled", "template", "effort"),
        ),
        "fireworks": Profile(
            default_base_url="https://api.fireworks.ai/inference/v1",
            context="context_length",
            lists_everything=False,
        ),
        "groq": Profile(
            default_base_url="https://api.groq.com/openai/v1",
            context="context_window",
            max_tokens_field="max_completion_tokens",
            denied_params=("logprobs", "logit_bias", "top_logprobs"),
            reasoning_field="reasoning",
        ),
        "deepseek": Profile(
            default_base_url="https://api.deepseek.com/v1",
            stream_options=True,
            json_schema=False,
            reasoning_field="reasoning_content",
            thinking=("type",),
        ),
        "custom": Profile(thinking=("effort", "template", "type", "flag"), guesses_thinking=True),
    }
)


def profile_of(kind: UpstreamKind) -> Profile:
    """What is known of a kind."""
    return PROFILES[kind]


def kind_of(base_url: str) -> UpstreamKind:
    """The kind that the host of a base URL tells; «custom» where it tells none."""
    return _HOSTS.get(_host(base_url), "custom")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


_HOSTS: Mapping[str, UpstreamKind] = {
    _host(profile.default_base_url): kind for kind, profile in PROFILES.items() if profile.default_base_url
}
