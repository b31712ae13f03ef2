"""`Encoding`: one tokenizer with the methods of tiktoken's, and the ways to get one."""

from __future__ import annotations

from array import array
from functools import cache
from os import PathLike, fspath
from typing import TYPE_CHECKING

from sluicegate.tokens import core

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Encoding(core.Tokenizer):
    """A bundled encoding, or a tokenizer from a file: immutable, for any number of threads.

    Get one with `get_encoding`, `encoding_for_model` or `load_tokenizer`. The methods are those of tiktoken,
    with one difference: special tokens in a text are text by default, where tiktoken raises ValueError. Pass
    `disallowed_special="all"` for tiktoken's way.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Encoding {self.name!r}>"

    def __reduce__(self) -> tuple[Callable[[str], Encoding], tuple[str]]:
        return (load_tokenizer if self.is_file else get_encoding, (self.name,))

    @property
    def special_tokens_set(self) -> set[str]:
        """The texts of the special tokens."""
        return set(self.special_tokens)

    @property
    def eot_token(self) -> int:
        """The id of `<|endoftext|>`. Raises KeyError where a tokenizer from a file has none."""
        return self.special_tokens["<|endoftext|>"]

    def is_special_token(self, token: int) -> bool:
        """Is this the id of a special token?"""
        return token in self.special_tokens.values()

    def encode_to_array(self, text: str) -> array[int]:
        """As `encode_ordinary`, as `array("I")`: 4 bytes a token instead of a Python integer each.

        For numpy: `numpy.frombuffer(encoding.encode_to_bytes(text), dtype=numpy.uint32)`.
        """
        return array("I", self.encode_to_bytes(text))

    def decode_batch(self, batch: Sequence[Sequence[int]], *, errors: str = "replace") -> list[str]:
        """`decode` of each list of tokens. On one thread: most of it is reading Python's integers."""
        return [self.decode(tokens, errors) for tokens in batch]

    def decode_bytes_batch(self, batch: Sequence[Sequence[int]]) -> list[bytes]:
        """`decode_bytes` of each list of tokens."""
        return [self.decode_bytes(tokens) for tokens in batch]

    def decode_tokens_bytes(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token. Raises KeyError for an id that is not in the vocabulary."""
        return [self.decode_single_token_bytes(token) for token in tokens]

    def decode_with_offsets(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """The text of tokens, and for each token the index of its first character in it.

        A token that begins inside a character gets the index of that character. Raises UnicodeDecodeError
        where the tokens together are no whole characters, KeyError for an id that is not in the vocabulary.
        """
        pieces = self.decode_tokens_bytes(tokens)
        offsets, length = [], 0
        for piece in pieces:
            inside = piece[:1] and _continues(piece[0])
            offsets.append(max(0, length - bool(inside)))
            length += sum(not _continues(byte) for byte in piece)
        return b"".join(pieces).decode("utf-8"), offsets

    def counter(self) -> core.Counter:
        """A new `Counter` for a text that arrives in parts."""
        return core.Counter(self)


def _continues(byte: int) -> bool:
    """Is this a byte inside a character of UTF-8?"""
    return 0x80 <= byte < 0xC0  # noqa: PLR2004


@cache
def get_encoding(encoding_name: str) -> Encoding:
    """The bundled encoding of that name, made at its first use and shared from then on.

    Raises ValueError for a name that is not one of `list_encoding_names()`.
    """
    return Encoding(encoding_name)


def encoding_for_model(model_name: str) -> Encoding:
    """The encoding of an OpenAI model, by tiktoken's table.

    Raises KeyError for a model that is not in it; see `load_tokenizer` for open models.
    """
    return get_encoding(encoding_name_for_model(model_name))


def encoding_name_for_model(model_name: str) -> str:
    """The name of the encoding of an OpenAI model. Raises KeyError for a model that is not known."""
    name = core.encoding_name_for_model(model_name)
    if name is None:
        raise KeyError(
            f"no encoding is known for the model {model_name!r}: name one with get_encoding(), or load the "
            "model's tokenizer.json with load_tokenizer()"
        )
    return name


def list_encoding_names() -> list[str]:
    """The names of the bundled encodings."""
    return core.encoding_names()


def load_tokenizer(path: str | PathLike[str]) -> Encoding:
    """The tokenizer of an open model (Qwen, Llama, DeepSeek, Mistral …) from its `tokenizer.json`.

    Ids and counts are those of Hugging Face's library without the tokens that it adds around a text, such as
    a `<s>` at the start. Keep the result: a large file takes about a second to load. Raises OSError for a
    file that cannot be read, ValueError for one that is no `tokenizer.json`.
    """
    return Encoding(fspath(path), file=True)


def for_any_model(model: str) -> Encoding | None:
    """The encoding of a model, also of `provider/model`; None where none is known."""
    name = core.encoding_name_for_model(model) or core.encoding_name_for_model(model.rpartition("/")[2])
    return None if name is None else get_encoding(name)


def resolve(tokenizer: Encoding | str | PathLike[str]) -> Encoding:
    """An encoding as it is, by its name, or from the path of a `tokenizer.json`."""
    if isinstance(tokenizer, Encoding):
        return tokenizer
    named = fspath(tokenizer)
    return get_encoding(named) if named in core.encoding_names() else load_tokenizer(named)
