"""What was seen of the ways to tell a model how much to think; what thinking did to an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("discoveries", sa.Column("thinking", sa.Text(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        # On SQLite the records are in files of their own.
        op.execute("ALTER TABLE usage_records ADD COLUMN thinking text")
