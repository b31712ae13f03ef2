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
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

from sluicegate.storage.feedback_table import feedback_table

HEAD = "0009"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


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

# What clients keep over OpenAI's own endpoints. `owner` is the key. Neither it nor the workspace need have a
# row of its own: those of the settings have none.
kept_conversations = Table(
    "kept_conversations",
    metadata,
    _id(),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

kept_responses = Table(
    "kept_responses",
    metadata,
    _id(),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("status", Text, nullable=False),
    # The response before it, which its context begins with; it may have been deleted since.
    Column("previous", Text),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # When the process that works on it said so last.
    Column("touched_at", BigInteger, nullable=False),
    Index("ix_kept_responses_created_at", "created_at"),
)

# Input and output of responses, and what was put into conversations by hand, in the order of `sequence`.
kept_items = Table(
    "kept_items",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    # A client may send an item back, so that the same id comes twice.
    Column("id", Text, nullable=False, index=True),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("response", Text),
    Column("conversation", Text),
    Column("is_input", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_kept_items_response", "response", "sequence"),
    Index("ix_kept_items_conversation", "conversation", "sequence"),
)

kept_chats = Table(
    "kept_chats",
    metadata,
    _id(),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("messages", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_kept_chats_owner", "workspace", "owner", "id"),
    Index("ix_kept_chats_created_at", "created_at"),
)
quality_feedback = feedback_table(metadata)

# Conversations of assistants with chat history. `owner` is the key; it, the assistant and the workspace need
# have no row of their own.
history_threads = Table(
    "history_threads",
    metadata,
    _id(),
    Column("workspace", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("assistant", Text, nullable=False),
    # What a client calls it, with the kind of the name before it; none for one that is found by its messages.
    Column("ref", Text),
    # The same as a client writes it.
    Column("name", Text),
    Column("title", Text, nullable=False),
    # The last complete answer: what a new message follows.
    Column("tip", LargeBinary),
    Column("turns", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("uq_history_threads_ref", "workspace", "owner", "assistant", "ref", unique=True),
    Index("ix_history_threads_workspace_id", "workspace", "id"),
    Index("ix_history_threads_workspace_updated_at", "workspace", "updated_at"),
)

# Each message once for each way that led to it: `chain` is the digest of the conversation up to it, `parent`
# that of the one before it.
history_messages = Table(
    "history_messages",
    metadata,
    Column("chain", LargeBinary, primary_key=True),
    Column("thread", Text, primary_key=True),
    # For people and for lists: in the order in which they came.
    Column("id", Text, nullable=False),
    Column("parent", LargeBinary, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("branch", Text, nullable=False),
    # Whether it is a whole message; an answer that broke off is not.
    Column("complete", Boolean, nullable=False),
    # The message as JSON, and apart from it what the model thought.
    Column("body", Text, nullable=False),
    Column("thoughts", Text),
    # The tools that an answer calls: ids, as JSON.
    Column("calls", Text),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_history_messages_thread_parent", "thread", "parent"),
    Index("ix_history_messages_thread_id", "thread", "id"),
)
