"""What operators see of the scores: how they are spread, what followed, and what that cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import openai
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from prometheus_client import parser
from scored import assistants, saying, script
from scripted import UPSTREAM_KEY, ScriptedUpstream

from processes import Server, gateway

METRICS_KEY = "operators-only"
GOOD, CUT, EMPTY = saying("It is 4."), saying("It is", "length"), saying("")
ASSISTANTS: dict[str, dict[str, Any]] = {
    "flag": {},
    "retry / twice": {"quality_action": "retry"},
    "block": {"quality_action": "block"},
    "observe": {"quality_stream": "observe"},
}

Figures = dict[tuple[str, str, str], float]


@pytest.fixture(scope="module")
def scored(scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = (
        f'[server]\nmetrics_key = "{METRICS_KEY}"\n'
        f'[[upstreams]]\nname = "one"\nbase_url = "{scripted.base_url}"\napi_key = "{UPSTREAM_KEY}"\n'
        'models = ["m"]\nprices = { "*" = { prompt = 1000000.0, completion = 1000000.0 } }\n'
    ) + assistants(ASSISTANTS)
    with gateway(settings, tmp_path_factory.mktemp("scored"), keys=API_KEY) as server:
        yield server


def figures(server: Server) -> Figures:
    """By the metric, the assistant, and what else there is as a label."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {METRICS_KEY}"})
    text = connection.getresponse().read().decode()
    connection.close()
    found: Figures = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            assistant = sample.labels.get("assistant")
            if assistant is not None:
                assert sample.labels["workspace"] == "default"
                more = sample.labels.get("le", sample.labels.get("verdict", ""))
                found[sample.name.removeprefix("sluicegate_quality_"), assistant, more] = sample.value
    return found


def ask(client: OpenAI, model: str, *steps: dict[str, Any], stream: bool = False) -> None:
    _, extra = script(*steps)
    messages = [{"role": "user", "content": "2 + 2?"}]
    answer = client.chat.completions.create(
        model=model,
        messages=messages,  # type: ignore[arg-type]
        stream=stream,
        extra_body=extra,
    )
    if stream:
        list(answer)


def test_scores_are_metrics(scored: Server) -> None:
    with OpenAI(base_url=scored.base_url, api_key=API_KEY, timeout=45, max_retries=0) as client:
        for step in (GOOD, CUT, EMPTY):
            ask(client, "flag", step)
        ask(client, "retry / twice", CUT, GOOD)
        ask(client, "retry / twice", GOOD)
        with pytest.raises(openai.UnprocessableEntityError):
            ask(client, "block", EMPTY)
        ask(client, "observe", CUT, stream=True)
        # Without an assistant, or with one that wants no score: nothing is counted.
        ask(client, "m", GOOD)
    found = figures(scored)
    flag = {
        more: value
        for (name, whose, more), value in found.items()
        if (name, whose) == ("score_bucket", "flag")
    }
    assert (flag["10.0"], flag["20.0"], flag["30.0"], flag["90.0"], flag["100.0"]) == (1, 1, 2, 2, 3)
    assert found["score_sum", "flag", ""] == 130
    assert (found["answers_total", "flag", "passed"], found["answers_total", "flag", "flagged"]) == (1, 2)
    assert found["answers_total", "retry / twice", "passed"] == 2
    assert found["asked_again_total", "retry / twice", ""] == 1
    # The tokens of the answer that nobody got, at a dollar each.
    cost = found["cost_dollars_total", "retry / twice", ""]
    assert cost >= 1
    assert math.isclose(cost, round(cost))
    assert 0 < found["wait_seconds_total", "retry / twice", ""] < 20
    assert found["answers_total", "block", "blocked"] == 1
    assert ("answers_total", "block", "passed") not in found
    assert found["answers_total", "observe", "flagged"] == 1
    assert {whose for _, whose, _ in found} == set(ASSISTANTS)
