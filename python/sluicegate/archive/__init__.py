"""Kept conversations, as people list, read, search, export and delete them."""
