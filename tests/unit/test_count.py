"""Counting prompts: exact where the tokenizer is known, beside the loop, within a time, never twice."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.asgi import request
from fakes.gateway import Made
from sluicegate.chat import count as counting
from sluicegate.chat.count import INLINE_BYTES, SHORT_BYTES, PromptCounter
from sluicegate.chat.window import Prompt, TokenCount, estimate
from sluicegate.settings import UpstreamConfig
from sluicegate.telemetry.logs import Log
from sluicegate.tokens import count_messages, get_encoding

pytestmark = pytest.mark.asyncio

OPENAI = UpstreamConfig(name="u", base_url="https://api.openai.com/v1")


class Lines(io.StringIO):
    """A log to look into."""

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def counter(lines: Lines) -> Iterator[PromptCounter]:
    log = Log(lines)
    made = PromptCounter(log)
    yield made
    made.close()
    log.close()


def chat(text: str, model: str = "gpt-4o", config: UpstreamConfig = OPENAI) -> Prompt:
    return _prompt("chat", {"messages": [{"role": "user", "content": text}]}, model, config)


def completion(body: dict[str, Any], model: str = "gpt-3.5-turbo-instruct") -> Prompt:
    return _prompt("completions", body, model, OPENAI)


def _prompt(operation: Any, fields: dict[str, Any], model: str, config: UpstreamConfig) -> Prompt:
    body = json.dumps({"model": model, **fields}, ensure_ascii=False).encode()
    upstream: Any = SimpleNamespace(name=config.name, config=config)
    return Prompt((upstream, model), operation, body, len(body), 0)


def named(tokenizer: str) -> UpstreamConfig:
    return UpstreamConfig(name="u", base_url="http://u/v1", tokenizers={"m": tokenizer})


@pytest.mark.parametrize("size", [10, INLINE_BYTES, SHORT_BYTES, 300_000])
async def test_a_chat_counts_exactly_whatever_its_length(size: int, counter: PromptCounter) -> None:
    text = ("Ein Wort, eins nach dem andern. " * (size // 32 + 1))[:size]
    want = count_messages([{"role": "user", "content": text}], model="gpt-4o").tokens
    for _ in range(2):
        assert await counter.count(chat(text)) == TokenCount(want, exact=True, counted=True)


async def test_a_tokenizer_that_is_set_counts_what_surrounds_the_text_by_estimate(
    counter: PromptCounter,
) -> None:
    prompt = chat("Hallo Welt " * 50, "m", named("cl100k_base"))
    want = count_messages(
        [{"role": "user", "content": "Hallo Welt " * 50}], model="m", tokenizer="cl100k_base"
    )
    assert await counter.count(prompt) == TokenCount(want.tokens, exact=False, counted=True)


async def test_without_a_tokenizer_the_length_decides_and_the_body_is_not_wanted(
    counter: PromptCounter,
) -> None:
    prompt = chat("x" * 5000, "llama", named("cl100k_base"))
    assert not counter.knows(prompt.candidate)
    assert await counter.count(prompt) == estimate(prompt)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"prompt": "Hello, world!"}, 4),
        ({"prompt": ["Hello, world!", "Hello"]}, 5),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2], [3]]}, 3),
        ({"prompt": ""}, 0),
    ],
)
async def test_a_text_completion_counts_text_and_tokens(
    body: dict[str, Any], tokens: int, counter: PromptCounter
) -> None:
    assert await counter.count(completion(body)) == TokenCount(tokens, exact=True, counted=True)


async def test_a_suffix_counts_too_but_its_marks_are_not_known(counter: PromptCounter) -> None:
    both = await counter.count(completion({"prompt": "Hello, world!", "suffix": "Hello"}))
    assert both == TokenCount(5, exact=False, counted=True)


async def test_what_cannot_be_counted_is_estimated(counter: PromptCounter) -> None:
    broken = chat("")._replace(body=b"[]")
    assert await counter.count(broken) == estimate(broken)


async def test_out_of_time_is_an_estimate(lines: Lines) -> None:
    counter = PromptCounter(Log(lines), budget=0.0005)
    get_encoding("o200k_base")
    # Random enough that each part has to be counted.
    prompt = chat(" ".join(f"{number:x}" for number in range(1_000_000, 1_800_000)))
    begun = time.monotonic()
    assert await counter.count(prompt) == estimate(prompt)
    assert time.monotonic() - begun < 0.5
    counter.close()


async def test_a_long_prompt_leaves_the_loop_alone(
    counter: PromptCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    real = counting.count_prompt

    def watched(*arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return real(*arguments)

    monkeypatch.setattr(counting, "count_prompt", watched)
    await counter.count(chat("x" * INLINE_BYTES))
    await counter.count(chat("y" * SHORT_BYTES))
    await counter.count(chat("short"))
    loop = threading.get_ident()
    assert [thread == loop for thread in threads] == [False, False, True]
    assert threads[0] != threads[1]


async def test_the_line_for_long_prompts_has_an_end(
    counter: PromptCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it prompts are estimated at once; short ones are still counted."""
    await counter.count(chat("load"))
    free, real = threading.Event(), counting.count_prompt

    def held(operation: Any, body: bytes, *rest: Any) -> Any:
        if len(body) > SHORT_BYTES:
            free.wait(30)
        return real(operation, body, *rest)

    monkeypatch.setattr(counting, "count_prompt", held)
    monkeypatch.setattr(counting, "WAITING_BYTES", 2 * SHORT_BYTES)
    long = chat("word " * (SHORT_BYTES // 4))
    waiting = [asyncio.create_task(counter.count(long)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert await counter.count(long) == estimate(long)
    assert (await counter.count(chat("word " * 2000))).exact
    free.set()
    assert all(count.exact for count in await asyncio.gather(*waiting))
    assert (await counter.count(long)).exact


async def test_a_tokenizer_that_is_gone_is_said_once_and_tried_again(
    counter: PromptCounter, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = chat("Hello, world! " * 20, "m", named(str(tmp_path / "secret-name.json")))
    for _ in range(3):
        assert await counter.count(prompt) == estimate(prompt)
    counter._log.close()
    (said,) = lines.records()
    assert (said["event"], said["upstream"], said["model"]) == ("tokenizer_unusable", "u", "m")
    monkeypatch.setattr(counting, "open_tokenizer", lambda _: get_encoding("cl100k_base"))
    assert await counter.count(prompt) == estimate(prompt)
    monkeypatch.setattr(counting, "monotonic", lambda: time.monotonic() + counting.RETRY_SECONDS)
    assert (await counter.count(prompt)).counted


async def test_a_slow_load_makes_nobody_wait_for_long(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    def slow(name: str) -> Any:
        free.wait(30)
        return get_encoding(name)

    monkeypatch.setattr(counting, "open_tokenizer", slow)
    counter = PromptCounter(Log(lines), budget=0.05)
    prompt = chat("Hello, world! " * 20)
    assert await counter.count(prompt) == estimate(prompt)
    free.set()
    # That one went on, and the next request finds it.
    for _ in range(100):
        if (await counter.count(prompt)).exact:
            break
    else:
        raise AssertionError("the tokenizer never came")
    counter.close()


async def test_the_refusal_has_both_numbers_and_says_how_they_came(make: Made) -> None:
    exact = UpstreamConfig(
        name="o", base_url="https://api.openai.com/v1", models=("gpt-4o",), context_lengths={"gpt-4o": 1000}
    )
    set_by_hand = UpstreamConfig(
        name="h",
        base_url="http://h/v1",
        models=("m",),
        context_lengths={"m": 1000},
        tokenizers={"m": "cl100k_base"},
    )
    gateway = make(None, exact, set_by_hand)
    messages = [{"role": "user", "content": "word " * 1200}]
    want = count_messages(messages, model="gpt-4o").tokens
    for model, text in (
        ("gpt-4o", f"your messages have {want} tokens, which"),
        ("m", f"about {want} tokens (their text is counted, what is around it estimated), which"),
    ):
        body = json.dumps({"model": model, "messages": messages}).encode()
        answer = await request(gateway.app, "/v1/chat/completions", body)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 1000 tokens" in answer.error["message"]
        assert text in answer.error["message"]
    # By its length it would have been refused: 6,000 bytes, but 900 tokens.
    fits = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": " " * 6000}]}).encode()
    assert (await request(gateway.app, "/v1/chat/completions", fits)).status == 200
