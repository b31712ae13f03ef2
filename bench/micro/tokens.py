"""Counts and encodes beside tiktoken, interleaved, and writes bench/micro/TOKENS.md.

`python -m bench.micro.tokens [--rounds 7] [--megabytes 1] [--corpus FOLDER]`
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tiktoken

from bench.host import facts
from bench.micro.corpora import corpora
from sluicegate.tokens import get_encoding

PAGE = Path(__file__).parent / "TOKENS.md"
ENCODINGS = ("o200k_base", "cl100k_base")
FRESH_ROUNDS = 3
URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
Work = Callable[[str], Any]

# Each in a process of its own: import, load, first pass over the texts on stdin, and memory before and after.
FRESH = """
import json, resource, sys, time
library, name = sys.argv[1:]
texts = json.load(sys.stdin)
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
before, start = rss(), time.perf_counter()
if library == "tiktoken":
    import tiktoken
    imported = time.perf_counter()
    encoding = tiktoken.get_encoding(name)
    count = lambda text: len(encoding.encode_ordinary(text))
else:
    from sluicegate.tokens import get_encoding
    imported = time.perf_counter()
    encoding = get_encoding(name)
    count = encoding.count
count("first")
loaded, memory = time.perf_counter(), rss() - before
cpu = time.process_time()
for text in texts:
    count(text)
first = time.process_time() - cpu
print(json.dumps([imported - start, loaded - imported, memory, first]))
"""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=float, default=1.0, help="of each corpus")
    parser.add_argument(
        "--corpus", type=Path, help="folder with prose.txt, multilingual.txt … instead of the own"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill_cache(Path(folder))
        texts = corpora(asked.corpus, asked.megabytes)
        lines = [line for name in ENCODINGS for line in section(name, texts, asked.rounds)]
    page = "\n".join([*head(asked, texts), *lines]) + "\n"
    print(page)
    PAGE.write_text(page)


def fill_cache(folder: Path) -> None:
    """tiktoken reads its ranks from here: the bundled ones, whose hash it checks."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    for name in ENCODINGS:
        encoding = get_encoding(name)
        lines = []
        for rank in range(encoding.n_vocab):
            try:
                token = encoding.decode_single_token_bytes(rank)
            except KeyError:
                break  # the gap before the special tokens
            if encoding.is_special_token(rank):
                break
            lines.append(base64.b64encode(token) + b" %d\n" % rank)
        (folder / hashlib.sha1(URL.format(name).encode()).hexdigest()).write_bytes(b"".join(lines))


def section(name: str, texts: dict[str, list[str]], rounds: int) -> Iterable[str]:
    """One encoding: tables of steady passes, first passes, and start."""
    ours, theirs = get_encoding(name), tiktoken.get_encoding(name)
    for documents in texts.values():
        assert all(ours.encode(text) == theirs.encode_ordinary(text) for text in documents), "not exact"
    yield f"## {name}"
    yield "MB/s of UTF-8, one thread, CPU time, fastest of the rounds; in brackets the ratio to tiktoken."
    yield ""
    yield "| | " + " | ".join(texts) + " |"
    yield "|---|" + "---|" * len(texts)
    base = theirs.encode_ordinary
    counts = {key: steady(texts[key], (base, ours.count), rounds) for key in texts}
    lists = {key: steady(texts[key], (base, ours.encode_ordinary), rounds) for key in texts}
    arrays = {key: steady(texts[key], (base, ours.encode_to_array), rounds) for key in texts}
    yield row("tiktoken `encode_ordinary`", texts, {key: pair[0] for key, pair in counts.items()})
    yield row("`count`", texts, *columns(counts))
    yield row("`encode_ordinary`", texts, *columns(lists))
    yield row("`encode_to_array`", texts, *columns(arrays))
    fresh = {key: fresh_processes(name, texts[key]) for key in texts}
    passes = {key: (pair[0][3], pair[1][3]) for key, pair in fresh.items()}
    yield row("first pass of a process, tiktoken", texts, {key: pair[0] for key, pair in passes.items()})
    yield row("first pass of a process, `count`", texts, *columns(passes))
    yield ""
    yield "| start of a process | tiktoken | sluicegate.tokens |"
    yield "|---|---|---|"
    best = [[min(pair[at][part] for pair in fresh.values()) for at in (0, 1)] for part in range(3)]
    yield f"| import, ms | {best[0][0] * 1000:.0f} | {best[0][1] * 1000:.0f} |"
    yield f"| load and first count, ms | {best[1][0] * 1000:.0f} | {best[1][1] * 1000:.0f} |"
    yield f"| memory of both, MiB | {best[2][0]:.0f} | {best[2][1]:.0f} |"
    yield ""


def steady(documents: list[str], works: tuple[Work, ...], rounds: int) -> tuple[float, float]:
    """The fastest pass of each, one after the other in each round."""
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for at, work in enumerate(works):
            start = time.process_time()
            for text in documents:
                work(text)
            best[at] = min(best[at], time.process_time() - start)
    return best[0], best[1]


def fresh_processes(name: str, documents: list[str]) -> list[list[float]]:
    """What `first` gives for each library in turns: the least of each figure."""
    rounds = [
        [first(library, name, documents) for library in ("tiktoken", "sluicegate")]
        for _ in range(FRESH_ROUNDS)
    ]
    return [[min(figures) for figures in zip(*one, strict=True)] for one in zip(*rounds, strict=True)]


def first(library: str, name: str, documents: list[str]) -> list[float]:
    """Seconds of import and load, MiB, and seconds of the first pass, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH, library, name],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    figures: list[float] = json.loads(done.stdout)
    return figures


Times = dict[str, float]


def columns(pairs: dict[str, tuple[float, float]]) -> tuple[Times, Times]:
    """The second of each pair, and the first to compare it with."""
    return {key: pair[1] for key, pair in pairs.items()}, {key: pair[0] for key, pair in pairs.items()}


def row(title: str, texts: dict[str, list[str]], times: Times, beside: Times | None = None) -> str:
    cells = []
    for key, documents in texts.items():
        size = sum(len(text.encode()) for text in documents)
        ratio = f" ({beside[key] / times[key]:.1f})" if beside else ""
        cells.append(f"{size / times[key] / 1e6:.1f}{ratio}")
    return f"| {title} | " + " | ".join(cells) + " |"


def head(asked: argparse.Namespace, texts: dict[str, list[str]]) -> list[str]:
    sizes = ", ".join(
        f"{key} {sum(len(t.encode()) for t in all_) / 1e6:.2f} MB" for key, all_ in texts.items()
    )
    return [
        "# Tokens: figures",
        "",
        f"Written by `python -m bench.micro.tokens --rounds {asked.rounds} --megabytes {asked.megabytes:g}`; "
        "do not edit.",
        "",
        "tiktoken and this package read the same ranks and take turns in one process; before anything is "
        "measured, all ids are compared. Texts are documents of 16 KB, save `short`: 2,000 messages of 20 to "
        "2,000 characters, one call each. Prose is Python's language reference and what installed packages "
        "say of themselves, code the standard library, multilingual the translated messages of the system's "
        "programs, chat JSON bodies of the first two. A first pass is the first sight of the texts in a new "
        f"process, after the encoding was loaded: the fastest of {FRESH_ROUNDS} processes.",
        "",
        f"Sizes: {sizes}. tiktoken {tiktoken.__version__}.",
        "",
        "| host | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts().items()),
        "",
    ]


if __name__ == "__main__":
    main()
