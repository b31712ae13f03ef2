"""The tables of what clients have kept: responses, conversations, chats, chat histories, feedback."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text

from sluicegate.storage.metadata import metadata


def _owned() -> tuple["Column[str]", ...]:
    """An id, and whose it is."""
    return (
        Column("id", Text, primary_key=True),
        Column("workspace", Text, nullable=False),
        Column("owner", Text, nullable=False),
    )


# What clients keep over OpenAI's own endpoints. `owner` is the key. Neither it nor the workspace need have a
# row of its own: those of the settings have none.
kept_conversations = Table(
    "kept_conversations",
    metadata,
    *_owned(),
    Column("metadata", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("touched_at", BigInteger),  # when something was added last; none: not since there is this
    Index("ix_kept_conversations_workspace_id", "workspace", "id"),
)

kept_responses = Table(
    "kept_responses",
    metadata,
    *_owned(),
    Column("status", Text, nullable=False),
    # The response before it, which its context begins with; it may have been deleted since.
    Column("previous", Text),
    # Where an assistant with chat history keeps its answer: thread and digest.
    Column("spot", Text),
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
    *_owned(),
    Column("model", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("messages", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_kept_chats_owner", "workspace", "owner", "id"),
    Index("ix_kept_chats_created_at", "created_at"),
)

# What people say of answers; `request` is in the log of requests, `owner` the key that said it.
quality_feedback = Table(
    "quality_feedback",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("request", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("score", Integer, nullable=False),
    Column("correction", Text),
    Column("answer_score", Integer),
    Column("assistant", Text),
    Column("at", BigInteger, nullable=False),
    Index("ix_quality_feedback_assistant", "workspace", "assistant", "at"),
    Index("ix_quality_feedback_at", "at"),
)

# Conversations of assistants with chat history. `owner` is the key; it, the assistant and the workspace need
# have no row of their own.
history_threads = Table(
    "history_threads",
    metadata,
    *_owned(),
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
