"""The next model of an assistant: asked once for what broke before an answer began, and never after it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from faults.client import KEY, Answer, ask, body_for
from faults.content import TEXT
from faults.pace import Pace
from faults.rig import AMPLE, SHORT, UPSTREAM_KEY, Rig
from faults.upstream import FaultUpstream
from processes import Server, gateway

pytestmark = pytest.mark.timeout(120)

SPARE = "ok-neighbour"
# Where the first model breaks before anything reached the client; for a plain answer that is everywhere.
BEFORE = (
    "at-refused",
    "at-silent",
    "at-closing",
    "u9-close",
    "u10-rst",
    "u11-drip-head",
    "u12-endless-headers",
    "u13-ssh",
    "u18-redirect-302",
    "u20-401",
    "u21-404-json",
    "u23-429-bare",
    "u24-500-json",
    "u24-503-html",
    "u25-html",
    "u26-error-object",
    "u29-empty",
    "u33-rst-first",
    "u34-stall-first",
    "u39-unknown",
    "u40-first",
    "u44-first",
)
AFTER = ("u32-clean-eof", "u33-rst-mid", "u34-stall-mid", "u44-later", "u45-later")
STALLING = ("at-silent", "u11-drip-head", "u34-stall-first", "u34-stall-mid")
# The same everywhere, so that nobody else is asked.
FINAL = ("u24-400-json",)
# Second tries are a fifth of the requests: so many more pay for those of this module.
DEPOSITS = 300


class Case(NamedTuple):
    """An assistant whose first model is `fault`."""

    fault: str
    stream: bool

    @property
    def id(self) -> str:
        return f"fallback-{self.fault}-{'stream' if self.stream else 'plain'}"

    @property
    def ends(self) -> str:
        """rescued by the second model, broken in the middle, or refused."""
        if self.fault in FINAL:
            return "refused"
        return "broken" if self.stream and self.fault in AFTER else "rescued"


CASES = [Case(fault, stream) for fault in (*BEFORE, *AFTER, *FINAL) for stream in (True, False)]


def settings(ports: dict[str, int]) -> str:
    """An upstream of its own for each fault, so that no breaker opens, and an assistant for each."""
    text = ""
    for fault in (*BEFORE, *AFTER, *FINAL, SPARE):
        # Only what a clock has to end is hurried: a slow machine must not end the rest.
        seconds = SHORT if fault in STALLING else AMPLE
        port = ports[fault.removeprefix("at-")] if fault.startswith("at-") else ports["main"]
        text += f"""
[[upstreams]]
name = "{fault}"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "{UPSTREAM_KEY}"
models = ["{fault}"]
first_event_timeout = {seconds}
idle_timeout = {seconds}

[[assistants]]
name = "Assistant of {fault}"
model = ["{fault}/{fault}", "{SPARE}/{SPARE}"]
system_prompt = "Answer."
"""
    return text


@pytest.fixture(scope="module")
def fallback(upstream: FaultUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A gateway of its own: retry budget and breakers start fresh."""
    folder: Path = tmp_path_factory.mktemp("fallback")
    with gateway(settings(upstream.ports), folder, keys=KEY) as server, Pace(server.port) as pace:
        yield Rig(upstream, server, pace)


@pytest.fixture(scope="module")
def answers(fallback: Rig) -> dict[Case, Answer]:
    """Every case, side by side: some of them wait for a clock."""

    async def run() -> list[Answer]:
        for _ in range(DEPOSITS // 20):
            paid = [ask(fallback.port, "chat", body_for("chat", SPARE, stream=False)) for _ in range(20)]
            assert {answer.status for answer in await asyncio.gather(*paid)} == {200}
        requests = [
            ask(
                fallback.port,
                "chat",
                body_for("chat", f"Assistant of {case.fault}", stream=case.stream, user=case.id),
                limit=AMPLE,
            )
            for case in CASES
        ]
        return await asyncio.gather(*requests)

    return dict(zip(CASES, asyncio.run(run()), strict=True))


def models_asked(rig: Rig, case: Case) -> list[str]:
    """The models of the requests that arrived for this case, by connection."""
    asked = [a for c in rig.connections(case.id) for a in c.requests if a.json.get("user") == case.id]
    return [str(a.json["model"]) for a in asked]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_broken_model_is_replaced_before_its_answer_begins(
    case: Case, fallback: Rig, answers: dict[Case, Answer]
) -> None:
    answer = answers[case]
    asked = models_asked(fallback, case)
    # What never accepts a request records none; a pooled connection may be tried twice, a model never again.
    assert asked.count(SPARE) == (1 if case.ends == "rescued" else 0), asked
    assert asked.count(case.fault) <= 2, asked
    match case.ends:
        case "rescued":
            assert answer.status == 200, answer
            assert answer.header("x-upstream-model") == SPARE
            check_whole(case, answer)
        case "broken":
            check_broken(answer)
        case _:
            assert answer.status == 400, answer


def check_whole(case: Case, answer: Answer) -> None:
    """One answer, from its first byte to its last, under the assistant's name."""
    assert answer.complete
    if not case.stream:
        body = answer.json()
        assert body["model"] == f"Assistant of {case.fault}"
        assert body["choices"][0]["message"]["content"] == TEXT
        return
    assert answer.data[-1] == "[DONE]"
    assert answer.data.count("[DONE]") == 1
    chunks = [json.loads(data) for data in answer.data[:-1]]
    assert {chunk["model"] for chunk in chunks} == {f"Assistant of {case.fault}"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert text == TEXT, "two answers are mixed"


def check_broken(answer: Answer) -> None:
    """What has begun is not begun again: it ends with its error."""
    assert answer.status == 200, answer
    assert "[DONE]" not in answer.data
    assert "error" in json.loads(answer.data[-1])
    assert answer.header("x-upstream-model") != SPARE


def test_the_system_prompt_arrives_once(fallback: Rig, answers: dict[Case, Answer]) -> None:
    case = Case("u24-500-json", stream=False)
    assert answers[case].status == 200
    for connection in fallback.connections(case.id):
        for asked in connection.requests:
            if asked.json.get("user") == case.id:
                messages = json.loads(asked.body)["messages"]
                assert [message["role"] for message in messages].count("system") == 1


def test_the_gateway_is_well_after_all_of_it(fallback: Rig, answers: dict[Case, Answer]) -> None:
    assert len(answers) == len(CASES)
    server: Server = fallback.server
    assert "internal_error" not in server.output()
