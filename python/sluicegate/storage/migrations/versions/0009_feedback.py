"""What people say of answers."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "quality_feedback",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("correction", sa.Text(), nullable=True),
        sa.Column("answer_score", sa.Integer(), nullable=True),
        sa.Column("assistant", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "request", "owner", name="pk_quality_feedback"),
    )
    columns = ["workspace", "assistant", "at"]
    op.create_index("ix_quality_feedback_assistant", "quality_feedback", columns, unique=False)
    op.create_index("ix_quality_feedback_at", "quality_feedback", ["at"], unique=False)
