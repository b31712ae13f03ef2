"""Answers as values: what is asked for, what comes of it, and what does not fit."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest
from client_setup import Both, Script

from processes import Server
from sluicegate.client import Answer, Client, OutputError
from sluicegate.client.structured import response_format


class Part(msgspec.Struct):
    name: str
    share: float = 1.0


class Recipe(msgspec.Struct):
    """A dish."""

    title: str
    parts: list[Part]
    minutes: Annotated[int, msgspec.Meta(ge=1)] | None = None


@dataclasses.dataclass
class City:
    name: str
    people: int


class Town(TypedDict):
    name: str


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)
    home: City | None = None


KINDS = [Recipe, City, Town, Person]
TEXTS = {
    Recipe: '{"title": "Soup", "parts": [{"name": "water", "share": 0.5}], "minutes": 5}',
    City: '{"name": "Ulm", "people": 5}',
    Town: '{"name": "Ulm"}',
    Person: '{"name": "Eve", "age": 3, "home": {"name": "Ulm", "people": 5}}',
}
VALUES: dict[Any, Any] = {
    Recipe: Recipe("Soup", [Part("water", 0.5)], 5),
    City: City("Ulm", 5),
    Town: {"name": "Ulm"},
    Person: Person(name="Eve", age=3, home=City("Ulm", 5)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["generate", "stream"])
def test_values(both: Both, script: Script, how: str, kind: Any) -> None:
    client = script.says(Answer(TEXTS[kind]))
    found = getattr(both, how)("Go", client=client, output=kind)
    answer = found[1] if how == "stream" else found
    assert answer.output == VALUES[kind]
    wanted = script.asked[0]["response_format"]
    assert wanted["type"] == "json_schema"
    assert (wanted["json_schema"]["name"], wanted["json_schema"]["strict"]) == (kind.__name__, True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_demo_makes_one(both: Both, demo: Server, kind: Any) -> None:
    answer = both.generate("Go", client={"base_url": demo.base_url, "model": "demo-fast"}, output=kind)
    assert answer.output is not None


def objects(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in node for found in objects(item)]
    if not isinstance(node, dict):
        return []
    own = [node] if "properties" in node and node.get("type") == "object" else []
    return own + [found for value in node.values() for found in objects(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_strict(kind: Any) -> None:
    schema = response_format(kind)["json_schema"]["schema"]
    assert schema["type"] == "object"
    assert "$ref" not in schema
    found = objects(schema)
    assert found
    for each in found:
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    text = msgspec.json.encode(schema).decode()
    assert '"default"' not in text
    for name in {part.split('"')[0] for part in text.split("#/$defs/")[1:]}:
        assert name in schema["$defs"]


class Tree(msgspec.Struct):
    default: str
    leaves: list[Tree]


def test_a_type_that_holds_itself() -> None:
    schema = response_format(Tree)["json_schema"]["schema"]
    assert schema["required"] == ["default", "leaves"]
    assert "Tree" in schema["$defs"]


class Open(msgspec.Struct):
    counts: dict[str, int]


def test_open_objects_cannot_be_strict() -> None:
    assert response_format(Open)["json_schema"]["strict"] is False


@pytest.mark.parametrize("kind", [int, list[int], "text", dict])
def test_types_that_are_no_object(kind: Any) -> None:
    with pytest.raises(OutputError, match="Struct"):
        response_format(kind)


BAD = [
    (Answer("no JSON at all"), "is no City"),
    (Answer('{"name": "Ulm"}'), "people"),
    (Answer('{"name": "Ulm", "people": "many"}'), r"\$\.people"),
    (Answer('{"name": "U', finish_reason="length"), "max_tokens"),
    (Answer("", refusal="I will not."), "I will not"),
]


@pytest.mark.parametrize(("answer", "says"), BAD)
def test_answers_that_do_not_fit(script: Script, answer: Answer[None], says: str) -> None:
    with Client(**script.says(answer)) as client:
        with pytest.raises(OutputError, match=says) as caught:
            client.generate("Go", output=City)
        assert caught.value.partial is not None
        assert caught.value.partial.content == answer.content


def test_a_code_fence_is_no_harm(script: Script) -> None:
    with Client(**script.says(Answer(f"```json\n{TEXTS[City]}\n```"))) as client:
        assert client.generate("Go", output=City).output == City("Ulm", 5)


def test_after_tools(both: Both, script: Script) -> None:
    from sluicegate.client import ToolCall

    def look() -> str:
        return "Ulm"

    first: Answer[None] = Answer("", tool_calls=(ToolCall("c", "look", "{}"),))
    answer = both.generate("Go", client=script.says(first, Answer(TEXTS[City])), tools=[look], output=City)
    assert answer.output == City("Ulm", 5)
