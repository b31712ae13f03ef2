"""An assistant: a named set-up that a client uses as the `model`."""

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct

from sluicegate.limits.model import NO_LIMITS, Limits

ChatHistory = Literal["default_on", "disable_think", "off"]
# How much the model thinks: as the client says, not at all, a level, or so many tokens of it.
Thinking = Annotated[str, Meta(pattern=r"^(inherit|off|low|medium|high|budget:[1-9][0-9]{0,8})\Z")]
# Thinking in answers: as the server sends it, in `reasoning_content`, or not at all.
ReasoningOutput = Literal["pass", "separate", "hide"]

# Any characters but control characters; exact and case-sensitive.
AssistantName = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
# Upstream's name, a slash, the model's id: «local/Qwen/Qwen3-Coder-14B».
ModelRef = Annotated[
    str, Meta(max_length=321, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[^\x00-\x1f\x7f-\x9f]{1,256}\Z")
]
Text = Annotated[str, Meta(max_length=100_000)]
Stop = Annotated[str, Meta(min_length=1, max_length=1000)]
Tokens = Annotated[int, Meta(ge=1, le=100_000_000)]

QualityAction = Literal["flag", "retry", "escalate", "block"]
Script = Literal[
    "latin",
    "cyrillic",
    "greek",
    "arabic",
    "hebrew",
    "devanagari",
    "thai",
    "chinese",
    "japanese",
    "korean",
]
Phrase = Annotated[str, Meta(min_length=1, max_length=500)]

# As a client names it: an assistant, or «upstream/model».
JudgeModel = Annotated[str, Meta(min_length=1, max_length=321, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]


class JudgeSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another model that scores answers."""

    model: JudgeModel
    rubric: Annotated[str, Meta(min_length=1, max_length=20_000)] = (
        "Is the answer correct, complete, and what was asked for? 100: nothing could be better; 0: useless."
    )
    # Of all answers, so many are judged: 0 to 1.
    sample: Annotated[float, Meta(gt=0, le=1)] = 0.1
    # Its score counts before the answer leaves, which waits for it; otherwise it is for the record.
    enforced: bool = False
    # Seconds, and tokens of what it says.
    timeout: Annotated[float, Meta(gt=0, le=600)] = 30.0
    max_tokens: Annotated[int, Meta(ge=16, le=32_000)] = 512
    # It may be the model whose answer it judges.
    same_model: bool = False


# What a client may be locked out of; everything else of an assistant is never the client's to set.
Lockable = Literal[
    "model",
    "system_prompt",
    "temperature",
    "max_tokens",
    "top_p",
    "stop",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "reasoning_effort",
    "thinking",
]
LOCKABLE: tuple[str, ...] = get_args(Lockable)


class AssistantSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one version of an assistant says. None: the assistant has no value of its own."""

    # In order: the first is asked, the rest is fallback.
    model: Annotated[tuple[ModelRef, ...], Meta(min_length=1, max_length=16)]
    description: Annotated[str, Meta(max_length=2000)] = ""
    system_prompt: Text | None = None
    chat_history: ChatHistory = "off"
    # Whether requests that name no conversation continue the last one of their user or key.
    default_thread: bool = True
    # The least score of an answer; 0: answers are not scored.
    quality_score: Annotated[int, Meta(ge=0, le=100)] = 0
    # Below it, or without a score: what happens then.
    quality_action: QualityAction = "flag"
    quality_unscored: Literal["allow", "block"] = "allow"
    # Of streams: scored at their end, held back until then, or until their beginning is checked.
    quality_stream: Literal["observe", "hold", "prefix-hold"] = "observe"
    # Bytes of text that are checked before a stream begins, with «prefix-hold».
    quality_prefix: Annotated[int, Meta(ge=1, le=16_384)] = 400
    # Log-probabilities count as well: asked for upstream, and taken out where the client did not ask.
    quality_logprobs: bool = False
    quality_judge: JudgeSpec | None = None
    # What is checked besides: the script of most letters, texts that must not be there, texts that must be.
    quality_script: Script | None = None
    quality_banned: Annotated[tuple[Phrase, ...], Meta(max_length=64)] = ()
    quality_required: Annotated[tuple[Phrase, ...], Meta(max_length=64)] = ()
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_tokens: Tokens | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: Annotated[tuple[Stop, ...], Meta(max_length=16)] | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[tuple[dict[str, Any], ...], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: int | None = None
    # Counts where `thinking` says nothing.
    reasoning_effort: Annotated[str, Meta(max_length=32)] | None = None
    thinking: Thinking = "inherit"
    reasoning_output: ReasoningOutput = "pass"
    # Of all requests to it together.
    limits: Limits = NO_LIMITS
    # Here the assistant has the last word, also where it has no value; the other fields are defaults.
    locked: frozenset[Lockable] = frozenset()

    @property
    def keeps_history(self) -> bool:
        """Conversations are kept and continued."""
        return self.chat_history != "off"

    @property
    def disables_thinking(self) -> bool:
        """The model is not to think, and what it thinks all the same is neither shown nor kept."""
        return self.chat_history == "disable_think"

    @property
    def defaults(self) -> dict[str, Any]:
        """The request fields that the assistant has a value for, by their names in a request."""
        return {name: value for name in _REQUEST_FIELDS if (value := getattr(self, name)) is not None}


_REQUEST_FIELDS = tuple(name for name in LOCKABLE if name not in ("model", "system_prompt", "thinking"))


class AssistantDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An assistant as it is written: what an update replaces as a whole."""

    name: AssistantName
    spec: AssistantSpec


class Assistant(Struct, frozen=True, kw_only=True):
    """A stored assistant. `version` counts its versions from 1. Times are milliseconds since 1970."""

    id: str
    workspace: str
    name: str
    spec: AssistantSpec
    version: int
    created_at: int
    updated_at: int


class AssistantVersion(Struct, frozen=True, kw_only=True):
    """What an assistant was from `at` on, and who made it so (`by`: an actor, such as `key:key_…`)."""

    version: int
    name: str
    spec: AssistantSpec
    at: int
    by: str
    # The version that a roll back brought again.
    restored_from: int | None = None
