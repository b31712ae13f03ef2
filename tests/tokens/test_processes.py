"""Tokens in threads, after a fork, in event loops, under Ctrl-C, and 100,000 times."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluicegate.tokens import count_messages, get_encoding

ENCODING = get_encoding("o200k_base")
TEXTS = [f"Text number {n}: don't panic, 你好 {'x' * n}\n" * 40 for n in range(40)]


def run(code: str, timeout: float = 50) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_share_an_encoding() -> None:
    expected = [ENCODING.encode(text) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(ENCODING.encode, TEXTS)) == expected
            assert list(pool.map(ENCODING.count, TEXTS)) == [len(ids) for ids in expected]
    for threads in (1, 2, 8, 1000):
        assert ENCODING.encode_ordinary_batch(TEXTS, num_threads=threads) == expected


def test_a_long_count_lets_other_threads_run() -> None:
    turns, done = 0, threading.Event()

    def count() -> None:
        ENCODING.count("some words to count, " * 2_000_000)
        done.set()

    thread = threading.Thread(target=count)
    thread.start()
    while not done.is_set():
        turns += 1
        done.wait(0.001)
    thread.join()
    # With the GIL held there would be one turn, at the end.
    assert turns > 5


def test_one_counter_in_several_threads() -> None:
    counter = ENCODING.counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(counter.feed, ["word\n"] * 4000))
    assert counter.total == ENCODING.count("word\n" * 4000)


def test_after_a_fork() -> None:
    expected = ENCODING.count_batch(TEXTS, num_threads=2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        same = ENCODING.count_batch(TEXTS, num_threads=2) == expected
        os.write(writer, b"1" if same and get_encoding("cl100k_base").count("a b") == 2 else b"0")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        assert answer.read() == b"1"
    assert os.waitpid(child, 0)[1] == 0


def test_in_several_event_loops() -> None:
    async def count() -> list[int]:
        return await asyncio.gather(*(asyncio.to_thread(ENCODING.count, text) for text in TEXTS))

    expected = [ENCODING.count(text) for text in TEXTS]
    for _ in range(3):
        assert asyncio.run(count()) == expected


INTERRUPTED = """
import os, signal, sys, threading
from sluicegate.tokens import get_encoding, load_tokenizer
encoding = {encoding}
text = {text}
{call}
print("ready", flush=True)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    "call", ["encoding.count(text)", "encoding.encode_to_bytes(text)", "encoding.count_batch([text] * 4)"]
)
def test_ctrl_c_ends_a_long_call(call: str) -> None:
    code = INTERRUPTED.format(
        encoding='get_encoding("o200k_base")', text='"words to count " * 500_000', call=call
    )
    assert run(code).split() == ["ready", "interrupted"]


def test_ctrl_c_in_one_call_of_a_second() -> None:
    """The call itself ends, not only the loop around it."""
    code = """
import os, signal, threading, time
from sluicegate.tokens import get_encoding
encoding = get_encoding("o200k_base")
text = "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(300_000)) * 80
encoding.count("warm")
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    encoding.encode_to_bytes(text)
    print("finished")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(code).strip() == "interrupted"


HUNDRED_MEGABYTES = """
import os, random, signal, threading, time
from sluicegate.tokens import get_encoding
encoding = get_encoding("o200k_base")
encoding.count("warm")
text = "".join(random.Random(1).choices({characters!r}, k=1_000_000)) * 100
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    encoding.count(text)
    print("finished")
except KeyboardInterrupt:
    print("interrupted" if time.monotonic() - begun < 4 else "too late")
"""


@pytest.mark.parametrize("characters", ["abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz     "])
def test_ctrl_c_ends_the_count_of_a_hundred_megabytes(characters: str) -> None:
    """A single piece, and words that nobody knows."""
    assert run(HUNDRED_MEGABYTES.format(characters=characters)).strip() == "interrupted"


PEAK = """
import random
from sluicegate.tokens import get_encoding
encoding = get_encoding("o200k_base")
encoding.count("warm")
text = {text}
def peak():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0])
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()
encoding.count(text)
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "text",
    [
        '"a" * 100_000_000',
        '" " * 100_000_000',
        # Some four million words, all different.
        '"".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz   ", k=30_000_000))',
    ],
)
def test_a_long_count_takes_bounded_memory(text: str) -> None:
    # The tables of pieces that were met have 14 MiB; 100 MB of text, its tokens or its pieces are far more.
    assert int(run(PEAK.format(text=text))) < 20 * 1024


def memory() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def calls() -> None:
    text = "Some text, with don't and 12345 and 你好."
    ids = ENCODING.encode(text)
    ENCODING.count(text)
    ENCODING.decode(ids)
    ENCODING.truncate(text, 4)
    ENCODING.split(text, 5, 1)
    counter = ENCODING.counter()
    counter.feed(text)
    assert counter.total == len(ids)
    count_messages([{"role": "user", "content": text}], model="gpt-4o")
    for wrong in (lambda: ENCODING.decode([1 << 30]), lambda: ENCODING.split(text, 1, 1)):
        refused(wrong)


def refused(wrong: Callable[[], object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        wrong()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_thousand_calls_leak_nothing() -> None:
    for _ in range(500):
        calls()
    gc.collect()
    before = memory()
    for _ in range(10_000):  # ten calls each
        calls()
    gc.collect()
    # A leak of one small object a call would be 5 MB and more.
    assert memory() - before < 4 << 20


def test_the_import_is_light() -> None:
    code = (
        "import sys; import sluicegate.tokens\n"
        "heavy = {'asyncio', 'msgspec', 'orjson', 'typer', 'rich', 'dataclasses'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run(code)


def test_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    ENCODING.count("x" * 100_000)
    assert signal.getsignal(signal.SIGINT) is before
