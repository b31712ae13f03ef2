"""The part of the Rust core that counts tokens.

A second door to `_core` beside `sluicegate.engine`, which imports asyncio: whoever only counts tokens should
not wait for that.
"""

from sluicegate._core import (
    Counter,
    MessageCount,
    Said,
    Tokenizer,
    count_chat,
    count_prompt,
    encoding_name_for_model,
    encoding_names,
)

__all__ = [
    "Counter",
    "MessageCount",
    "Said",
    "Tokenizer",
    "count_chat",
    "count_prompt",
    "encoding_name_for_model",
    "encoding_names",
]
