"""Conversations of assistants with chat history."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "history_threads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("assistant", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("tip", sa.LargeBinary(), nullable=True),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_history_threads"),
    )
    scope = ["workspace", "owner", "assistant", "ref"]
    op.create_index("uq_history_threads_ref", "history_threads", scope, unique=True)
    op.create_index("ix_history_threads_workspace_id", "history_threads", ["workspace", "id"], unique=False)
    op.create_index(
        "ix_history_threads_workspace_updated_at",
        "history_threads",
        ["workspace", "updated_at"],
        unique=False,
    )
    op.create_table(
        "history_messages",
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("thread", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("parent", sa.LargeBinary(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("thoughts", sa.Text(), nullable=True),
        sa.Column("calls", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "thread", name="pk_history_messages"),
    )
    op.create_index(
        "ix_history_messages_thread_parent", "history_messages", ["thread", "parent"], unique=False
    )
    op.create_index("ix_history_messages_thread_id", "history_messages", ["thread", "id"], unique=False)
