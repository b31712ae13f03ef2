"""What each kind of server tells of its models, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.engine import Asked, FakeEngine, FakeFailure, FakeReply, FakeUpstream, failed
from fakes.tenants import listing
from sluicegate.settings import UpstreamConfig
from sluicegate.upstreams.ask import Answer, ask

pytestmark = pytest.mark.asyncio

Replies = dict[str, Any]


async def told(kind: str, replies: Replies, base_url: str = "http://h:1/x/v1") -> Answer:
    """The answer of a server that has these addresses; any other is a 404."""

    def script(asked: Asked) -> FakeReply:
        exact = asked.upstream.options["exact"]
        found = replies.get(asked.upstream.base_url if exact else "list")
        found = found(asked) if callable(found) else found
        if isinstance(found, FakeReply):
            return found
        missing = failed(FakeFailure("model_not_found", 404))
        return missing if found is None else FakeReply(body=json.dumps(found).encode())

    def open_handle(config: UpstreamConfig, *, trusted: bool, exact: str | None = None) -> FakeUpstream:
        assert trusted is False
        return FakeUpstream(exact or config.base_url, exact=exact is not None)

    engine: Any = FakeEngine(script)
    config = UpstreamConfig(name="u", base_url=base_url, kind=kind)
    answer = await ask(engine, open_handle, config, trusted=False)  # type: ignore[arg-type]
    for asked in engine.asked:
        assert asked.operation == "models"
        assert asked.options == {"first_event_timeout": 5.0, "total_timeout": 5.0}
    return answer


def shown(asked: Asked) -> Any:
    lengths = {"a": ("llama", 8192), "b": ("qwen2", 32768)}
    name = json.loads(asked.body or b"")["model"]
    if name not in lengths:
        return {"model_info": 5, "capabilities": "no list"}
    family, length = lengths[name]
    info = {"general.architecture": family, f"{family}.context_length": length, f"{family}.block_count": 2}
    return {"model_info": info, "capabilities": ["completion", "tools", 7]}


LM_STUDIO = {
    "data": [
        {"id": "a", "type": "vlm", "max_context_length": 32768, "loaded_context_length": 4096},
        {"id": "b", "type": "embeddings", "max_context_length": 512},
        {"id": "elsewhere", "max_context_length": 5},
        {"id": 7},
        None,
    ]
}

KINDS: list[tuple[str, Replies, list[tuple[str, int | None, tuple[str, ...]]]]] = [
    ("vllm", {"list": listing({"id": "a", "max_model_len": 40960})}, [("a", 40960, ())]),
    (
        "openrouter",
        {"list": listing({"id": "a", "context_length": 200000}, "b")},
        [("a", 200000, ()), ("b", None, ())],
    ),
    ("groq", {"list": listing({"id": "a", "context_window": 131072})}, [("a", 131072, ())]),
    ("llamacpp", {"list": listing({"id": "a", "meta": {"n_ctx": 2048}})}, [("a", 2048, ())]),
    (
        "llamacpp",
        {"list": listing("a"), "http://h:1/x/props": {"default_generation_settings": {"n_ctx": 4096}}},
        [("a", 4096, ())],
    ),
    (
        "llamacpp",
        {"list": listing("a"), "http://h:1/x/props": {"default_generation_settings": []}},
        [("a", None, ())],
    ),
    ("tgi", {"list": listing("a"), "http://h:1/x/info": {"max_total_tokens": 4095}}, [("a", 4095, ())]),
    ("tgi", {"list": listing("a"), "http://h:1/x/info": {"max_total_tokens": True}}, [("a", None, ())]),
    ("tgi", {"http://h:1/x/info": {"model_id": "org/a", "max_total_tokens": 4095}}, [("org/a", 4095, ())]),
    (
        "ollama",
        {"list": listing("a", "b", "c"), "http://h:1/x/api/show": shown},
        [("a", 8192, ("completion", "tools")), ("b", 32768, ("completion", "tools")), ("c", None, ())],
    ),
    ("ollama", {"list": listing("a")}, [("a", None, ())]),
    (
        "lmstudio",
        {"list": listing("a", "b"), "http://h:1/x/api/v0/models": LM_STUDIO},
        [("a", 4096, ("vision",)), ("b", 512, ("embeddings",))],
    ),
    (
        "lmstudio",
        {"list": listing("a"), "http://h:1/x/api/v0/models": FakeReply(body=b"[[")},
        [("a", None, ())],
    ),
    ("custom", {"list": listing("a", "a", "x" * 300, "b\n")}, [("a", None, ())]),
]


@pytest.mark.parametrize(("kind", "replies", "expected"), KINDS)
async def test_what_a_kind_tells(kind: str, replies: Replies, expected: Any) -> None:
    answer = await told(kind, replies)
    assert answer.models is not None
    assert [(m.model, m.context_length, m.abilities) for m in answer.models] == expected
    assert answer.error is None


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (failed(FakeFailure("upstream_timeout")), "upstream_timeout"),
        (FakeReply(body=b"<html>"), "upstream_invalid_answer"),
        (FakeReply(body=b'{"data":5}'), "upstream_invalid_answer"),
        (listing(), "upstream_empty"),
        (failed(FakeFailure("model_not_found", 404)), "model_not_found"),
    ],
)
async def test_a_server_that_tells_nothing(reply: FakeReply, error: str) -> None:
    assert await told("vllm", {"list": reply}) == (None, error)


async def test_an_address_that_is_none() -> None:
    assert await told("vllm", {}, "http://bad") == (None, "upstream_invalid_settings")
