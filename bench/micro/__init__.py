"""Measurements of single parts, beside the libraries that do the same."""
