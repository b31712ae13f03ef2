"""The built-in demo upstream: a small OpenAI-compatible server with no model behind it."""
