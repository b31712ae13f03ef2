"""Where the answer of a response is in a conversation of its assistant; when a conversation was last used."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("kept_responses", sa.Column("spot", sa.Text(), nullable=True))
    op.add_column("kept_conversations", sa.Column("touched_at", sa.BigInteger(), nullable=True))
