"""What the scores in usage records come from."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns. On SQLite the records are in files of their own."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE usage_records ADD COLUMN score_method text, ADD COLUMN score_reason text")
