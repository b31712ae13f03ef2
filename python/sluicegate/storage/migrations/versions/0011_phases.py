"""The phases of requests in usage records."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column. On SQLite the records are in files of their own."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE usage_records ADD COLUMN phases text")
