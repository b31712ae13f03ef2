"""A plan for people: what will be made, changed and deleted, in colour on a terminal."""

from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sluicegate.config.step import Words
from sluicegate.ids import PLATFORM
from sluicegate.toml_text import value_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sluicegate.config.step import Action, Field, Item, Plan, Step

_SIGNS: "dict[Action, tuple[str, str]]" = {
    "create": ("+", "green"),
    "change": ("~", "yellow"),
    "delete": ("-", "red"),
}
# Of a text of many lines, and of a long one.
_MOST_LINES = 60
_MOST_CHARACTERS = 2000
_SHOWN_UNMANAGED = 10


def show(plan: "Plan", console: Console) -> None:
    """Print the steps, and a line that counts them."""
    show_steps(plan, console)
    if plan.steps:
        console.print(Text(_counted(plan), style="bold"), soft_wrap=True)
    if plan.unmanaged:
        console.print(Text(_unmanaged(plan.unmanaged), style="dim"), soft_wrap=True)


def show_steps(plan: "Plan", console: Console) -> None:
    """Print the steps."""
    for step in plan.steps:
        for line in _step(step):
            console.print(line, soft_wrap=True)


def named(item: "Item") -> str:
    """«upstream acme/local», or «upstream local (operator)»."""
    if item.kind == "workspace":
        return f"workspace {item.name}"
    if item.workspace == PLATFORM:
        return f"{item.kind} {visible(item.name)} (operator)"
    return f"{item.kind} {item.workspace}/{visible(item.name)}"


def visible(text: str) -> str:
    """Without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _step(step: "Step") -> "Iterator[Text]":
    sign, style = _SIGNS[step.action]
    yield Text(f"{sign} {named(step.item)}", style=f"bold {style}")
    for field in step.fields:
        if step.action == "create":
            if field.key == "name" and field.after == step.item.name:
                continue
            yield Text(f"    {field.key} = {_value(field.after)}", style=style)
        else:
            yield from _changed(field)


def _changed(field: "Field") -> "Iterator[Text]":
    key = visible(field.key)
    texts = [value for value in (field.before, field.after) if isinstance(value, str)]
    if any("\n" in text for text in texts) and len(texts) == 2:  # noqa: PLR2004 (both are texts)
        yield Text(f"    {key}:")
        yield from _lines(field.before, field.after)
    elif field.before is None:
        yield Text(f"    + {key} = {_value(field.after)}", style="green")
    elif field.after is None:
        yield Text(f"    - {key} = {_value(field.before)}", style="red")
    else:
        line = Text(f"    {key}: ")
        line.append(_value(field.before), style="red")
        line.append(" → ")
        line.append(_value(field.after), style="green")
        yield line


def _lines(before: str, after: str) -> "Iterator[Text]":
    """Only the lines that differ, with one around them."""
    styles = {"+": "green", "-": "red"}
    found = list(unified_diff(before.split("\n"), after.split("\n"), lineterm="", n=1))[2:]
    for line in found[:_MOST_LINES]:
        if not line.startswith("@@"):
            yield Text(f"      {visible(line)}", style=styles.get(line[:1], "dim"))
    if len(found) > _MOST_LINES:
        yield Text(f"      … and {len(found) - _MOST_LINES} lines more", style="dim")


def _value(value: Any) -> str:
    if isinstance(value, Words):
        return value.text
    text = visible(value_text(value))
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}… ({len(text)} characters)"


def _counted(plan: "Plan") -> str:
    numbers = {action: sum(step.action == action for step in plan.steps) for action in _SIGNS}
    words = {"create": "to create", "change": "to change", "delete": "to delete"}
    return ", ".join(f"{number} {words[action]}" for action, number in numbers.items() if number) + "."


def _unmanaged(items: "tuple[Item, ...]") -> str:
    shown = ", ".join(named(item) for item in items[:_SHOWN_UNMANAGED])
    more = f" and {len(items) - _SHOWN_UNMANAGED} more" if len(items) > _SHOWN_UNMANAGED else ""
    return f"Not in the file, and left as they are (--prune deletes them): {shown}{more}."
