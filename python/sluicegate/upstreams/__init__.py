"""Upstreams: which server answers, and how each of them is doing."""
