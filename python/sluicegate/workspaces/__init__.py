"""Workspaces: the tenants of a gateway."""
