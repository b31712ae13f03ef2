"""Microseconds an event from Python: `sluicegate.sse` beside the decoder inside `openai`.

    python -m bench.micro.sse

The decoders in Rust are measured by the crate in `bench/micro/sse`. The stream is made in the same way:
chunks of chat completions in many scripts, in pieces of random sizes; rounds interleaved, minimum of CPU.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from openai._streaming import SSEDecoder

from sluicegate.sse import Decoder, iter_events

WORDS = [
    " the",
    " of",
    "ing",
    ",",
    ".\\n\\n",
    " 你好",
    "世界",
    " مرحبا",
    " привет",
    ' \\"quoted\\"',
    " 😀",
    " नमस्ते",
]
EVENTS = 9_523
ROUNDS = 7
Decode = Callable[[list[bytes]], int]


def stream(rng: random.Random) -> bytes:
    """The bytes of EVENTS chunks."""
    head = (
        'data: {"id":"chatcmpl-00000000000000000000000000007","object":"chat.completion.chunk",'
        '"created":1760000000,"model":"some-model-2026-08-01","service_tier":"default",'
        '"system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":"'
    )
    tail = '"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
    return "".join(f"{head}{rng.choice(WORDS)}{tail}" for _ in range(EVENTS)).encode()


def cut(data: bytes, most: int, rng: random.Random) -> list[bytes]:
    """The bytes in reads of 1 to `most` bytes."""
    reads, at = [], 0
    while at < len(data):
        size = rng.randint(1, most)
        reads.append(data[at : at + size])
        at += size
    return reads


def by_feed(reads: list[bytes]) -> int:
    decoder = Decoder()
    return sum(len(decoder.feed(read)) for read in reads)


def by_iterator(reads: list[bytes]) -> int:
    return sum(1 for _ in iter_events(reads))


def with_text(reads: list[bytes]) -> int:
    """The text of an event is made when it is asked for."""
    return sum(1 for event in iter_events(reads) if event.data)


def by_openai(reads: list[bytes]) -> int:
    return sum(1 for event in SSEDecoder().iter_bytes(iter(reads)) if event.data)


DECODERS: dict[str, Decode] = {
    "Decoder.feed": by_feed,
    "iter_events": by_iterator,
    "iter_events, and the text": with_text,
    "openai": by_openai,
}


def main() -> None:
    rng = random.Random(7)
    data = stream(rng)
    print(f"{EVENTS} events of {len(data) / EVENTS:.0f} B; CPU µs an event, minimum of {ROUNDS} rounds")
    for title, most in (("random 1 B to 8 KB", 8192), ("tiny, 1 to 32 B", 32)):
        reads = cut(data, most, rng)
        best = dict.fromkeys(DECODERS, float("inf"))
        for _ in range(ROUNDS):
            for name, decode in DECODERS.items():
                begun = time.process_time()
                assert decode(reads) == EVENTS
                best[name] = min(best[name], (time.process_time() - begun) / EVENTS * 1e6)
        print(f"reads of {title}:")
        for name, cost in best.items():
            print(f"  {name:26} {cost:8.3f}  openai takes {best['openai'] / cost:5.1f} x")


if __name__ == "__main__":
    main()
