"""A client key: who it stands for, what it may do, and how it is listed."""

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from sluicegate.keys.secret import Kind, digest, is_mistyped, mint
from sluicegate.limits.model import NO_BUDGET, NO_LIMITS, Budget, Limits

if TYPE_CHECKING:
    from sluicegate.limits.admit import Scope as LimitScope

__all__ = [
    "CLIENT_SCOPES",
    "CLOCK_SKEW_MS",
    "DEFAULT_LIFE_MS",
    "LONGEST_GRACE_MS",
    "Grant",
    "Key",
    "KeyDraft",
    "KeySecret",
    "Principal",
    "Refusal",
    "RoleName",
    "Scope",
    "digest",
    "is_mistyped",
    "mint",
    "principal",
]

Scope = Literal[
    "chat:write",
    "completions:write",
    "embeddings:write",
    "models:read",
    "files:write",
    "usage:read",
    "keys:manage",
    "upstreams:manage",
    "assistants:manage",
    "members:manage",
    "bodies:read",
    "workspaces:manage",
    "audit:read",
    "conversations:read",
    "conversations:manage",
]
# What a key gets that names no scopes: to talk to models.
CLIENT_SCOPES: tuple[Scope, ...] = ("chat:write", "completions:write", "embeddings:write", "models:read")

# Clocks of several machines differ a little: an expiry is that much later.
CLOCK_SKEW_MS = 60_000
# A key that is made without a word about its end has one: a forgotten key must not open things for ever.
DEFAULT_LIFE_MS = 90 * 86_400_000
# A rotation may leave the old secret valid for so long.
LONGEST_GRACE_MS = 7 * 86_400_000

Refusal = Literal["revoked", "workspace_deleted"]
RoleName = Literal["platform_admin", "workspace_admin", "member", "viewer"]
Millis = Annotated[int, Meta(ge=0, le=1 << 53)]


class Principal(Struct, frozen=True, gc=False):
    """Who is calling: one key of one workspace. `id` names the key in logs and reveals nothing.

    `models`: globs over assistants' names and «upstream/model»; None: whatever the workspace allows.
    """

    name: str
    id: str
    workspace: str = "default"
    scopes: tuple[Scope, ...] = CLIENT_SCOPES
    models: tuple[str, ...] | None = None
    kind: Kind = "client"
    # Of an admin key.
    role: RoleName | None = None
    # A key of the settings, which no database knows.
    is_configured: bool = False
    # Its limits, ready to be counted; those of keys of the settings are found by their id.
    limited: "LimitScope | None" = None
    # Which of a stored key's secrets was shown, and its end in milliseconds since 1970: the key's expiry, or
    # the end of the grace period of a secret that was replaced.
    secret: str = ""
    until: int | None = None

    def is_over(self, now_ms: int) -> bool:
        """Whether its time has passed."""
        return self.until is not None and now_ms > self.until + CLOCK_SKEW_MS


def principal(name: str, key: bytes) -> Principal:
    """The principal of a configured key."""
    return Principal(name, f"key_{digest(key).hex()[:12]}", is_configured=True)


def configured_id(key: str) -> str:
    """The id of a configured key."""
    return principal("", key.encode()).id


class Grant(Struct, frozen=True, gc=False):
    """What a secret is worth: `principal`, unless `refused` or its time is over."""

    principal: Principal
    refused: Refusal | None = None


class KeyDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key as written: what an update replaces as a whole. `expires_at`: milliseconds since 1970."""

    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
    scopes: tuple[Scope, ...] = CLIENT_SCOPES
    models: (
        Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=256)] | None
    ) = None
    expires_at: Millis | None = None
    # Of all requests with it; a client key's.
    limits: Limits = NO_LIMITS
    budget: Budget = NO_BUDGET


class KeySecret(Struct, frozen=True, kw_only=True):
    """One of the secrets of a key; during a rotation there are two. Times are milliseconds since 1970."""

    id: str
    last4: str
    created_at: int
    # The end of the grace period of a secret that was replaced.
    not_after: int | None
    last_used_at: int | None


class Key(Struct, frozen=True, kw_only=True):
    """A stored key without its secret text. Times are milliseconds since 1970."""

    id: str
    workspace: str
    name: str
    # The public part of the text: `sk-sg-<kid>-…`.
    kid: str
    kind: Kind
    role: RoleName | None
    scopes: tuple[Scope, ...]
    models: tuple[str, ...] | None
    expires_at: int | None
    revoked_at: int | None
    secrets: tuple[KeySecret, ...]
    created_by: str
    version: int
    created_at: int
    updated_at: int
    limits: Limits = NO_LIMITS
    budget: Budget = NO_BUDGET

    @property
    def last_used_at(self) -> int | None:
        """When any of its secrets was used last, to the minute."""
        return max((s.last_used_at for s in self.secrets if s.last_used_at is not None), default=None)
