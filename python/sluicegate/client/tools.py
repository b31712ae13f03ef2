"""Tools from plain typed functions: their schema from signature and docstring, their arguments checked."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sluicegate.client.errors import ToolDefinitionError
from sluicegate.client.schemas import decode_foreign, hoisted, schema_of_foreign

# What OpenAI accepts as the name of a function.
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Tool(Struct, frozen=True):
    """A function that the model may call. `timeout` in seconds wins over the call's `tool_timeout`."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]
    accepts: type[Struct]
    timeout: float | None = None

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
    ) -> Tool:
        """Read name, parameters and descriptions from the function.

        Each parameter needs a type that JSON can hold: str, int, float, bool, None, list, dict, Literal,
        Enum, dataclass, msgspec Struct, TypedDict, pydantic model, or a union of these. The docstring may
        be in Google, NumPy, reST or Epydoc style. Raises ToolDefinitionError, which names the parameter.
        """
        inner = _inner(function)
        name = name or str(getattr(inner, "__name__", type(inner).__name__))
        if not _NAME.fullmatch(name):
            raise ToolDefinitionError(
                f"{name!r} is no name for a tool: letters, digits, _ and -, at most 64. "
                "Give one: Tool.of(…, name=…)."
            )
        said, parameters = _described(inspect.getdoc(inner) or "")
        accepts = _arguments(name, function, parameters)
        try:
            schema = msgspec.json.schema(accepts, schema_hook=schema_of_foreign)
        except TypeError as error:
            raise ToolDefinitionError(
                f"The tool {name} has a parameter that JSON cannot hold: {error}"
            ) from None
        schema = hoisted(schema)
        schema.pop("title", None)
        return cls(name, said if description is None else description, schema, function, accepts, timeout)

    def declaration(self) -> dict[str, Any]:
        """The entry of `tools` in a request."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.parameters}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function}

    def arguments(self, text: str) -> dict[str, Any]:
        """The arguments that a model wrote, checked and converted; raises msgspec.MsgspecError.

        Not strict: models write "5" where an integer is asked for.
        """
        value = msgspec.json.decode(
            text.strip() or "{}", type=self.accepts, strict=False, dec_hook=decode_foreign
        )
        given = ((name, getattr(value, name)) for name in self.accepts.__struct_fields__)
        return {name: argument for name, argument in given if argument is not UNSET}


# A function, a tool made of one, or a declaration in OpenAI's form that the caller answers himself.
ToolLike = Callable[..., Any] | Tool | Mapping[str, Any]


class Toolbox(Struct, frozen=True):
    """The tools of one call: those that are run here, and the declarations of all."""

    functions: Mapping[str, Tool]
    declarations: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, tools: tuple[ToolLike, ...]) -> Toolbox:
        """Raises ToolDefinitionError for two tools with one name."""
        functions: dict[str, Tool] = {}
        declarations: list[Mapping[str, Any]] = []
        for tool in tools:
            if isinstance(tool, Mapping):
                declarations.append(tool)
                continue
            made = tool if isinstance(tool, Tool) else Tool.of(tool)
            if made.name in functions:
                raise ToolDefinitionError(f"Two tools are called {made.name!r}.")
            functions[made.name] = made
            declarations.append(made.declaration())
        return cls(functions, tuple(declarations))


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a `functools.partial` stands for."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _described(docstring: str) -> tuple[str, dict[str, str]]:
    """The text of a docstring, and what it says about each parameter."""
    if not docstring:
        return "", {}
    from docstring_parser import parse  # noqa: PLC0415 - 15 ms that only users of tools pay

    parsed = parse(docstring)
    text = "\n\n".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)
    return text, {p.arg_name: p.description for p in parsed.params if p.description}


def _arguments(name: str, function: Callable[..., Any], said: Mapping[str, str]) -> type[Struct]:
    """A Struct with one field for each parameter."""
    try:
        signature = inspect.signature(function)
        inner = _inner(function)
        target = inner if inspect.isroutine(inner) else type(inner).__call__
        hints = get_type_hints(target, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise ToolDefinitionError(f"The types of the tool {name} cannot be read: {error}") from None
    fields: list[Any] = []
    for parameter in signature.parameters.values():
        if parameter.kind not in _NAMED:
            raise ToolDefinitionError(
                f"The tool {name} has a parameter {parameter}, which has no name for the model."
            )
        if parameter.name not in hints:
            raise ToolDefinitionError(f"The tool {name} has a parameter {parameter.name!r} without a type.")
        fields.append(_field(parameter, hints[parameter.name], said.get(parameter.name)))
    return msgspec.defstruct(
        name.replace("-", "_"), fields, kw_only=True, frozen=True, forbid_unknown_fields=True
    )


def _field(parameter: inspect.Parameter, hint: Any, said: str | None) -> tuple[Any, ...]:
    required = parameter.default is inspect.Parameter.empty
    extra: dict[str, Any] = {}
    if not required:
        try:
            extra["default"] = msgspec.to_builtins(parameter.default)
        except TypeError:
            said = f"{said or ''} (optional)".strip()
    if said or extra:
        hint = Annotated[hint, Meta(description=said, extra_json_schema=extra or None)]
    # Not its default: what the model does not give is left to the function.
    return (parameter.name, hint) if required else (parameter.name, hint | UnsetType, UNSET)
