"""What embeddings take of an assistant: its models alone, as there is nothing to be generated."""

from sluicegate.chat.prepare import Rules

EMBEDDINGS = Rules(
    "embeddings", "embeddings:write", fields=frozenset(), messages=False, streams=False, limits_answer=False
)
