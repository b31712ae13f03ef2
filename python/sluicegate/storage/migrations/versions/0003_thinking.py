"""What was seen of the ways to tell an upstream's models how much to think."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("discoveries", sa.Column("thinking", sa.Text(), nullable=True))
