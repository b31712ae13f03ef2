"""Tokens: counting, encoding, decoding and cutting texts as OpenAI's models do, and counting chat requests.

```python
from sluicegate.tokens import get_encoding

encoding = get_encoding("o200k_base")
encoding.count("Hello, world!")  # 4
```
"""

from sluicegate.tokens.core import Counter, MessageCount
from sluicegate.tokens.encoding import (
    Encoding,
    encoding_for_model,
    encoding_name_for_model,
    get_encoding,
    list_encoding_names,
    load_tokenizer,
)
from sluicegate.tokens.messages import count_messages, count_request

__all__ = [
    "Counter",
    "Encoding",
    "MessageCount",
    "count_messages",
    "count_request",
    "encoding_for_model",
    "encoding_name_for_model",
    "get_encoding",
    "list_encoding_names",
    "load_tokenizer",
]
