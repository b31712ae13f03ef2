"""Bodies of PATCH: what is left out stays, null gives back the default, in the structs inside likewise."""

from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sluicegate.http.json_body import convert

T = TypeVar("T", bound=Struct)


def patch_of(kind: type[Struct], name: str, **more: Any) -> Any:
    """The struct of a change to `kind`: every field may be left out or null. `more` are fields beside it."""
    hints = get_type_hints(kind, include_extras=True) | more
    fields = [
        (field, _optional(hint, field, name), msgspec.field(default=UNSET)) for field, hint in hints.items()
    ]
    made = msgspec.defstruct(name, fields, frozen=True, forbid_unknown_fields=True, kw_only=True)
    made.__doc__ = (
        f"A change: what is left out stays as it is, null gives back the default. ({kind.__name__})"
    )
    return made


def patched(before: T, change: Struct) -> T:
    """`before` with the change. Raises a 400 that names the field, such as a null for one without default."""
    kind = type(before)
    return convert(_merge(msgspec.to_builtins(before), msgspec.to_builtins(change), kind), kind)


def _merge(old: dict[str, Any], new: dict[str, Any], kind: type[Struct]) -> dict[str, Any]:
    inner = {field.encode_name: _struct_in(field.type) for field in msgspec.structs.fields(kind)}
    for name, value in new.items():
        if name not in inner:
            continue
        nested = inner[name]
        if value is None:
            old.pop(name, None)
        elif nested is not None:
            old[name] = _merge(old[name], value, nested)
        else:
            old[name] = value
    return old


def _optional(hint: Any, field: str, name: str) -> Any:
    nested = _struct_in(hint)
    if nested is not None:
        hint = patch_of(nested, f"{name.removesuffix('Patch')}{field.title().replace('_', '')}Patch")
    return Union[hint, None, UnsetType]  # noqa: UP007 (made of values, not written as a type)


def _struct_in(hint: Any) -> type[Struct] | None:
    """The struct that a field holds, itself or as one of several."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        return hint
    if get_origin(hint) in (Union, UnionType, Annotated):
        found = [inner for inner in (_struct_in(part) for part in get_args(hint)) if inner is not None]
        return found[0] if found else None
    return None
