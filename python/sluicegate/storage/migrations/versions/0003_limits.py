"""Limits and budgets of keys; None: there are none."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("keys", sa.Column("limits", sa.Text(), nullable=True))
    op.add_column("keys", sa.Column("budget", sa.Text(), nullable=True))
