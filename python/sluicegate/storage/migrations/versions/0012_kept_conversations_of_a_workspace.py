"""People list the conversations that clients have made, the newest of a workspace first."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_kept_conversations_workspace_id", "kept_conversations", ["workspace", "id"])
