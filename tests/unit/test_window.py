"""The context window: what its length proves, what is counted, refused, and left to the answer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.asgi import Answer, request
from fakes.gateway import FakeGateway, Made
from sluicegate import app as application
from sluicegate.chat.window import (
    BYTES_A_TOKEN,
    MEDIA_TOKENS,
    TEMPLATE_TOKENS,
    Prompt,
    TokenCount,
    estimate,
)
from sluicegate.settings import UpstreamConfig

pytestmark = pytest.mark.asyncio


def upstream(**lengths: int) -> UpstreamConfig:
    return UpstreamConfig(name="u", base_url="http://u/v1", models=("m", "n"), context_lengths=lengths)


async def ask(gateway: FakeGateway, size: int = 10, path: str = "chat/completions", **more: Any) -> Answer:
    text = {"prompt": "x" * size} if path == "completions" else {"messages": [_user("x" * size)]}
    return await request(gateway.app, f"/v1/{path}", json.dumps({"model": "m", **text, **more}).encode())


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def limit(gateway: FakeGateway) -> int | None:
    found = json.loads(gateway.engine.asked[-1].body or b"").get("max_tokens")
    return None if found is None else int(found)


async def test_without_a_known_window_nothing_is_refused(make: Made) -> None:
    gateway = make(None, upstream())
    assert (await ask(gateway, 100_000)).status == 200
    assert limit(gateway) is None


async def test_too_long_says_both_numbers_and_what_to_do(make: Made) -> None:
    gateway = make(None, upstream(m=1000))
    answer = await ask(gateway, 8000)
    assert answer.status == 400
    error = answer.error
    assert (error["code"], error["param"], error["type"]) == (
        "context_length_exceeded",
        "messages",
        "invalid_request_error",
    )
    assert "maximum context length is 1000 tokens" in error["message"]
    assert "about 20" in error["message"]
    assert "estimated" in error["message"]
    assert "Shorten the messages" in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert gateway.engine.asked == []


async def test_a_text_completion_is_checked_as_well(make: Made) -> None:
    answer = await ask(make(None, upstream(m=1000)), 8000, "completions")
    assert (answer.status, answer.error["param"]) == (400, "prompt")
    assert "your prompt has about" in answer.error["message"]


@pytest.mark.parametrize(("window", "most"), [("40%", 400), ("4096", 1000), ("300", 300), (300, 300)])
async def test_the_workspace_may_allow_less_than_the_model(make: Made, window: str | int, most: int) -> None:
    gateway = make(None, upstream(m=1000), workspace={"context_window": window})
    answer = await ask(gateway, 8000)
    assert f"maximum context length is {most} tokens" in answer.error["message"]
    assert ("as this workspace sets it" in answer.error["message"]) == (most < 1000)


async def test_what_the_prompt_leaves_is_the_answers_limit(make: Made) -> None:
    gateway = make(None, upstream(m=10_000), workspace={"context_window": "40%"})
    await ask(gateway, 4000)
    room = limit(gateway)
    # 4,000 bytes and the JSON around them, a quarter of that in tokens, of 4,000.
    assert room is not None
    assert 2900 < room < 3000
    await ask(gateway, 4000, max_tokens=100)
    assert limit(gateway) == 100
    await ask(gateway, 4000, max_tokens=3999)
    assert limit(gateway) == room
    # The model's own window is the upstream's to enforce: nothing is added that nobody set.
    free = make(None, upstream(m=10_000))
    await ask(free, 4000)
    assert limit(free) is None
    await ask(free, 36_000, max_tokens=9_000)
    assert (limit(free) or 0) < 1_100


async def test_a_percentage_of_nothing_is_said_once(make: Made) -> None:
    gateway = make(None, upstream(n=100), workspace={"context_window": "40%"}, access_log=False)
    for _ in range(3):
        assert (await ask(gateway, 100_000)).status == 200
    warned = [line for line in gateway.lines if line["event"] == "context_window_unknown"]
    assert [(line["upstream"], line["model"], line["workspace"]) for line in warned] == [
        ("u", "m", "default")
    ]


async def test_the_next_model_may_have_the_room(make: Made) -> None:
    assistants = ({"name": "a", "model": ["u/m", "u/n"]},)
    gateway = make(None, upstream(m=500, n=100_000), assistants=assistants)
    answer = await ask(gateway, 8000, model="a")
    assert (answer.status, answer.headers["x-upstream-model"]) == (200, "n")
    small = make(None, upstream(m=500, n=600), assistants=assistants)
    refused = await ask(small, 8000, model="a")
    assert "maximum context length is 500" in refused.error["message"]


async def test_an_estimate_counts_bytes_and_pictures() -> None:
    prompt = Prompt((SimpleNamespace(), "m"), "chat", b"", 4001, 2)  # type: ignore[arg-type]
    assert estimate(prompt) == TokenCount(-(-4001 // BYTES_A_TOKEN) + 2 * MEDIA_TOKENS, exact=False)


class Exact:
    """Counts the letters x, and remembers what it was given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def knows(self, candidate: Any) -> bool:
        return bool(candidate[1] == "m")

    async def count(self, prompt: Prompt) -> TokenCount:
        self.bodies.append(prompt.body)
        return TokenCount(prompt.body.count(b"x"), exact=True)

    def meter(self, operation: str, candidate: Any, body: bytes) -> None:
        """Its answers tell what was used."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Exact:
    counter = Exact()
    monkeypatch.setattr(application, "PromptCounter", lambda _: counter)
    return counter


async def test_a_known_tokenizer_counts_the_body_that_goes_up(make: Made, exact: Exact) -> None:
    assistants = ({"name": "a", "model": ["u/m"], "system_prompt": "xx"},)
    gateway = make(None, upstream(m=1000), assistants=assistants)
    answer = await ask(gateway, 999, model="a")
    assert answer.status == 400
    assert "have 1001 tokens," in answer.error["message"]
    assert "estimated" not in answer.error["message"]
    assert (await ask(gateway, 997, model="a")).status == 200
    assert b'"content": "xx"' in exact.bodies[0]
    assert len(exact.bodies) == 2


async def test_an_assistants_tools_are_part_of_the_prompt(make: Made, exact: Exact) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "y" * 2000}}]
    assistants = ({"name": "a", "model": ["u/m"], "tools": tools},)
    gateway = make(None, upstream(m=TEMPLATE_TOKENS + 1000), assistants=assistants)
    await ask(gateway, 100)
    assert exact.bodies == []
    await ask(gateway, 100, model="a")
    assert len(exact.bodies) == 1


async def test_what_its_length_proves_is_not_counted(make: Made, exact: Exact) -> None:
    gateway = make(None, upstream(m=TEMPLATE_TOKENS + 1000))
    assert (await ask(gateway, 900)).status == 200
    assert (await ask(gateway, 500, max_tokens=400)).status == 200
    assert exact.bodies == []
    # A picture's address is short, and what it shows is not.
    assert (await ask(gateway, 500, x_media=1)).status == 200
    assert len(exact.bodies) == 1
