"""Oracles: tiktoken fed with the bundled ranks, and tokenizer files trained by Hugging Face's library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiktoken
from tiktoken import registry
from token_oracles import ROOT, URL, ranks_file, trained

from sluicegate.tokens import Encoding, load_tokenizer


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tiktoken.Encoding]]:
    """tiktoken's encoding of a name. It checks the hash of each file, so the bundled ranks are OpenAI's."""
    folder = tmp_path_factory.mktemp("tiktoken")
    patch = pytest.MonkeyPatch()
    patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))

    def load(name: str) -> tiktoken.Encoding:
        ranked = {"p50k_edit": "p50k_base", "o200k_harmony": "o200k_base"}.get(name, name)
        file = folder / hashlib.sha1(URL.format(ranked).encode()).hexdigest()
        if not file.exists():
            file.write_bytes(ranks_file(ranked))
        return registry.get_encoding(name)

    yield load
    patch.undo()


@pytest.fixture(scope="session")
def prose() -> str:
    """All pages of the project, and its sources: 1 to 2 MB of text and code."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("python/**/*.py")]
    files += [*ROOT.glob("rust/*/src/**/*.rs"), *ROOT.glob("tests/**/*.py")]
    return "\n".join(path.read_text() for path in sorted(files))


@pytest.fixture(scope="session", params=["byte_level", "metaspace"])
def from_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Encoding, Any]:
    """A tokenizer from a file, and the same one in Hugging Face's own library."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    made = trained(request.param, [text])
    # A limit that somebody's training left in the file; a count must not end there.
    made.enable_truncation(max_length=5)
    path = tmp_path_factory.mktemp("files") / f"{request.param}.json"
    made.save(str(path))
    made.no_truncation()
    made.encode_special_tokens = True
    return load_tokenizer(path), made
