"""`FIELD=VALUE` on the command line: the keys of a configuration file, with the same checks."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import typer

from sluicegate.cli.refuse import refuse

if TYPE_CHECKING:
    from msgspec import Struct

Fields = Annotated[
    list[str] | None,
    typer.Argument(
        help="Keys of the configuration file: max_tokens=512, model=local/a, aliases.fast=b. "
        "A list is given by repeating; @PATH reads a text from a file; FIELD= goes back to the default.",
        metavar="FIELD=VALUE",
    ),
]

S = TypeVar("S", bound="Struct")

_JSON = ("response_format", "tools", "tool_choice")
_SPAN = re.compile(r"[0-9]{1,9}[smhd]")


def entry(kind: type[S], given: list[str] | None, before: dict[str, Any], fixed: dict[str, Any]) -> S:
    """An entry: what was there (`before`), what is given over it, and what the command itself says."""
    from sluicegate.cli.session import refuse_all  # noqa: PLC0415
    from sluicegate.config.file import AssistantEntry, UpstreamEntry  # noqa: PLC0415
    from sluicegate.config.reader import Reader, check_assistant, check_upstream  # noqa: PLC0415
    from sluicegate.settings import Source  # noqa: PLC0415

    values = {**fixed, **_over(before, given or [], kind)}
    reader = Reader(Source())
    found = reader.entry(values, kind, ())
    if isinstance(found, UpstreamEntry):
        found = cast("S", check_upstream(reader, found, (), Path(), owned=False))
    if isinstance(found, AssistantEntry):
        # As a kind of entry it is what was asked for.
        found = cast("S", check_assistant(reader, found, (), Path()))
    if found is None or reader.errors:
        refuse_all(tuple(reader.errors))
    return found


def _over(before: dict[str, Any], given: list[str], kind: "type[Struct]") -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    kinds = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    values = dict(before)
    begun: set[str] = set()
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            refuse(f"`{pair}`: expected FIELD=VALUE")
        field, _, inner = name.partition(".")
        wanted = kinds.get(field, str)
        if inner:
            values[field] = _inside(values.get(field, {}), inner, text, wanted)
        elif not text or (field, text) == ("expires", "never"):
            values.pop(field, None)
        elif _is_list(wanted, text) and field not in _JSON:
            # The first one replaces what was there.
            values[field] = [*(values[field] if field in begun else ()), *_items(text)]
            begun.add(field)
        else:
            values[field] = _one(field, text, wanted)
    return values


def _inside(before: Any, name: str, text: str, kind: Any) -> dict[str, Any]:
    """A table with one key set, or taken away."""
    values = dict(before) if isinstance(before, dict) else {}
    values.pop(name, None)
    if text:
        values[name] = text if _takes_text(_value_type(kind, name)) else _toml(text)
    return values


def _one(field: str, text: str, kind: Any) -> Any:
    if text.startswith("@"):
        text = _file(text[1:])
    if field in _JSON and text.lstrip().startswith(("{", "[")):
        return f"json:{text}"
    if field == "expires" and _SPAN.fullmatch(text):
        from sluicegate.cli.duration import milliseconds  # noqa: PLC0415
        from sluicegate.clock import wall_ns  # noqa: PLC0415

        return wall_ns() // 1_000_000 + milliseconds(text, field)
    return text if _takes_text(kind) else _toml(text)


def _items(text: str) -> list[Any]:
    if text.startswith("["):
        found = _toml(text)
        if isinstance(found, list):
            return found
    return [text]


def _toml(text: str) -> Any:
    """A number, true or false, a list, a table; what is none of them stays a text, and is refused as one."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError, KeyError):
        return text


def _file(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8")
    except OSError as error:
        refuse(f"{name}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        refuse(f"{name}: not a UTF-8 text")


def _parts(kind: Any) -> Iterator[Any]:
    """The alternatives of a type, without their bounds."""
    if get_origin(kind) is Annotated:
        yield from _parts(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for inner in get_args(kind):
            yield from _parts(inner)
    else:
        yield kind


def _takes_text(kind: Any) -> bool:
    return any(part is str or get_origin(part) is Literal for part in _parts(kind))


def _is_list(kind: Any, text: str) -> bool:
    parts = list(_parts(kind))
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    return text not in words and any(get_origin(part) in (tuple, frozenset) for part in parts)


def _value_type(kind: Any, name: str) -> Any:
    """What stands in a table under a key."""
    import msgspec  # noqa: PLC0415

    for part in _parts(kind):
        if get_origin(part) is dict:
            return get_args(part)[1]
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return {field.encode_name: field.type for field in msgspec.structs.fields(part)}.get(name, str)
    return str
