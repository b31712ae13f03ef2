"""A workspace (tenant): its id, its name and its settings."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from sluicegate.ids import PLATFORM
from sluicegate.limits.model import NO_BUDGET, NO_LIMITS, Budget, Limits

__all__ = ["DEFAULT", "PLATFORM", "ContextWindow", "Workspace", "WorkspaceDraft", "WorkspaceSettings"]

# The workspace of the two environment variables and of a settings file without workspaces.
DEFAULT = "default"

WorkspaceId = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
# Of an upstream: a slash would end it in «upstream/model».
UpstreamName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
# `*` and `?` stand for any text and any character: «local/Qwen/*».
ModelGlob = Annotated[str, Meta(min_length=1, max_length=256)]
Tokens = Annotated[int, Meta(ge=1, le=100_000_000)]
Window = Annotated[str, Meta(pattern=r"^([1-9][0-9]{0,7}|[1-9][0-9]?%|100%)\Z")]
Days = Annotated[int, Meta(ge=0, le=36_500)]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?\Z", max_length=2048)]


class ContextWindow(Struct, frozen=True):
    """How much of a model's window may be used: `percent` of it, or a number of `tokens`; one is set."""

    percent: int | None = None
    tokens: int | None = None

    @staticmethod
    def of(text: str) -> "ContextWindow":
        """Read «40%» or «4096»; raises ValueError for anything else."""
        window = msgspec.convert(text, Window)
        number = int(window.removesuffix("%"))
        return ContextWindow(percent=number) if window.endswith("%") else ContextWindow(tokens=number)

    def resolve(self, model_window: int | None) -> int | None:
        """Tokens that prompt and answer may have together; None where a percentage meets an unknown window.

        A number above the model's own window is cut to it.
        """
        if self.percent is not None:
            return None if model_window is None else max(model_window * self.percent // 100, 1)
        if self.tokens is None or model_window is None:
            return self.tokens
        return min(self.tokens, model_window)

    def __str__(self) -> str:
        return f"{self.percent}%" if self.percent is not None else str(self.tokens)


class BodyRules(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether requests and answers are kept for the log: what people write, so only where it is wanted."""

    # 0: not at all.
    days: Annotated[int, Meta(ge=0, le=365)] = 0
    # Of a request, and of an answer.
    max_bytes: Annotated[int, Meta(ge=256, le=1024 * 1024)] = 64 * 1024


NO_BODIES = BodyRules()


class WorkspaceSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator or a workspace's admin sets. None: no rule of this workspace."""

    # What people are shown as the base URL for their clients.
    public_base_url: Url | None = None
    # «40%» of the model's window, or «4096» tokens; see `window`.
    context_window: Window | None = None
    # Most tokens of an answer.
    max_tokens: Tokens | None = None
    # Where a plain model is asked for without an upstream's name.
    default_upstream: UpstreamName | None = None
    # Of «upstream/model»; None: every model of every upstream that the workspace may use.
    allowed_models: tuple[ModelGlob, ...] | None = None
    # Whether models may be called beside assistants.
    plain_models: bool = True
    # Of all its requests together.
    limits: Limits = NO_LIMITS
    budget: Budget = NO_BUDGET
    # Days that conversations and request logs are kept; 0: not at all.
    retention_days: Days | None = None
    bodies: BodyRules = NO_BODIES

    @property
    def window(self) -> ContextWindow | None:
        """`context_window`, read."""
        return None if self.context_window is None else ContextWindow.of(self.context_window)


class WorkspaceDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A workspace as it is written: what an update replaces as a whole."""

    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
    settings: WorkspaceSettings = WorkspaceSettings()


class Workspace(Struct, frozen=True, kw_only=True):
    """A stored workspace. Times are milliseconds since 1970; `version` grows with each change."""

    id: str
    name: str
    settings: WorkspaceSettings
    version: int
    created_at: int
    updated_at: int
