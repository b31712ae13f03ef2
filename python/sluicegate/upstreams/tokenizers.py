"""Which tokenizer counts for which model of an upstream: from the settings, else by the model's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sluicegate.tokens.encoding import Encoding, for_any_model, get_encoding, load_tokenizer

if TYPE_CHECKING:
    from sluicegate.settings import Settings, UpstreamConfig


class Tokenizers:
    """The tokenizers of one upstream, loaded and checked."""

    __slots__ = ("_by_model",)

    def __init__(self, settings: Settings, upstream: UpstreamConfig) -> None:
        """Raises SettingsError for a name that is no encoding, and for a file that is no tokenizer.

        A large file takes about a second; one that several models name is read once.
        """
        loaded: dict[str, Encoding] = {}
        self._by_model: dict[str, Encoding] = {}
        for model, name in upstream.tokenizers.items():
            if name not in loaded:
                try:
                    # The settings made a path of what is one: it has a slash, an encoding has none.
                    loaded[name] = load_tokenizer(name) if "/" in name else get_encoding(name)
                except (ValueError, OSError) as error:
                    raise settings.upstream_error(upstream.name, str(error), "tokenizers", model) from None
            self._by_model[model] = loaded[name]

    def of(self, model: str) -> Encoding | None:
        """The tokenizer of the upstream's own model name; None: counts are estimates."""
        return self._by_model.get(model) or for_any_model(model)
