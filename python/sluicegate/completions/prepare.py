"""What a text completion takes of an assistant: it has a prompt, but neither messages nor tools."""

from sluicegate.chat.prepare import Rules

COMPLETIONS = Rules(
    "completions",
    "completions:write",
    fields=frozenset({"temperature", "top_p", "stop", "presence_penalty", "frequency_penalty", "seed"}),
    messages=False,
)
