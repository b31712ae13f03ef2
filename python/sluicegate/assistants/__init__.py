"""Assistants: named set-ups that clients use as models."""
