"""Truncating, splitting and counting in parts: properties that hold for any text."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.tokens import Encoding, get_encoding

O200K = get_encoding("o200k_base")
CL100K = get_encoding("cl100k_base")
ENCODING = st.sampled_from([O200K, CL100K, get_encoding("r50k_base")])
WORDS = st.lists(
    st.sampled_from(
        [
            "the ",
            "quick",
            " fox",
            "don't",
            "12345",
            "\n\n",
            "   ",
            "\t",
            "字字",
            "👩‍👩‍👧",
            "é",
            "!!",
            "\u017f",
            " x",
        ]
    ),
    max_size=40,
).map("".join)
TEXT = WORDS | st.text(max_size=80)


def usable(text: str) -> str:
    """Without half surrogate pairs, which no text that was decoded has."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def boundaries(encoding: Encoding, text: str) -> list[int]:
    """The indexes of characters at which tokens end, in order."""
    data, ends, at = text.encode(), [0], 0
    for piece in encoding.decode_tokens_bytes(encoding.encode(text)):
        at += len(piece)
        if at == len(data) or not 0x80 <= data[at] < 0xC0:
            ends.append(len(data[:at].decode()))
    return ends


@given(ENCODING, TEXT, st.integers(0, 40))
def test_truncate_leaves_the_longest_start_that_fits(encoding: Encoding, text: str, most: int) -> None:
    text = usable(text)
    fitting = [end for end in boundaries(encoding, text) if encoding.count(text[:end]) <= most]
    assert encoding.truncate(text, most) == text[: fitting[-1]]


@given(ENCODING, TEXT, st.integers(0, 40))
def test_truncate_leaves_the_longest_end_that_fits(encoding: Encoding, text: str, most: int) -> None:
    text = usable(text)
    fitting = [start for start in boundaries(encoding, text) if encoding.count(text[start:]) <= most]
    assert encoding.truncate(text, most, side="start") == text[fitting[0] :]


@given(ENCODING, TEXT, st.integers(8, 40), st.integers(0, 7))
def test_chunks_cover_the_text_and_overlap_as_asked(
    encoding: Encoding, text: str, most: int, overlap: int
) -> None:
    text = usable(text)
    chunks = encoding.split(text, most, overlap)
    assert all(chunk and encoding.count(chunk) <= most for chunk in chunks)
    if overlap == 0:
        assert "".join(chunks) == text
        return
    # Where a chunk begins is found from the end of the one before: it shares at most so much with it.
    whole = chunks[0] if chunks else ""
    for chunk in chunks[1:]:
        shared = next(
            length
            for length in range(len(chunk) - 1, -1, -1)
            if whole.endswith(chunk[:length])
            and encoding.count(chunk[:length]) <= overlap
            and text.startswith(whole + chunk[length:])
        )
        whole += chunk[shared:]
    assert whole == text


def test_a_long_text_is_cut_without_being_read_to_its_end() -> None:
    text = "Lorem ipsum dolor sit amet, consectetur. " * 200_000
    start, end = O200K.truncate(text, 1000), O200K.truncate(text, 1000, "start")
    assert O200K.count(start) == O200K.count(end) == 1000
    assert text.startswith(start)
    assert text.endswith(end)
    chunks = O200K.split(text[:400_000], 500, 50)
    assert all(O200K.count(chunk) <= 500 for chunk in chunks)
    assert all(O200K.count(chunk) > 490 for chunk in chunks[:-1])


@pytest.mark.parametrize("unit", ["a", " ", "\n", "字", "👩‍👩‍👧", "=-", "Zalgo\u0301\u0302"])
def test_runs_without_a_break(unit: str) -> None:
    text = unit * 20_000
    assert O200K.count(O200K.truncate(text, 100)) <= 100
    assert O200K.count(O200K.truncate(text, 100, "start")) <= 100
    assert "".join(O200K.split(text, 1000)) == text


def test_what_fits_is_the_same_object() -> None:
    text = "".join(["some ", "text"])
    assert O200K.truncate(text, 1000) is text
    assert O200K.truncate(text, 0) == ""
    assert O200K.split("", 5) == []


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="side"):
        O200K.truncate("text", 5, "left")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        O200K.truncate("text", -1)
    for most, overlap in ((0, 0), (5, 5), (5, 6)):
        with pytest.raises(ValueError, match="overlap"):
            O200K.split("text", most, overlap)
    assert O200K.count("👩‍👩‍👧") > 2
    with pytest.raises(ValueError, match="character at byte 3"):
        CL100K.split("ab \U00013000", 1)


@given(ENCODING, st.lists(TEXT, max_size=12))
def test_a_counter_has_the_count_of_the_joined_text(encoding: Encoding, parts: list[str]) -> None:
    counter, text = encoding.counter(), ""
    for part in map(usable, parts):
        text += part
        counter.feed(part)
        assert counter.total == encoding.count(text)


@settings(max_examples=20)
@given(ENCODING, st.integers(0, 1 << 32), st.integers(1, 300))
def test_a_counter_settles_long_texts(encoding: Encoding, seed: int, size: int) -> None:
    units = [
        "word",
        " and",
        "don't",
        " 1234",
        "\n\n",
        "   ",
        "\t",
        "字。",
        "👩‍👩‍👧",
        "!?/",
        "'s",
        "\r\n",
        " \n ",
        "EndOf",
    ]
    text = "".join(Random(seed).choices(units, k=6000))
    counter = encoding.counter()
    for at in range(0, len(text), size):
        counter.feed(text[at : at + size])
    assert counter.total == encoding.count(text)
    assert counter.kept_bytes < 4096


def test_a_counter_keeps_what_has_no_break_and_stays_exact() -> None:
    for unit in ("a", " ", "\n", "字"):
        counter = O200K.counter()
        for _ in range(300):
            counter.feed(unit * 100)
        assert counter.total == O200K.count(unit * 30_000)
        counter.feed(" end. And more text, in words. " * 200)
        assert counter.total == O200K.count(unit * 30_000 + " end. And more text, in words. " * 200)
        assert counter.kept_bytes < 4096
