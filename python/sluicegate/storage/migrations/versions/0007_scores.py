"""Scores of answers in usage records."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns. On SQLite the records are in files of their own."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE usage_records ADD COLUMN score integer, ADD COLUMN failed_checks text")
