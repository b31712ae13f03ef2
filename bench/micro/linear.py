"""Time of purpose-made input at 1 MB and at 10 MB: `python -m bench.micro.linear [--rounds 7]`.

New text in each round, so nobody knows it yet; and the same text again and again, as a benchmark would do
it. CPU time, the fastest of the rounds, the two sizes in turns.
"""

from __future__ import annotations

import argparse
import base64
import time
from collections.abc import Callable
from random import Random

from sluicegate.tokens import Encoding, get_encoding

MEGABYTE = 1_000_000
SIZES = (MEGABYTE, 10 * MEGABYTE)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
# The ideographs of one block, and all Hangul syllables.
IDEOGRAPHS = [chr(point) for point in range(0x4E00, 0xA000)]
HANGUL = [chr(point) for point in range(0xAC00, 0xD7A4)]


def drawn(characters: str | list[str], width: int) -> Callable[[int, Random], str]:
    """Text of `size` bytes of random characters, each of `width` bytes."""
    return lambda size, random: "".join(random.choices(characters, k=size // width))


def repeated(text: str) -> Callable[[int, Random], str]:
    return lambda size, _: text * (size // len(text.encode()))


TEXTS: dict[str, Callable[[int, Random], str]] = {
    "one letter": repeated("a"),
    "spaces": repeated(" "),
    "line ends": repeated("\n"),
    "base64": lambda size, random: base64.b64encode(random.randbytes(size * 3 // 4)).decode(),
    "emoji joins": repeated(FAMILY + "\u200d"),
    "ideographs, any": drawn(IDEOGRAPHS, 3),
    "ideographs, 1,000": drawn(IDEOGRAPHS[::20], 3),
    "one Chinese sentence": repeated("今天我们一起去北京大学参加人工智能技术研讨会并讨论模型的发展方向"),
    "Hangul": drawn(HANGUL, 3),
    "random letters": drawn(LETTERS, 1),
    "combining marks": repeated("e\u0301\u0302\u0303"),
    "random bytes": lambda size, random: random.randbytes(size * 5 // 9).decode(errors="replace"),
}


def seconds(encoding: Encoding, text: str) -> float:
    begun = time.process_time()
    encoding.count(text)
    return (time.process_time() - begun) / len(text.encode()) * MEGABYTE


def measure(encoding: Encoding, kind: str, rounds: int, *, again: bool) -> tuple[float, float]:
    """Seconds for 1 MB, and what 10 MB take in multiples of it."""
    random = Random(kind)
    best = dict.fromkeys(SIZES, float("inf"))
    texts = {size: TEXTS[kind](size, random) for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            if not again:
                texts[size] = TEXTS[kind](size, random)
            best[size] = min(best[size], seconds(encoding, texts[size]))
    return best[MEGABYTE], 10 * best[SIZES[1]] / best[MEGABYTE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    for name in ("o200k_base", "cl100k_base"):
        encoding = get_encoding(name)
        encoding.count("loaded")
        print(f"| {name} | 1 MB new, ms | 10 MB new | 1 MB again, ms | 10 MB again |\n|---|---|---|---|---|")
        for kind in TEXTS:
            new = measure(encoding, kind, rounds, again=False)
            known = measure(encoding, kind, rounds, again=True)
            cells = (f"{cost * 1000:.1f} | {growth:.1f} times" for cost, growth in (new, known))
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
