"""The first schema: workspaces, keys, upstreams, assistants, members, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the rows that are always there."""
    _platform()
    _tenancy()
    _client_keys()
    _upstream_servers()
    _assistant_versions()
    _records()
    _first_rows()


def _platform() -> None:
    op.create_table(
        "generation",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_generation_one")),
        sa.PrimaryKeyConstraint("id", name="pk_generation"),
    )
    op.create_table(
        "platform_keys",
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("purpose", "version", name="pk_platform_keys"),
    )
    op.create_table(
        "bootstrap_tokens",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_bootstrap_tokens"),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_one")),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )


def _tenancy() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
    )
    op.create_index("ix_workspaces_generation", "workspaces", ["generation"], unique=False)
    op.create_table(
        "data_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_data_keys_workspace"),
        sa.PrimaryKeyConstraint("id", name="pk_data_keys"),
    )
    op.create_index("ix_data_keys_workspace_id", "data_keys", ["workspace", "id"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("login", sa.Text(), nullable=False),
        sa.Column("folded", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("folded", name="uq_users_folded"),
    )
    op.create_table(
        "memberships",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user"], ["users.id"], name="fk_memberships_user"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_memberships_workspace"),
        sa.PrimaryKeyConstraint("workspace", "user", name="pk_memberships"),
    )
    op.create_index("ix_memberships_user", "memberships", ["user"], unique=False)


def _client_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_keys_workspace"),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("kid", name="uq_keys_kid"),
    )
    op.create_index("ix_keys_workspace_id", "keys", ["workspace", "id"], unique=False)
    op.create_index(
        "uq_keys_name",
        "keys",
        ["workspace", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "key_secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("lookup", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("pepper", sa.Integer(), nullable=False),
        sa.Column("last4", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["key"], ["keys.id"], name="fk_key_secrets_key"),
        sa.PrimaryKeyConstraint("id", name="pk_key_secrets"),
        sa.UniqueConstraint("digest", name="uq_key_secrets_digest"),
    )
    op.create_index("ix_key_secrets_key", "key_secrets", ["key"], unique=False)
    op.create_index("ix_key_secrets_lookup", "key_secrets", ["lookup"], unique=False)


def _upstream_servers() -> None:
    op.create_table(
        "upstreams",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("offered_to_all", sa.Boolean(), nullable=False),
        sa.Column("api_key", sa.LargeBinary(), nullable=True),
        sa.Column("key_last4", sa.Text(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=True),
        sa.Column("header_names", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_upstreams_workspace"),
        sa.PrimaryKeyConstraint("id", name="pk_upstreams"),
    )
    op.create_index("ix_upstreams_workspace_id", "upstreams", ["workspace", "id"], unique=False)
    op.create_index(
        "uq_upstreams_name",
        "upstreams",
        ["workspace", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "upstream_offers",
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["upstream"], ["upstreams.id"], name="fk_upstream_offers_upstream"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_upstream_offers_workspace"),
        sa.PrimaryKeyConstraint("upstream", "workspace", name="pk_upstream_offers"),
    )
    op.create_index("ix_upstream_offers_workspace", "upstream_offers", ["workspace"], unique=False)
    op.create_table(
        "discoveries",
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("learned_at", sa.BigInteger(), nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["upstream"], ["upstreams.id"], name="fk_discoveries_upstream"),
        sa.PrimaryKeyConstraint("upstream", name="pk_discoveries"),
    )


def _assistant_versions() -> None:
    op.create_table(
        "assistants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_assistants_workspace"),
        sa.PrimaryKeyConstraint("id", name="pk_assistants"),
    )
    op.create_index("ix_assistants_workspace_id", "assistants", ["workspace", "id"], unique=False)
    op.create_index(
        "uq_assistants_name",
        "assistants",
        ["workspace", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "assistant_versions",
        sa.Column("assistant", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("restored_from", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["assistant"], ["assistants.id"], name="fk_assistant_versions_assistant"),
        sa.PrimaryKeyConstraint("assistant", "version", name="pk_assistant_versions"),
    )
    op.create_table(
        "assistant_models",
        sa.Column("assistant", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["assistant"], ["assistants.id"], name="fk_assistant_models_assistant"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_assistant_models_workspace"),
        sa.PrimaryKeyConstraint("assistant", "position", name="pk_assistant_models"),
    )
    op.create_index(
        "ix_assistant_models_upstream", "assistant_models", ["upstream", "workspace"], unique=False
    )


def _records() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_audit_workspace"),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit"),
    )
    op.create_index("ix_audit_workspace_sequence", "audit", ["workspace", "sequence"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_idempotency_workspace"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"], unique=False)
    op.create_index("uq_idempotency", "idempotency", ["workspace", "actor", "key"], unique=True)


def _first_rows() -> None:
    op.execute("INSERT INTO generation (id, value) VALUES (1, 0)")
    head = sa.table("audit_head", sa.column("id"), sa.column("sequence"), sa.column("link", sa.LargeBinary))
    op.bulk_insert(head, [{"id": 1, "sequence": 0, "link": bytes(32)}])
    op.execute(
        "INSERT INTO workspaces (id, name, settings, generation, version, created_at, updated_at) "
        "VALUES ('_platform', 'Platform', '{}', 0, 1, 0, 0)"
    )
