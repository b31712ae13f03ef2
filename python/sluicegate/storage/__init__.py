"""The database, its schema and migrations, secrets at rest, and cached records."""
