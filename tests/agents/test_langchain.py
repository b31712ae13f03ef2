"""LangChain: a tool loop, streamed and not, over responses and over chat completions."""

from __future__ import annotations

from typing import Any

import pytest
from agents_setup import API_KEY, WARNINGS
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings(*WARNINGS)]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sun over {city}"


def text_of(message: Any) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if block["type"] == "text")


@pytest.mark.parametrize("responses", [True, False])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop(base_url: str, responses: bool, streamed: bool) -> None:
    model = ChatOpenAI(
        model="demo-fast", base_url=base_url, api_key=SecretStr(API_KEY), use_responses_api=responses
    ).bind_tools([weather])

    def ask(messages: list[Any]) -> Any:
        if not streamed:
            return model.invoke(messages)
        whole: Any = None
        for part in model.stream(messages):
            whole = part if whole is None else whole + part
        return whole

    messages: list[Any] = [HumanMessage("What is the weather in Oslo?")]
    answer = ask(messages)
    (call,) = answer.tool_calls
    assert call["args"] == {"city": "Oslo"}
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    final = ask([*messages, answer, result])
    assert "sun over Oslo" in text_of(final)


def test_a_chain_by_the_response_before(base_url: str) -> None:
    model = ChatOpenAI(
        model="demo-fast",
        base_url=base_url,
        api_key=SecretStr(API_KEY),
        use_responses_api=True,
        use_previous_response_id=True,
    )
    first = model.invoke("Hi")
    second = model.invoke([HumanMessage("Hi"), first, HumanMessage("and you")])
    assert "and you" in text_of(second)
