"""Single parts beside libraries that do the same."""
