"""The tool loop: three steps, streamed and not; side by side, with times, approval, and errors."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from client_setup import Both, Script

from processes import Server
from sluicegate.client import Answer, AsyncClient, StepLimitError, Tool, ToolCall, ToolDefinitionError


def call(name: str, id: str = "c1", **arguments: Any) -> ToolCall:
    return ToolCall(id, name, json.dumps(arguments))


def calls(*wanted: ToolCall) -> Answer[None]:
    return Answer("", tool_calls=wanted, finish_reason="tool_calls")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def double(value: int) -> dict[str, int]:
    """Double a number."""
    await asyncio.sleep(0)
    return {"doubled": value * 2}


END = Answer("The result is 14.")


@pytest.mark.parametrize("how", ["generate", "stream"])
def test_three_steps(both: Both, script: Script, how: str) -> None:
    client = script.says(calls(call("add", a=3, b=4)), calls(call("double", "c2", value=7)), END)
    answer: Answer[Any]
    if how == "stream":
        chunks, answer = both.stream("What is (3+4)*2?", client=client, tools=[add, double])
        assert "".join(chunk.content for chunk in chunks) == END.content
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"] * 2 + [
            "stop"
        ]
        assert (
            "".join(d.arguments for chunk in chunks for d in chunk.tool_calls)
            == '{"a": 3, "b": 4}{"value": 7}'
        )
    else:
        answer = both.generate("What is (3+4)*2?", client=client, tools=[add, double])
    assert answer.content == END.content
    assert [step.results[0].content if step.results else None for step in answer.steps] == [
        "7",
        '{"doubled":14}',
        None,
    ]
    roles = [message["role"] for message in answer.messages]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert len(script.asked) == 3
    assert script.asked[0]["tool_choice"] == "auto"
    assert [tool["function"]["name"] for tool in script.asked[0]["tools"]] == ["add", "double"]
    sent = script.asked[2]["messages"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 3, "b": 4}'}
    assert (sent[2]["tool_call_id"], sent[2]["content"]) == ("c1", "7")
    # Three answers of 12 tokens each.
    assert answer.usage is not None
    assert answer.usage.total_tokens == 36


def test_against_the_demo(both: Both, demo: Server) -> None:
    client = {"base_url": demo.base_url, "model": "demo-fast"}
    question = "Use add and double, please."
    _, streamed = both.stream(question, client=client, tools=[add, double])
    plain = both.generate(question, client=client, tools=[add, double])
    for answer in (streamed, plain):
        assert [c.name for c in answer.steps[0].tool_calls] == ["add", "double"]
        assert not any(result.failed for result in answer.steps[0].results)
        assert answer.content.startswith("The tool answered")


def test_side_by_side(both: Both, script: Script) -> None:
    meeting = threading.Barrier(3, timeout=10)

    def wait(word: str) -> str:
        """Ends only if all three are there."""
        meeting.wait()
        return word

    client = script.says(calls(*(call("wait", f"c{n}", word=f"n{n}") for n in range(3))), END)
    answer = both.generate("Go", client=client, tools=[wait])
    assert [result.content for result in answer.steps[0].results] == ["n0", "n1", "n2"]


def test_tools_run_away_from_the_loop(script: Script) -> None:
    """A tool that blocks does not hold up the loop; async ones run on it."""
    threads: dict[str, int] = {}
    go = threading.Event()

    def block() -> str:
        threads["sync"] = threading.get_ident()
        assert go.wait(10)
        return "done"

    async def release() -> str:
        threads["async"] = threading.get_ident()
        go.set()
        return "released"

    async def scenario() -> Answer[None]:
        async with AsyncClient(**script.says(calls(call("block"), call("release", "c2")), END)) as client:
            return await client.generate("Go", tools=[block, release])

    answer = asyncio.run(scenario())
    assert [r.content for r in answer.steps[0].results] == ["done", "released"]
    assert threads["async"] == threading.get_ident() != threads["sync"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_slow_tool_is_told_to_the_model(both: Both, script: Script, kind: str) -> None:
    ended = threading.Event()

    def slow() -> str:
        ended.wait(20)
        return "late"

    async def slow_async() -> str:
        await asyncio.sleep(20)
        return "late"

    tool = Tool.of(slow if kind == "sync" else slow_async, name="slow", timeout=0.2)
    begun = time.monotonic()
    answer = both.generate(
        "Go", client=script.says(calls(call("slow"), call("add", "c2", a=1, b=1)), END), tools=[tool, add]
    )
    ended.set()
    results = answer.steps[0].results
    assert "0.2 s" in results[0].content
    assert (results[0].failed, results[1].content) == (True, "2")
    assert time.monotonic() - begun < 10


def test_the_time_of_all_tools(both: Both, script: Script) -> None:
    ended = threading.Event()

    def slow() -> None:
        ended.wait(20)

    answer = both.generate("Go", client=script.says(calls(call("slow")), END), tools=[slow], tool_timeout=0.1)
    ended.set()
    assert answer.steps[0].results[0].failed


def test_errors_are_given_back(both: Both, script: Script) -> None:
    def broken(kind: str) -> object:
        """Fail."""
        if kind == "value":
            return object()
        raise KeyError(kind) if kind == "key" else TimeoutError("of its own")

    wrong = [
        call("broken", "c1", kind="key"),
        call("broken", "c2", kind="value"),
        call("broken", "c3", kind="time"),
        call("nothing", "c4"),
        call("add", "c5", a="many", b=1),
        ToolCall("c6", "add", "{not json"),
        call("add", "c7", a=1, b=2, c=3),
    ]
    answer = both.generate("Go", client=script.says(calls(*wrong), END), tools=[add, broken])
    told = [result.content for result in answer.steps[0].results]
    assert told[0] == "Error: KeyError: 'key'"
    assert "JSON cannot hold" in told[1]
    assert "TimeoutError: of its own" in told[2]
    assert "no tool 'nothing'" in told[3]
    assert "add, broken" in told[3]
    assert "$.a" in told[4]
    assert "do not fit" in told[5]
    assert "unknown field" in told[6]
    assert all(result.failed for result in answer.steps[0].results)
    assert answer.content == END.content


def test_approval(both: Both, script: Script) -> None:
    ran: list[int] = []

    def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        return "paid"

    def approve(wanted: ToolCall) -> bool | str:
        amount = json.loads(wanted.arguments)["amount"]
        return True if amount < 10 else ("too much" if amount < 100 else False)

    wanted = [call("pay", f"c{n}", amount=n) for n in (5, 50, 500)]
    answer = both.generate("Pay", client=script.says(calls(*wanted), END), tools=[pay], approve=approve)
    assert [result.content for result in answer.steps[0].results] == [
        "paid",
        "Error: this call was not allowed: too much",
        "Error: this call was not allowed.",
    ]
    assert ran == [5]


def test_approval_may_wait(script: Script) -> None:
    async def approve(_: ToolCall) -> bool:
        await asyncio.sleep(0.01)
        return False

    async def scenario() -> Answer[None]:
        async with AsyncClient(**script.says(calls(call("add", a=1, b=2)), END)) as client:
            return await client.stream("Go", tools=[add], approve=approve).until_end()

    assert asyncio.run(scenario()).steps[0].results[0].failed


@pytest.mark.parametrize("how", ["generate", "stream"])
def test_a_model_that_never_ends(both: Both, script: Script, how: str) -> None:
    client = script.says(calls(call("add", a=1, b=1)))
    error = both.error(how, "Go", client=client, tools=[add], max_steps=3)
    assert isinstance(error, StepLimitError)
    assert "max_steps" in str(error)
    assert len(script.asked) == 3
    assert error.partial is not None
    assert [len(step.results) for step in error.partial.steps] == [1, 1, 0]


def test_a_declared_tool_is_the_callers(both: Both, script: Script) -> None:
    declared = {"type": "function", "function": {"name": "open_door", "parameters": {"type": "object"}}}
    client = script.says(calls(call("open_door"), call("add", "c2", a=1, b=1)), END)
    answer = both.generate("Go", client=client, tools=[declared, add])
    assert [c.name for c in answer.tool_calls] == ["open_door", "add"]
    assert len(script.asked) == 1


def test_tool_choice_is_sent(both: Both, script: Script) -> None:
    both.generate("Go", client=script.says(END), tools=[add], tool_choice="none")
    assert script.asked[0]["tool_choice"] == "none"


def test_leaving_while_a_tool_runs(script: Script) -> None:
    started = threading.Event()
    ended = threading.Event()

    def slow() -> None:
        started.set()
        ended.wait(10)

    async def scenario() -> None:
        async with AsyncClient(**script.says(calls(call("slow")), END)) as client:
            task = asyncio.create_task(client.generate("Go", tools=[slow]))
            assert await asyncio.to_thread(started.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
    ended.set()
    assert len(script.asked) == 1


def test_two_tools_of_one_name(both: Both, script: Script) -> None:
    with pytest.raises(ToolDefinitionError, match="add"):
        both.generate("Go", client=script.says(END), tools=[add, add])
