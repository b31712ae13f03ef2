"""The tables. Times are milliseconds since 1970; `json` columns are text that msgspec wrote.

A change here needs a new file in `migrations/versions` and a new `HEAD`; a test compares both ways. The
tables `usage_*` of PostgreSQL are only there: they have partitions, which SQLAlchemy knows little of.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)

from sluicegate.storage import kept_schema  # noqa: F401 (its tables are of the same database)
from sluicegate.storage.metadata import metadata

# The tables are found by their names.
__all__ = ["HEAD", "metadata"]

HEAD = "0012"


def _id() -> "Column[str]":
    return Column("id", Text, primary_key=True)


def _workspace() -> "Column[str]":
    return Column("workspace", Text, ForeignKey("workspaces.id"), nullable=False)


def _stamps() -> "tuple[Column[int], ...]":
    """What every managed object has: its version for ETags, and when it was made, changed and deleted."""
    return (
        Column("version", Integer, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        Column("deleted_at", BigInteger),
    )


def _unique_name(table: str) -> Index:
    """A deleted object gives its name back."""
    alive = text("deleted_at IS NULL")
    return Index(
        f"uq_{table}_name", "workspace", "name", unique=True, sqlite_where=alive, postgresql_where=alive
    )


# One row: counts the committed changes of configuration.
generation = Table(
    "generation",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one"),
)

workspaces = Table(
    "workspaces",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("settings", Text, nullable=False),
    # The generation of the last change of anything in it: what is cached of the others stays valid.
    Column("generation", BigInteger, nullable=False, index=True),
    *_stamps(),
)

keys = Table(
    "keys",
    metadata,
    _id(),
    _workspace(),
    Column("name", Text, nullable=False),
    Column("kid", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("role", Text),
    Column("scopes", Text, nullable=False),
    Column("models", Text),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("created_by", Text, nullable=False),
    Column("limits", Text),
    Column("budget", Text),
    *_stamps(),
    _unique_name("keys"),
    Index("ix_keys_workspace_id", "workspace", "id"),
)

key_secrets = Table(
    "key_secrets",
    metadata,
    _id(),
    Column("key", Text, ForeignKey("keys.id"), nullable=False, index=True),
    # The kid of the text, or a digest of a text that a person chose.
    Column("lookup", Text, nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    # The version of the pepper in the digest.
    Column("pepper", Integer, nullable=False),
    Column("last4", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("not_after", BigInteger),
    Column("last_used_at", BigInteger),
)

# Sealed by the master key: the peppers of client keys, and the key of the audit chain.
platform_keys = Table(
    "platform_keys",
    metadata,
    Column("purpose", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

data_keys = Table(
    "data_keys",
    metadata,
    _id(),
    _workspace(),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_data_keys_workspace_id", "workspace", "id"),
)

upstreams = Table(
    "upstreams",
    metadata,
    _id(),
    _workspace(),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    # What else an UpstreamDraft holds.
    Column("options", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("offered_to_all", Boolean, nullable=False),
    Column("api_key", LargeBinary),
    Column("key_last4", Text, nullable=False),
    Column("headers", LargeBinary),
    Column("header_names", Text, nullable=False),
    *_stamps(),
    _unique_name("upstreams"),
    Index("ix_upstreams_workspace_id", "workspace", "id"),
)

upstream_offers = Table(
    "upstream_offers",
    metadata,
    Column("upstream", Text, ForeignKey("upstreams.id"), primary_key=True),
    Column("workspace", Text, ForeignKey("workspaces.id"), primary_key=True, index=True),
)

# What a server was found to have; not configuration, so it has no version and no audit.
discoveries = Table(
    "discoveries",
    metadata,
    Column("upstream", Text, ForeignKey("upstreams.id"), primary_key=True),
    Column("models", Text, nullable=False),
    Column("learned_at", BigInteger),
    Column("asked_at", BigInteger),
    Column("error", Text),
    # What was seen in answers of the ways to switch thinking off; as json.
    Column("thinking", Text),
)

assistants = Table(
    "assistants",
    metadata,
    _id(),
    _workspace(),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),
    *_stamps(),
    _unique_name("assistants"),
    Index("ix_assistants_workspace_id", "workspace", "id"),
)

assistant_versions = Table(
    "assistant_versions",
    metadata,
    Column("assistant", Text, ForeignKey("assistants.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("restored_from", Integer),
)

# Which assistants name an upstream, so that one in use is not deleted.
assistant_models = Table(
    "assistant_models",
    metadata,
    Column("assistant", Text, ForeignKey("assistants.id"), primary_key=True),
    Column("position", SmallInteger, primary_key=True),
    _workspace(),
    Column("upstream", Text, nullable=False),
    Index("ix_assistant_models_upstream", "upstream", "workspace"),
)

users = Table(
    "users",
    metadata,
    _id(),
    Column("login", Text, nullable=False),
    # The login without case, which is what has to be unique.
    Column("folded", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("password", Text),
    Column("disabled", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("workspace", Text, ForeignKey("workspaces.id"), primary_key=True),
    Column("user", Text, ForeignKey("users.id"), primary_key=True, index=True),
    Column("role", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    _workspace(),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("request_id", Text),
    Column("link", LargeBinary, nullable=False),
    Index("ix_audit_workspace_sequence", "workspace", "sequence"),
)

# One row: where the chain ends, so that entries cut off at the end are missed.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("link", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one"),
)

# Tokens for the first admin: the digest of each, once and for a short time.
bootstrap_tokens = Table(
    "bootstrap_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
)

# Answers to creations, by the client's Idempotency-Key.
idempotency = Table(
    "idempotency",
    metadata,
    _workspace(),
    Column("actor", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    # The sealed answer: it may hold the text of a new key.
    Column("answer", LargeBinary),
    Column("created_at", BigInteger, nullable=False),
    Index("uq_idempotency", "workspace", "actor", "key", unique=True),
    Index("ix_idempotency_created_at", "created_at"),
)
