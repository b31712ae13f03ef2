"""Answers that another model judges: in the background or before they leave, and whatever the judge does."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from scored import assistants, records, saying, until
from scripted import UPSTREAM_KEY, ScriptedUpstream, scripted_upstream

from processes import Server, gateway

SETTINGS = """
[server]
access_log = true

[[upstreams]]
name = "one"
base_url = "{base_url}"
api_key = "{key}"
models = ["m"]

[[upstreams]]
name = "bench"
base_url = "{judges}"
api_key = "{key}"
models = ["j"]
"""
JUDGE = {"model": "bench/j", "sample": 1.0}
ENFORCED = {**JUDGE, "enforced": True}
ASSISTANTS: dict[str, dict[str, Any]] = {
    "later": {"quality_judge": JUDGE},
    "now": {"quality_judge": ENFORCED, "quality_action": "block"},
    "strict": {"quality_judge": ENFORCED, "quality_unscored": "block"},
    "quick": {"quality_judge": {**ENFORCED, "timeout": 0.3}},
    "itself": {"quality_judge": {**ENFORCED, "model": "one/m"}},
    "allowed": {"quality_judge": {**ENFORCED, "model": "one/m", "same_model": True}},
    "lost": {"quality_judge": {**ENFORCED, "model": "nobody"}},
    "retry": {"quality_judge": ENFORCED, "quality_action": "retry"},
    "held": {"quality_judge": ENFORCED, "quality_action": "block", "quality_stream": "hold"},
}


def settings(base_url: str, judges: str) -> str:
    upstreams = SETTINGS.format(base_url=base_url, judges=judges, key=UPSTREAM_KEY)
    return upstreams + assistants(ASSISTANTS)


@pytest.fixture(scope="module")
def bench() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def judging(
    scripted: ScriptedUpstream, bench: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("judging")
    with gateway(settings(scripted.base_url, bench.base_url), folder, keys=API_KEY) as server:
        yield server


@pytest.fixture
def client(judging: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=judging.base_url, api_key=API_KEY, timeout=45, max_retries=0) as client:
        yield client


def verdict(score: Any, reason: str = "Because.") -> dict[str, Any]:
    return saying(f"Here it is: {json.dumps({'score': score, 'reason': reason})} I hope this helps.")


def ask(client: OpenAI, model: str, **more: Any) -> tuple[Any, dict[str, str]]:
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "2 + 2?"}]
    extra = {"x_script": {"key": uuid.uuid4().hex, "steps": [saying("It is 4.")]}}
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=question, extra_body=more.pop("extra", extra), **more
    )
    told = {name[10:]: value for name, value in raw.headers.items() if name.startswith("x-quality")}
    return raw, told


@pytest.fixture
def says(bench: ScriptedUpstream) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What the judge answers from now on."""

    def script(step: dict[str, Any]) -> None:
        bench.otherwise = step

    yield script
    bench.otherwise = {}


def test_a_judge_that_is_enforced_decides(client: OpenAI, says: Any, bench: ScriptedUpstream) -> None:
    says(verdict(85, "Right."))
    _, told = ask(client, "now")
    assert told == {"score": "85", "method": "L0+L2", "reason": "Right."}
    asked = json.loads(bench.recorded("unscripted")[-1].body)
    assert asked["model"] == "j"
    assert (asked["max_tokens"], asked["temperature"]) == (512, 0)
    assert "2 + 2?" in asked["messages"][1]["content"]
    assert "It is 4." in asked["messages"][1]["content"]
    says(verdict(20, "Wrong."))
    with pytest.raises(openai.UnprocessableEntityError, match="score 20"):
        ask(client, "now")
    with pytest.raises(openai.UnprocessableEntityError, match="score 20"):
        ask(client, "held", stream=True)
    _, told = ask(client, "retry")
    assert told["score"] == "20"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (saying("I cannot say."), "judge_unreadable"),
        (verdict("good"), "judge_unreadable"),
        (verdict(101), "judge_unreadable"),
        (verdict(True), "judge_unreadable"),
        (saying('{"score": NaN}'), "judge_unreadable"),
        ({"body": '{"choices": [{"message": {"content": null}}]}'}, "judge_unreadable"),
        ({"status": 500}, "judge_failed"),
        ({"body": "no json"}, "judge_failed"),
    ],
)
def test_a_judge_that_fails_is_no_pass(client: OpenAI, says: Any, step: dict[str, Any], reason: str) -> None:
    says(step)
    _, told = ask(client, "now")
    assert told == {"score": "none", "method": "L0", "reason": reason}
    with pytest.raises(openai.UnprocessableEntityError, match=reason):
        ask(client, "strict")


def test_a_slow_judge_is_not_waited_for(client: OpenAI, says: Any) -> None:
    says({**verdict(90), "delay": 3.0})
    began = time.monotonic()
    _, told = ask(client, "quick")
    assert told["reason"] == "judge_timeout"
    assert time.monotonic() - began < 3


def test_a_client_that_leaves_does_not_wait_for_the_judge(judging: Server, says: Any) -> None:
    says({**verdict(90), "delay": 4.0})
    with (
        OpenAI(base_url=judging.base_url, api_key=API_KEY, timeout=1, max_retries=0) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        ask(client, "now")
    lines = until(lambda: records(judging, "judge", code="client_closed"))
    assert lines[-1]["status"] == 499
    until(lambda: records(judging, "chat", code="client_closed"))


def test_nobody_judges_itself_unless_that_is_said(client: OpenAI) -> None:
    assert ask(client, "itself")[1]["reason"] == "judge_is_judged"
    assert ask(client, "lost")[1]["reason"] == "judge_unavailable"
    assert ask(client, "allowed")[1]["reason"] == "judge_unreadable", "it was asked"


def test_in_the_background_the_answer_does_not_wait(client: OpenAI, says: Any, judging: Server) -> None:
    says({**verdict(33, "Late."), "delay": 1.0})
    raw, told = ask(client, "later")
    assert told == {"score": "100", "method": "L0"}
    asked = raw.headers["x-request-id"]
    lines = until(
        lambda: [line for line in records(judging, "judge") if asked in (line.get("score_reason") or "")]
    )
    assert (lines[0]["score"], lines[0]["score_method"]) == (33, "L2")
    assert lines[0]["prompt_tokens"] == 3, "it has a record with its own tokens"
    assert lines[0]["model"] == "bench/j"
    # Of a stream as well, once it has ended.
    says(verdict(44))
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": "It is 4."}, "finish_reason": "stop"}
    chunks = [json.dumps({**head, "choices": [choice]}), "[DONE]"]
    extra = {"x_script": {"key": uuid.uuid4().hex, "steps": [{"chunks": chunks}]}}
    raw, _ = ask(client, "later", stream=True, extra=extra)
    list(raw.parse())
    until(lambda: [line for line in records(judging, "judge") if line.get("score") == 44])
