"""The schema of a tool from its function, and its arguments from what models write."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.client import Tool, ToolDefinitionError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Place:
    city: str
    country: str = "DE"


class Person(pydantic.BaseModel):
    name: str
    home: Place | None = None


class Size(TypedDict):
    width: int


def test_names_types_and_descriptions() -> None:
    def book(city: str, nights: int = 1, colour: Colour | None = None) -> str:
        """Book a room.

        Only in Europe.

        Args:
            city: Where to.
            nights: How long.
        """
        return f"{city}{nights}{colour}"

    tool = Tool.of(book)
    assert (tool.name, tool.description) == ("book", "Book a room.\n\nOnly in Europe.")
    properties = tool.parameters["properties"]
    assert properties["city"] == {"type": "string", "description": "Where to."}
    assert properties["nights"] == {"type": "integer", "description": "How long.", "default": 1}
    assert tool.parameters["required"] == ["city"]
    assert tool.parameters["additionalProperties"] is False
    assert tool.declaration()["function"]["name"] == "book"


STYLES = {
    "google": "Do.\n\nArgs:\n    x: The x.\n",
    "numpy": "Do.\n\nParameters\n----------\nx : int\n    The x.\n",
    "rest": "Do.\n\n:param x: The x.\n",
    "epydoc": "Do.\n\n@param x: The x.\n",
}


@pytest.mark.parametrize("style", STYLES)
def test_docstrings(style: str) -> None:
    def f(x: int) -> None: ...

    f.__doc__ = STYLES[style]
    assert Tool.of(f).parameters["properties"]["x"]["description"] == "The x."


def test_no_docstring_and_own_words() -> None:
    def f(x: Annotated[int, msgspec.Meta(description="mine", ge=1)]) -> None: ...

    tool = Tool.of(f, name="g", description="Own.")
    assert (tool.name, tool.description) == ("g", "Own.")
    assert tool.parameters["properties"]["x"] == {"type": "integer", "minimum": 1, "description": "mine"}
    assert "description" not in Tool.of(f).declaration()["function"]
    with pytest.raises(msgspec.ValidationError):
        tool.arguments('{"x": 0}')


def test_every_kind_of_type() -> None:
    def f(  # noqa: PLR0917
        place: Place,
        person: Person,
        size: Size,
        colours: list[Colour],
        mode: Literal["a", "b"],
        rest: dict[str, float],
        either: int | str | None = None,
    ) -> None: ...

    tool = Tool.of(f)
    text = msgspec.json.encode(tool.parameters).decode()
    # All references lead somewhere.
    for name in {part.split('"')[0] for part in text.split("#/$defs/")[1:]}:
        assert name in tool.parameters["$defs"], name
    given = tool.arguments(
        '{"place": {"city": "Ulm"}, "person": {"name": "Eve", "home": {"city": "Bonn"}},'
        ' "size": {"width": 3}, "colours": ["red"], "mode": "b", "rest": {"x": 1}}'
    )
    assert given["place"] == Place("Ulm")
    assert given["person"] == Person(name="Eve", home=Place("Bonn"))
    assert (given["colours"], given["rest"]) == ([Colour.RED], {"x": 1.0})
    assert "either" not in given
    with pytest.raises(msgspec.ValidationError, match="name"):
        tool.arguments(
            '{"place": {"city": "Ulm"}, "person": {}, "size": {"width": 3}, "colours": [],'
            ' "mode": "a", "rest": {}}'
        )


def test_what_models_write() -> None:
    def f(n: int = 0, on: bool = False) -> None: ...

    tool = Tool.of(f)
    assert tool.arguments("") == tool.arguments(" {} ") == {}
    assert tool.arguments('{"n": "5", "on": "true"}') == {"n": 5, "on": True}


class Counter:
    """Counts."""

    def step(self, by: int) -> int:
        return by

    async def __call__(self, start: int) -> int:
        return start


def test_methods_and_callable_objects() -> None:
    assert list(Tool.of(Counter().step).parameters["properties"]) == ["by"]
    tool = Tool.of(Counter(), name="counter")
    assert list(tool.parameters["properties"]) == ["start"]


def test_functions_that_are_no_tools() -> None:
    def untyped(x) -> None: ...  # type: ignore[no-untyped-def]
    def many(*xs: int) -> None: ...
    def named(**xs: int) -> None: ...
    def positional(x: int, /) -> None: ...
    def odd(x: threading_lock) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def no_json(x: complex) -> None: ...

    for function in (untyped, many, named, positional, odd, no_json):
        with pytest.raises(ToolDefinitionError, match=function.__name__):
            Tool.of(function)
    with pytest.raises(ToolDefinitionError, match="name"):
        Tool.of(lambda: 1)
    assert issubclass(ToolDefinitionError, TypeError)


def test_a_default_that_json_cannot_hold() -> None:
    marker = object()

    def f(x: int = marker) -> None: ...  # type: ignore[assignment]

    schema = Tool.of(f).parameters["properties"]["x"]
    assert schema == {"type": "integer", "description": "(optional)"}


def test_a_mutable_default_is_the_functions() -> None:
    def f(x: list[int] = [1]) -> list[int]:  # noqa: B006
        return x

    tool = Tool.of(f)
    assert tool.arguments("{}") == {}
    assert tool.parameters["properties"]["x"]["default"] == [1]


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.one_of(st.integers(), st.text(), st.none())),
    st.text(),
)
def test_arguments_fit_or_are_refused(arguments: dict[str, Any], noise: str) -> None:
    def f(a: int, b: str = "x", c: int | None = None) -> None: ...

    tool = Tool.of(f)
    for text in (msgspec.json.encode(arguments).decode(), noise):
        try:
            made = tool.arguments(text)
        except msgspec.MsgspecError:
            continue
        assert isinstance(made["a"], int)
        assert made.keys() <= {"a", "b", "c"}


def test_partial_functions() -> None:
    def f(a: int, b: int) -> int:
        """Add."""
        return a + b

    tool = Tool.of(functools.partial(f, 1))
    assert (tool.name, tool.description, list(tool.parameters["properties"])) == ("f", "Add.", ["b"])
    assert tool.function(**tool.arguments('{"b": 2}')) == 3
