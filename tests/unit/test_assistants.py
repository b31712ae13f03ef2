"""Assistants as models: names, what is put into their requests, fallback, and what nobody may learn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.asgi import Answer, request
from fakes.engine import Asked, FakeFailure, FakeReply, failed
from fakes.gateway import FakeGateway, Made
from sluicegate.settings import UpstreamConfig

pytestmark = pytest.mark.asyncio

LOCAL = UpstreamConfig(name="local", base_url="http://local/v1", models=("org/big", "small"))
RENTED = UpstreamConfig(name="rented", base_url="https://api.openai.com/v1", models=("gpt",))
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
CODER: dict[str, Any] = {
    "name": "Coder 14B / test",
    "model": ["local/org/big", "rented/gpt"],
    "system_prompt": "You write code.",
    "temperature": 0.0,
    "max_tokens": 512,
    "locked": ["temperature"],
}


def body(model: str = CODER["name"], **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": HELLO, **more}).encode()


def sent(gateway: FakeGateway, number: int = 0) -> dict[str, Any]:
    return dict(json.loads(gateway.engine.asked[number].body or b""))


async def ask(gateway: FakeGateway, model: str = CODER["name"], **more: Any) -> Answer:
    return await request(gateway.app, body=body(model, **more))


def answering(name: str) -> Any:
    """Everybody fails but the upstream with this host."""
    return lambda a: FakeReply() if name in a.upstream.base_url else failed()


async def test_an_assistant_is_a_model(make: Made) -> None:
    gateway = make(None, LOCAL, RENTED, assistants=(CODER,))
    answer = await ask(gateway, temperature=1.5, seed=3)
    assert answer.status == 200
    assert answer.headers["x-upstream-model"] == "org/big"
    assert sent(gateway) == {
        "model": "org/big",
        "messages": [{"role": "system", "content": "You write code."}, *HELLO],
        "temperature": 0.0,
        "max_tokens": 512,
        "seed": 3,
    }
    assert gateway.engine.asked[0].options["public_model"] == CODER["name"]


async def test_the_upstreams_profile_names_role_and_limit(make: Made) -> None:
    gateway = make(answering("openai.com"), LOCAL, RENTED, assistants=(CODER,))
    answer = await ask(gateway)
    assert (answer.status, answer.headers["x-upstream-model"]) == (200, "gpt")
    assert sent(gateway, 1)["messages"][0] == {"role": "developer", "content": "You write code."}
    assert sent(gateway, 1)["max_completion_tokens"] == 512
    assert "max_tokens" not in sent(gateway, 1)


@pytest.mark.parametrize(
    ("workspace", "assistant", "client", "goes_up"),
    [
        (None, None, None, None),
        (None, None, 9, 9),
        (100, None, None, 100),
        (100, None, 200, 100),
        (100, 50, 200, 50),
        (100, 50, 20, 20),
        (20, 50, 200, 20),
        (None, (50, "locked"), 20, 50),
        (30, (50, "locked"), 20, 30),
    ],
)
async def test_the_least_limit_holds(
    make: Made, workspace: int | None, assistant: Any, client: int | None, goes_up: int | None
) -> None:
    spec: dict[str, Any] = {"name": "a", "model": ["local/small"]}
    if isinstance(assistant, tuple):
        spec |= {"max_tokens": assistant[0], "locked": ["max_tokens"]}
    elif assistant is not None:
        spec["max_tokens"] = assistant
    settings = {} if workspace is None else {"max_tokens": workspace}
    gateway = make(None, LOCAL, assistants=(spec,), workspace=settings)
    await ask(gateway, "a", **({} if client is None else {"max_tokens": client}))
    assert sent(gateway).get("max_tokens") == goes_up


async def test_locked_without_a_value_is_nobodys(make: Made) -> None:
    spec = {"name": "a", "model": ["local/small"], "locked": ["temperature", "max_tokens"]}
    gateway = make(None, LOCAL, assistants=(spec,))
    answer = await ask(gateway, "a", temperature=1, max_tokens=7, top_p=0.5)
    assert sent(gateway) == {"model": "small", "messages": HELLO, "top_p": 0.5}
    assert answer.headers["x-dropped-params"] == "max_tokens, temperature"


async def test_a_denied_field_is_left_out_and_named(make: Made) -> None:
    strict = UpstreamConfig(name="s", base_url="http://s/v1", models=("m",), denied_params=("logit_bias",))
    gateway = make(None, strict)
    answer = await ask(gateway, "m", logit_bias={}, seed=1)
    assert "logit_bias" not in sent(gateway)
    assert answer.headers["x-dropped-params"] == "logit_bias"
    groq = UpstreamConfig(name="g", base_url="https://api.groq.com/openai/v1", models=("m",))
    gateway = make(None, groq)
    await ask(gateway, "m", logprobs=True)
    assert "logprobs" not in sent(gateway)
    assert "x-dropped-params" not in (await ask(gateway, "m")).headers


async def test_plain_models_stand_beside_it_or_not(make: Made) -> None:
    gateway = make(None, LOCAL, RENTED, assistants=(CODER,))
    for model in ("small", "local/small", "org/big", "local/org/big"):
        assert (await ask(gateway, model)).status == 200
    assert {sent(gateway, n)["model"] for n in range(4)} == {"small", "org/big"}
    alone = make(None, LOCAL, RENTED, assistants=(CODER,), workspace={"plain_models": False})
    assert (await ask(alone, "small")).status == 404
    assert (await ask(alone)).status == 200
    some = make(None, LOCAL, RENTED, assistants=(CODER,), workspace={"allowed_models": ["local/org/*"]})
    assert (await ask(some, "org/big")).status == 200
    refused = await ask(some, "small")
    # What the workspace does not allow looks like what nobody has.
    assert refused.status == 404
    assert refused.error["message"] == (await ask(some, "xmall")).error["message"].replace("xmall", "small")


@pytest.mark.parametrize("wrong", ["coder 14b / test", "CODER 14B / TEST"])
async def test_a_404_says_whether_only_the_case_differs(make: Made, wrong: str) -> None:
    open_list = UpstreamConfig(name="open", base_url="http://open/v1")
    for upstreams in ((LOCAL, RENTED), (LOCAL, RENTED, open_list)):
        gateway = make(None, *upstreams, assistants=(CODER,))
        answer = await ask(gateway, wrong)
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert f"`{CODER['name']}` does" in answer.error["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert gateway.engine.asked == []


async def test_a_name_that_was_passed_on_gets_the_same_help(make: Made) -> None:
    unknown = FakeFailure(
        "model_not_found", 404, "invalid_request_error", "model_not_found", "No such model."
    )
    open_list = UpstreamConfig(name="open", base_url="http://open/v1")
    gateway = make(failed(unknown), LOCAL, open_list)
    answer = await ask(gateway, "SMALL")
    assert answer.status == 404
    assert "`small` does" in answer.error["message"]
    assert (await ask(gateway, "other")).error["message"] == "No such model."


async def test_a_key_uses_what_its_patterns_say(make: Made) -> None:
    gateway = make(None, LOCAL, RENTED, assistants=(CODER,), models=("local/small", "rented/*"))
    assert (await ask(gateway, "small")).status == 200
    assert (await ask(gateway, "gpt")).status == 200
    for model in ("org/big", CODER["name"]):
        answer = await ask(gateway, model)
        assert (answer.status, answer.error["code"], answer.error["param"]) == (
            403,
            "model_not_allowed",
            "model",
        )
        assert answer.error["type"] == "permission_error"
    # Of names that it may not use, not even the case is told.
    hidden = await ask(gateway, CODER["name"].lower())
    assert hidden.status == 404
    assert CODER["name"] not in hidden.error["message"]
    listed = await request(gateway.app, "/v1/models", method="GET", body=b"")
    assert [card["id"] for card in listed.json["data"]] == ["small", "gpt"]


async def test_the_list_begins_with_the_assistants(make: Made) -> None:
    local = UpstreamConfig(
        name="local", base_url="http://l/v1", models=("org/big",), context_lengths={"org/big": 1000}
    )
    gateway = make(None, local, RENTED, assistants=(CODER,), workspace={"context_window": "40%"})
    listed = await request(gateway.app, "/v1/models", method="GET", body=b"")
    cards = {card.pop("id"): card for card in listed.json["data"]}
    assert list(cards) == [CODER["name"], "org/big", "gpt"]
    assert cards[CODER["name"]]["owned_by"] == "default"
    assert cards[CODER["name"]]["max_model_len"] == cards["org/big"]["max_model_len"] == 400
    assert "max_model_len" not in cards["gpt"]
    again = await request(gateway.app, "/v1/models", method="GET", body=b"")
    assert again.json["data"][0]["created"] == cards[CODER["name"]]["created"]
    one = await request(gateway.app, f"/v1/models/{CODER['name']}", method="GET", body=b"")
    assert one.json["id"] == CODER["name"]
    wrong = await request(gateway.app, "/v1/models/ORG/BIG", method="GET", body=b"")
    assert "`org/big` does" in wrong.error["message"]


async def test_the_first_model_that_answers_is_taken(make: Made) -> None:
    def script(asked: Asked) -> FakeReply:
        unknown = FakeFailure("upstream_error", 404, code="model_not_found", retryable=False)
        return failed(unknown) if "local" in asked.upstream.base_url else FakeReply(body=b"2")

    gateway = make(script, LOCAL, RENTED, assistants=(CODER,))
    answer = await ask(gateway)
    assert (answer.status, answer.body) == (200, b"2")
    assert [json.loads(a.body or b"")["model"] for a in gateway.engine.asked] == ["org/big", "gpt"]


async def test_a_model_that_is_not_loaded_costs_no_retries(make: Made) -> None:
    def script(asked: Asked) -> FakeReply:
        unknown = FakeFailure("model_not_found", 404, counts_against_upstream=False)
        return failed(unknown) if "local" in asked.upstream.base_url else FakeReply()

    gateway = make(script, LOCAL, RENTED, assistants=(CODER,))
    assert {(await ask(gateway)).status for _ in range(60)} == {200}


async def test_a_request_that_is_wrong_everywhere_is_asked_once(make: Made) -> None:
    gateway = make(failed(FakeFailure(status=400, retryable=False)), LOCAL, RENTED, assistants=(CODER,))
    assert (await ask(gateway)).status == 400
    assert len(gateway.engine.asked) == 1


async def test_no_upstream_knows_its_model(make: Made) -> None:
    unknown = FakeFailure("model_not_found", 404, code="model_not_found", message="No model org/big.")
    gateway = make(failed(unknown), LOCAL, RENTED, assistants=(CODER,))
    answer = await ask(gateway)
    # The client's name is right: a 404 would blame it.
    assert (answer.status, answer.error["code"]) == (502, "upstream_model_not_found")
    assert "org/big" not in answer.error["message"]
    assert len(gateway.engine.asked) == 2


async def test_the_last_of_many_models_is_asked_too(make: Made) -> None:
    upstreams = [UpstreamConfig(name=f"u{n}", base_url=f"http://u{n}", models=("m",)) for n in range(6)]
    spec = {"name": "a", "model": [f"u{n}/m" for n in range(6)]}
    gateway = make(answering("u5"), *upstreams, assistants=(spec,))
    assert (await ask(gateway, "a")).status == 200
    assert len(gateway.engine.asked) == 6


async def test_a_default_model_may_be_an_assistant(make: Made) -> None:
    gateway = make(
        None, LOCAL, assistants=({**CODER, "model": ["local/small"]},), default_model=CODER["name"]
    )
    answer = await request(gateway.app, body=json.dumps({"messages": HELLO}).encode())
    assert answer.status == 200
    assert sent(gateway)["model"] == "small"


async def test_completions_take_its_parameters_but_never_lose_a_locked_prompt(make: Made) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    spec = {**CODER, "name": "a", "tools": tools}
    locked = {**spec, "name": "b", "locked": ["system_prompt"]}
    gateway = make(None, LOCAL, RENTED, assistants=(spec, locked))
    prompt = json.dumps({"model": "a", "prompt": "x"}).encode()
    assert (await request(gateway.app, "/v1/completions", prompt)).status == 200
    assert sent(gateway) == {"model": "org/big", "prompt": "x", "temperature": 0.0, "max_tokens": 512}
    refused = await request(gateway.app, "/v1/completions", prompt.replace(b'"a"', b'"b"'))
    assert refused.status == 400
    assert "/v1/chat/completions" in refused.error["message"]
    embedding = json.dumps({"model": "b", "input": "x"}).encode()
    assert (await request(gateway.app, "/v1/embeddings", embedding)).status == 200
    assert sent(gateway, 1) == {"model": "org/big", "input": "x"}


async def test_nothing_but_instructions_is_no_request(make: Made) -> None:
    spec = {"name": "a", "model": ["local/small"], "locked": ["system_prompt"]}
    gateway = make(None, LOCAL, assistants=(spec,))
    answer = await ask(gateway, "a", messages=[{"role": "system", "content": "x"}])
    assert (answer.status, answer.error["param"]) == (400, "messages")
    assert gateway.engine.asked == []
