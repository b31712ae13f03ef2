"""Pydantic AI: a tool loop and structured output, over responses and over chat completions."""

from __future__ import annotations

from typing import Any

import pytest
from agents_setup import API_KEY, WARNINGS
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings(*WARNINGS),
]

KINDS = [OpenAIResponsesModel, OpenAIChatModel]


class Person(BaseModel):
    name: str
    age: int


def model(base_url: str, kind: type[Any]) -> Any:
    return kind("demo-fast", provider=OpenAIProvider(base_url=base_url, api_key=API_KEY))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_tool_loop(base_url: str, kind: type[Any], streamed: bool) -> None:
    agent = Agent(model(base_url, kind), instructions="Be short.")
    asked: list[str] = []

    @agent.tool_plain
    def weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return f"sun over {city}"

    if streamed:
        async with agent.run_stream("What is the weather in Oslo?") as run:
            output = await run.get_output()
    else:
        output = (await agent.run("What is the weather in Oslo?")).output
    assert asked == ["Oslo"]
    assert "sun over Oslo" in output


@pytest.mark.parametrize("kind", KINDS)
async def test_structured_output(base_url: str, kind: type[Any]) -> None:
    agent = Agent(model(base_url, kind), output_type=NativeOutput(Person))
    assert isinstance((await agent.run("Who?")).output, Person)
