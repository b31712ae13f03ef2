"""What msgspec says of a value that does not fit, taken apart and in words for people."""

import re

from sluicegate.toml_lines import Path

# msgspec's names for what a value is.
_KINDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def split(message: str) -> tuple[str, Path]:
    """`message - at `$.upstreams[0].weight`` as what is wrong, and where."""
    what, _, where = message.partition(" - at `")
    return what, _path(where.rstrip("`"))


def words(what: str) -> str:
    """«Expected `str`, got `int`» for who does not know Python."""
    plain = re.sub(r"`(\w+(?: \| \w+)*)`", _kinds, what)
    return plain[:1].lower() + plain[1:]


def _kinds(found: re.Match[str]) -> str:
    """«int | null» is a whole number: nobody has to write null."""
    names = [name for name in found[1].split(" | ") if name != "null"]
    if len(names) == 1 and names[0] not in _KINDS:
        return found[0]
    return " or ".join(_KINDS.get(name, name) for name in names)


def _path(text: str) -> Path:
    """`$.upstreams[0].headers[...]` as a key path; `[...]` names no key, so it ends there."""
    path: list[str | int] = []
    for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", text):
        if index == "...":
            break
        path.append(int(index) if index else key)
    return tuple(path)
