"""OpenAI's own agents framework: a tool loop and a conversation over responses."""

from __future__ import annotations

from typing import Any

import pytest
from agents_setup import API_KEY, WARNINGS
from openai import AsyncOpenAI

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings(*WARNINGS),
]

set_tracing_disabled(True)
asked: list[str] = []


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    asked.append(city)
    return f"sun over {city}"


def agent(base_url: str, kind: type[Any], model: str = "demo-fast") -> Agent[Any]:
    client = AsyncOpenAI(base_url=base_url, api_key=API_KEY)
    return Agent(name="Weatherman", instructions="Be short.", model=kind(model, client), tools=[weather])


@pytest.mark.parametrize("kind", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
async def test_a_tool_loop(base_url: str, kind: type[Any]) -> None:
    asked.clear()
    result = await Runner.run(agent(base_url, kind), "What is the weather in Oslo?")
    assert asked == ["Oslo"]
    assert "sun over Oslo" in result.final_output


async def test_a_streamed_tool_loop(base_url: str) -> None:
    asked.clear()
    result = Runner.run_streamed(
        agent(base_url, OpenAIResponsesModel, "demo-thinking-fast"), "What is the weather in Bergen?"
    )
    kinds = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]
    assert asked == ["Bergen"]
    assert {"tool_called", "tool_output", "message_output_created", "reasoning_item_created"} <= set(kinds)
    assert "sun over Bergen" in result.final_output


async def test_a_conversation_by_the_response_before(base_url: str) -> None:
    weatherman = agent(base_url, OpenAIResponsesModel)
    first = await Runner.run(weatherman, "What is the weather in Oslo?")
    second = await Runner.run(weatherman, "And in Bergen?", previous_response_id=first.last_response_id)
    assert "sun over Bergen" in second.final_output
