"""Sluicegate: an OpenAI-compatible gateway. Python decides, Rust executes."""

__version__ = "0.1.0"
