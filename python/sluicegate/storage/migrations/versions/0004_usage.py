"""Usage records on PostgreSQL: partitioned by day. On SQLite they are in files of their own."""

from alembic import op

revision = "0004"
down_revision = "0003"

# The id begins with the time, so a day is a range of ids. Partitions are made by `usage/partition_store.py`.
_RECORDS = """
CREATE TABLE usage_records (
    id bytea NOT NULL PRIMARY KEY,
    workspace text NOT NULL,
    key text NOT NULL,
    operation text NOT NULL,
    stream boolean NOT NULL,
    model text NOT NULL,
    assistant text,
    assistant_version bigint,
    upstream text,
    upstream_model text,
    status integer NOT NULL,
    code text,
    error text,
    attempts bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    source text NOT NULL,
    micros bigint NOT NULL,
    first_us bigint,
    duration_us bigint NOT NULL,
    overhead_us bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    client text,
    finish text,
    conversation text,
    reserved_tokens bigint NOT NULL,
    reserved_micros bigint NOT NULL
) PARTITION BY RANGE (id)
"""
# Texts that are not there are empty: they are a part of the key.
_HOURS = """
CREATE TABLE usage_hours (
    hour bigint NOT NULL,
    workspace text NOT NULL,
    key text NOT NULL,
    assistant text NOT NULL,
    model text NOT NULL,
    upstream text NOT NULL,
    status integer NOT NULL,
    code text NOT NULL,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    micros bigint NOT NULL,
    duration_us bigint NOT NULL,
    PRIMARY KEY (hour, workspace, key, assistant, model, upstream, status, code)
) PARTITION BY RANGE (hour)
"""
_BODIES = """
CREATE TABLE usage_bodies (
    id bytea NOT NULL PRIMARY KEY,
    workspace text NOT NULL,
    request bytea NOT NULL,
    answer bytea NOT NULL,
    cut boolean NOT NULL
) PARTITION BY RANGE (id)
"""


def upgrade() -> None:
    """Make the tables."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(_RECORDS)
    op.execute("CREATE INDEX ix_usage_records_workspace ON usage_records (workspace, id)")
    op.execute("CREATE INDEX ix_usage_records_key ON usage_records (key, id)")
    op.execute(
        "CREATE INDEX ix_usage_records_assistant ON usage_records (assistant, id) WHERE assistant IS NOT NULL"
    )
    op.execute("CREATE INDEX ix_usage_records_failed ON usage_records (id) WHERE code IS NOT NULL")
    op.execute(_HOURS)
    op.execute("CREATE INDEX ix_usage_hours_workspace ON usage_hours (workspace, hour)")
    op.execute(_BODIES)
    op.execute("CREATE INDEX ix_usage_bodies_workspace ON usage_bodies (workspace, id)")
