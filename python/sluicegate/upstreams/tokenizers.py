"""Which tokenizer counts for a model of an upstream: as set, else by the names of OpenAI's models."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sluicegate.storage.errors import InvalidError
from sluicegate.tokens.core import encoding_name_for_model
from sluicegate.tokens.encoding import Encoding, get_encoding, list_encoding_names, load_tokenizer
from sluicegate.upstreams.profile import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sluicegate.settings import Settings, UpstreamConfig

_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_OPENAI_AT_OPENROUTER = "openai/"


def tokenizer_name(upstream: UpstreamConfig, model: str) -> str | None:
    """The encoding, or the path of the file, that counts for the upstream's own model name; None: unknown.

    A name like `gpt-4o` says something only where OpenAI's models are: anybody may call a server's model so.
    """
    named = upstream.tokenizers.get(model)
    if named is not None:
        return named
    return _usual(upstream.kind, upstream.base_url, model)


# Asked for each call: 0.1 us instead of 1.5.
@lru_cache(1024)
def _usual(kind: str | None, base_url: str, model: str) -> str | None:
    found = kind or kind_of(base_url)
    if found == "openrouter" and model.startswith(_OPENAI_AT_OPENROUTER):
        return encoding_name_for_model(model.removeprefix(_OPENAI_AT_OPENROUTER))
    if found == "openai" or _is_azure(base_url):
        return encoding_name_for_model(model)
    return None


def names_file(name: str) -> bool:
    """Whether it is meant as a file of this machine; names of encodings have neither slash nor suffix."""
    return "/" in name or name.endswith(".json")


def require_tokenizers(named: Mapping[str, str]) -> None:
    """That they may be stored: names of encodings, or absolute paths. Opens nothing. Raises InvalidError."""
    for model, name in named.items():
        if names_file(name):
            if not name.startswith("/"):
                raise InvalidError("tokenizers", f"`{model}`: expected an encoding, or an absolute path")
        elif name not in list_encoding_names():
            known = ", ".join(list_encoding_names())
            raise InvalidError(
                "tokenizers", f"`{model}`: expected the path of a tokenizer.json, or one of {known}"
            )


def open_tokenizer(name: str) -> Encoding:
    """The tokenizer of that name. A large file takes about a second.

    Raises ValueError for a name that is no encoding and a file that is no tokenizer, OSError for no file.
    """
    # The settings made a path of what is one: it has a slash, an encoding has none.
    return load_tokenizer(name) if "/" in name else get_encoding(name)


def check_tokenizers(settings: Settings, upstream: UpstreamConfig) -> None:
    """Open each tokenizer that an upstream names, once. Raises SettingsError for what cannot be opened."""
    opened: set[str] = set()
    for model, name in upstream.tokenizers.items():
        if name in opened:
            continue
        try:
            open_tokenizer(name)
        except (ValueError, OSError) as error:
            raise settings.upstream_error(upstream.name, str(error), "tokenizers", model) from None
        opened.add(name)


def _is_azure(base_url: str) -> bool:
    try:
        return (urlsplit(base_url).hostname or "").endswith(_AZURE)
    except ValueError:
        return False
