"""Ids are tiktoken's over every code point and, in the nightly run, over corpora of many megabytes.

`SLUICEGATE_TOKEN_CORPORA=FOLDER` (any tree of UTF-8 files) and `SLUICEGATE_TOKEN_STRINGS=1000000` ask for
the long run; without them this takes some 10 s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import tiktoken
from token_oracles import RANKED

from sluicegate.tokens import get_encoding

CORPORA = os.environ.get("SLUICEGATE_TOKEN_CORPORA")
STRINGS = int(os.environ.get("SLUICEGATE_TOKEN_STRINGS", "3000"))
# Every code point in the long run; else one of 97, a prime, so that each block of Unicode has some.
STEP = 1 if CORPORA else 97
DOCUMENT = 100_000

# Separated by bars; what has a meaning to the patterns stands beside letters of many scripts.
BARRED = (
    "hello|HTTPServer|camelCase|größe|привет|ЁЛКА|Ελληνικά|שלום|مرحبا|你好|世界|カタカナ|한국어|नमस्ते|สวัสดี|"
    "ქართული|ǅ|ʰʲ|Ⅷ|²|½|٣٤٥|0|12|345|6789|a|Z|é|e\u0301|\u0301|\u200d|👍🏽|👨‍👩‍👧|\U0001d400|\0|\x7f|\u00ad|"
    "'s|'t|'re|'LL|'Ve|'\u017f|'|''| |  |\n|\r\n|\n\n|\t|\x0b|\u00a0|\u3000|\u2028|\u0085| \n|/|//|/\n|};\n|"
    "--|...|(|。"
)
SNIPPETS = [*BARRED.split("|"), "<|endoftext|>", "<|", "|>"]


def generated(count: int) -> Iterator[str]:
    random = Random(20_261_124)
    for _ in range(count):
        parts = random.choices(SNIPPETS, k=random.randrange(1, 26))
        parts.insert(random.randrange(len(parts)), random.choice(SNIPPETS) * random.randrange(1, 60))
        yield "".join(parts)


def code_points() -> Iterator[str]:
    for point in range(0, 0x110000, STEP):
        if not 0xD800 <= point < 0xE000:
            c = chr(point)
            yield f"A{c}Bb{c}c 1{c}2  {c}  {c}\n{c}'s!{c}a '{c} {c}{c} 12{c}34 AB{c}\n\n{c}"


def files() -> Iterator[str]:
    for path in sorted(Path(CORPORA or ".").rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode(errors="replace")
            yield from (text[at : at + DOCUMENT] for at in range(0, len(text), DOCUMENT))


def compare(name: str, texts: Iterator[str], oracle: Callable[[str], tiktoken.Encoding]) -> int:
    ours, theirs = get_encoding(name), oracle(name)
    size = 0
    for text in texts:
        ids = theirs.encode_ordinary(text)
        assert ours.encode_ordinary(text) == ids, text
        assert ours.count(text) == len(ids), text
        assert ours.decode(ids) == text
        allowed = theirs.encode(text, allowed_special="all")
        assert ours.encode(text, allowed_special="all") == allowed, text
        size += len(text.encode())
    return size


@pytest.mark.timeout(0 if CORPORA else 60)
@pytest.mark.parametrize("name", RANKED)
def test_code_points_and_generated_strings(name: str, oracle: Callable[[str], tiktoken.Encoding]) -> None:
    assert compare(name, code_points(), oracle) > 500_000
    assert compare(name, generated(STRINGS), oracle) > STRINGS * 50


@pytest.mark.skipif(CORPORA is None, reason="SLUICEGATE_TOKEN_CORPORA names no folder")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", RANKED)
def test_corpora(name: str, oracle: Callable[[str], tiktoken.Encoding]) -> None:
    size = compare(name, files(), oracle)
    assert size >= 30_000_000, "the promise is about at least 30 MB"
