"""The models that are named when no server could be asked for its own list."""

from typing import Final

# Names that many OpenAI-compatible servers know.
FALLBACK_MODELS: Final = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4-turbo",
    "gpt-3.5-turbo",
    "claude-3-5-sonnet",
    "claude-3-haiku",
    "gemini-pro",
)
FALLBACK_DEFAULT: Final = "gpt-3.5-turbo"
