"""Alembic's entry: runs the migrations on the connection that `storage/migrate.py` gives it."""

from alembic import context

from sluicegate.storage.schema import metadata

# The caller owns the transaction, so that a migration that fails leaves nothing behind.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
