"""Any `tokenizer.json`: the ids of Hugging Face's own library, with the methods of a bundled encoding."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_oracles import trained

from sluicegate.tokens import Encoding, count_messages, load_tokenizer

TEXTS = [
    "",
    "The gateway relays streams; it doesn't stop.",
    "  two  blanks\n\n\tand a tab 12345",
    "你好 e\u0301 👩‍👩‍👧 <|endoftext|> </s>",
    "x" * 500,
]


def test_ids_counts_and_texts(from_file: tuple[Encoding, Any]) -> None:
    ours, theirs = from_file
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids, text
        assert ours.count(text) == len(ids)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    assert ours.count_batch(TEXTS, num_threads=2) == [ours.count(text) for text in TEXTS]
    assert ours.max_token_value == theirs.get_vocab_size() - 1


def test_generated(from_file: tuple[Encoding, Any]) -> None:
    ours, theirs = from_file

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def check(text: str) -> None:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids
        assert ours.count(text) == len(ids)

    check()


def test_special_tokens(from_file: tuple[Encoding, Any]) -> None:
    ours, _ = from_file
    token, number = next(iter(ours.special_tokens.items()))
    text = f"a{token}b"
    assert number not in ours.encode(text)
    assert number in ours.encode(text, allowed_special="all")
    assert number in ours.encode(text, allowed_special={token})
    assert ours.is_special_token(number)
    with pytest.raises(ValueError, match="special token"):
        ours.encode(text, disallowed_special="all")


def test_single_tokens(from_file: tuple[Encoding, Any]) -> None:
    ours, _ = from_file
    for number in range(0, ours.n_vocab, 7):
        piece = ours.decode_single_token_bytes(number)
        assert ours.decode_single_token_bytes(ours.encode_single_token(piece)) == piece
    with pytest.raises(KeyError):
        ours.decode([ours.n_vocab + 5])


def test_cuts_and_counters(from_file: tuple[Encoding, Any]) -> None:
    ours, _ = from_file
    text = "The gateway relays streams 12345; it doesn't stop. 你好 👩‍👩‍👧 " * 20
    for most in (0, 1, 10, 100):
        for cut in (ours.truncate(text, most), ours.truncate(text, most, "start")):
            assert ours.count(cut) <= most
    assert ours.count(ours.truncate(text, 100)) > 95
    assert "".join(ours.split(text, 30)) == text
    counter = ours.counter()
    for character in text:
        counter.feed(character)
    assert counter.total == ours.count(text)


def test_messages_count_with_it(from_file: tuple[Encoding, Any]) -> None:
    ours, _ = from_file
    counted = count_messages([{"role": "user", "content": "Hello"}], model="qwen3-32b", tokenizer=ours)
    assert counted.tokens == 3 + ours.count("user") + ours.count("Hello") + 3
    assert counted.reasons == ("unpublished_model",)
    by_path = count_messages([{"role": "user", "content": "Hello"}], model="qwen3-32b", tokenizer=ours.name)
    assert by_path.tokens == counted.tokens


def test_it_can_be_pickled(from_file: tuple[Encoding, Any]) -> None:
    ours, _ = from_file
    again = pickle.loads(pickle.dumps(ours))
    assert again.name == ours.name
    assert again.encode("Hello there") == ours.encode("Hello there")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        load_tokenizer(tmp_path / "absent.json")
    with pytest.raises(IsADirectoryError):
        load_tokenizer(tmp_path)
    for content in (
        "",
        "{}",
        "[]",
        "\x00",
        json.dumps({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}),
    ):
        file = tmp_path / "bad.json"
        file.write_text(content)
        with pytest.raises(ValueError, match=r"bad\.json"):
            load_tokenizer(file)


def test_a_text_that_was_counted_is_remembered_for_each_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    messages = [{"role": "user", "content": "some words of English and a few more of them " * 2000}]
    found = []
    for text in ("some words of English and a few more of them " * 20, "zzz yyy xxx"):
        trained("byte_level", [text]).save(str(file))
        tokenizer = load_tokenizer(file)
        wanted = tokenizer.count(messages[0]["content"])
        counts = [count_messages(messages, model="m", tokenizer=tokenizer).tokens for _ in range(2)]
        assert counts == [wanted + tokenizer.count("user") + 6] * 2
        found.append(counts[0])
    # Read again after it has changed, the same path is another tokenizer.
    assert found[0] != found[1]
