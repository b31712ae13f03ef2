"""Configuration as code: a file, what it would change in the database, and the file of what is there."""
