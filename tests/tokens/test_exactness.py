"""Ids, counts and texts are exactly tiktoken's."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from token_oracles import NAMES as ENCODINGS

from sluicegate import tokens
from sluicegate.tokens import get_encoding

ODD = [
    "",
    " ",
    "\n \n  \r\n\t x",
    "a" * 1000,
    " " * 1000,
    "\n" * 1000,
    "don't I'LL we'Ve 'tis ''s",
    "1234567890 12 3",
    "你好,世界。これはテストです。안녕하세요 สวัสดี नमस्ते",
    "👩‍👩‍👧‍👦🏳️‍🌈e\u0301\u0301\u0301\u200b\u00a0\u3000x",
    "<|endoftext|> and <|im_start|> <|endofprompt|",
    "HELLOworld HelloWORLD ǅabc ªº ⅷ ① ²",
    '{"a": [1, 2.5e-3, null], "b": "\\u00e9"}',
    "\x00\x01\x7f\ufffd\ufeff\U0010ffff",
]
# Letters, marks, digits, blanks and signs near each other, where patterns decide.
TEXT = (
    st.text(st.sampled_from("aAéЯñ字あ́ 1٣²'sSrelv.,!/\n\r\t\u00a0\u3000<|endoftext|>😀‍\u017f"), max_size=60)
    | st.text()
)


@pytest.mark.parametrize("name", ENCODINGS)
def test_odd_texts(name: str, oracle: Callable[[str], tiktoken.Encoding]) -> None:
    ours, theirs = get_encoding(name), oracle(name)
    for text in ODD:
        ids = theirs.encode_ordinary(text)
        assert ours.encode_ordinary(text) == ids == ours.encode(text), text
        assert ours.count(text) == len(ids), text
        assert ours.decode(ids) == text
        assert ours.decode_bytes(ids) == text.encode()
        assert ours.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")
        assert ours.decode_with_offsets(ids) == theirs.decode_with_offsets(ids)
    assert ours.encode_ordinary_batch(ODD) == theirs.encode_ordinary_batch(ODD)
    assert ours.count_batch(ODD, num_threads=3) == [len(ids) for ids in ours.encode_batch(ODD)]


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_a_long_text_of_many_kinds(name: str, prose: str, oracle: Callable[[str], tiktoken.Encoding]) -> None:
    ours = get_encoding(name)
    ids = oracle(name).encode_ordinary(prose)
    assert ours.encode_ordinary(prose) == ids
    assert ours.count(prose) == len(ids)
    assert ours.encode_to_array(prose) == array("I", ids)
    assert ours.decode(array("I", ids)) == prose


@pytest.mark.parametrize("name", ENCODINGS)
def test_generated_texts(name: str, oracle: Callable[[str], tiktoken.Encoding]) -> None:
    ours, theirs = get_encoding(name), oracle(name)

    @given(TEXT)
    def check(text: str) -> None:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = theirs.encode_ordinary(text)
        assert ours.encode(text) == ids
        assert ours.count(text) == len(ids)
        assert ours.decode(ids) == text
        assert ours.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")

    check()


@pytest.mark.parametrize("name", ENCODINGS)
def test_vocabulary(name: str, oracle: Callable[[str], tiktoken.Encoding]) -> None:
    ours, theirs = get_encoding(name), oracle(name)
    assert (ours.name, ours.n_vocab, ours.max_token_value) == (name, theirs.n_vocab, theirs.max_token_value)
    assert ours.special_tokens == theirs._special_tokens
    assert ours.special_tokens_set == theirs.special_tokens_set
    assert ours.eot_token == theirs.eot_token
    assert ours.is_special_token(ours.eot_token)
    assert not ours.is_special_token(0)
    for token in (0, 255, 256, 20_000, ours.eot_token):
        piece = theirs.decode_single_token_bytes(token)
        assert ours.decode_single_token_bytes(token) == piece
        assert ours.encode_single_token(piece) == token
    assert repr(ours) == repr(theirs)
    assert pickle.loads(pickle.dumps(ours)) is ours


def test_half_surrogates_are_replaced_as_in_tiktoken(oracle: Callable[[str], tiktoken.Encoding]) -> None:
    ours, theirs = get_encoding("o200k_base"), oracle("o200k_base")
    for text in ("a\ud800b", "\ud83d\ude00", "\udc00"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.count(text) == len(theirs.encode(text))


def test_models_have_the_encodings_of_tiktoken() -> None:
    for model in [
        *tiktoken.model.MODEL_TO_ENCODING,
        "gpt-4o-2024-08-06",
        "ft:gpt-4o:x",
        "gpt-oss-20b",
        "o3-mini",
    ]:
        assert tokens.encoding_name_for_model(model) == tiktoken.encoding_name_for_model(model)
    with pytest.raises(KeyError, match="load_tokenizer"):
        tokens.encoding_for_model("qwen3-32b")
    with pytest.raises(ValueError, match="o200k_base"):
        get_encoding("o200k")
    assert set(ENCODINGS) < set(tokens.list_encoding_names())
    assert tokens.encoding_for_model("gpt-4o") is get_encoding("o200k_base")


def test_special_tokens_only_where_asked() -> None:
    encoding = get_encoding("cl100k_base")
    text = "a<|endoftext|>b<|fim_prefix|>"
    assert encoding.eot_token not in encoding.encode(text)
    ids = encoding.encode(text, allowed_special={"<|endoftext|>"})
    assert ids.count(encoding.eot_token) == 1
    assert encoding.special_tokens["<|fim_prefix|>"] not in ids
    assert encoding.encode_batch([text], allowed_special="all") == [
        encoding.encode(text, allowed_special="all")
    ]
    for refused in ("all", {"<|endoftext|>"}, ["<|fim_prefix|>"]):
        with pytest.raises(ValueError, match="special token"):
            encoding.encode(text, disallowed_special=refused)
        with pytest.raises(ValueError, match="special token"):
            encoding.encode_batch(["x", text], disallowed_special=refused)
    assert encoding.encode(text, allowed_special="all", disallowed_special="all")
    with pytest.raises(ValueError, match="fim_prefix"):
        encoding.encode(text, allowed_special={"<|endoftext|>"}, disallowed_special="all")
    with pytest.raises(TypeError):
        encoding.encode(text, allowed_special="<|endoftext|>")


def test_what_cannot_be_done_says_so() -> None:
    encoding = get_encoding("o200k_base")
    with pytest.raises(KeyError, match="201000"):
        encoding.decode([5, 201_000])
    with pytest.raises(KeyError):
        encoding.decode_single_token_bytes(201_000)
    with pytest.raises(KeyError):
        encoding.encode_single_token("no single token")
    with pytest.raises(OverflowError):
        encoding.decode([-1])
    with pytest.raises(TypeError):
        encoding.count(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not one text"):
        encoding.count_batch("text")
    with pytest.raises(TypeError):
        encoding.count_batch(["a", 1])  # type: ignore[list-item]
    with pytest.raises(UnicodeDecodeError):
        encoding.decode(encoding.encode("é")[:1] if len(encoding.encode("é")) > 1 else [0x80 + 94], "strict")
    assert encoding.count_batch([]) == []
