"""The parts of a plan, and what collects them."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from msgspec import Struct

from sluicegate.config.reader import ConfigError
from sluicegate.config.secrets import SecretError, SecretSource
from sluicegate.settings import Secret, Source
from sluicegate.storage.transaction import Change, View
from sluicegate.toml_lines import Path
from sluicegate.toml_text import value_text

Action = Literal["create", "change", "delete"]
Kind = Literal["workspace", "upstream", "assistant", "key"]
# Does the step; of a key that was made it gives the text.
Run = Callable[[Change], Awaitable[str | None]]


class Words(Struct, frozen=True):
    """What is shown in place of a secret."""

    text: str


class Field(Struct, frozen=True):
    """One key of an object, before and after; None: not there, or at its default."""

    key: str
    before: Any = None
    after: Any = None


class Item(Struct, frozen=True):
    """An object by name; `workspace` is `_platform` for the operator's own."""

    kind: Kind
    workspace: str
    name: str


class Step(Struct, frozen=True, kw_only=True):
    """One change of one object. `path` is where the file says it; () for what it does not say."""

    action: Action
    item: Item
    fields: tuple[Field, ...] = ()
    path: Path = ()
    run: Run

    def same(self, other: "Step") -> bool:
        """Whether it would be shown in the same way."""
        mine, theirs = (self.action, self.item, self.fields), (other.action, other.item, other.fields)
        return mine == theirs


class Plan(Struct, frozen=True, kw_only=True):
    """What will be done, in order; what is only told; and what stays though no file has it."""

    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    unmanaged: tuple[Item, ...]

    def same(self, other: "Plan") -> bool:
        """Whether the two would change the same."""
        return len(self.steps) == len(other.steps) and all(
            mine.same(theirs) for mine, theirs in zip(self.steps, other.steps, strict=True)
        )


class Options(Struct, frozen=True, kw_only=True):
    """How to compare: what the file's places are called, where secrets come from, and whether what the file
    does not have is deleted. Secrets of keys that are replaced stay valid for `grace_ms`.
    """

    source: Source
    secrets: SecretSource
    prune: bool = False
    grace_ms: int = 0


class Planner:
    """Collects steps, warnings and errors of one comparison."""

    def __init__(self, view: View, options: "Options") -> None:
        self.view = view
        self.options = options
        self.steps: list[Step] = []
        self.removals: list[Step] = []
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.unmanaged: list[Item] = []

    def fail(self, path: Path, message: str) -> None:
        """Note an error."""
        self.errors.append(str(self.options.source.error(path, message)))

    def warn(self, path: Path, message: str) -> None:
        """Note what works, but is probably not meant."""
        self.warnings.append(str(self.options.source.error(path, message)))

    def add(self, action: Action, item: Item, fields: tuple[Field, ...], path: Path, run: Run) -> None:
        """Note a change."""
        self.steps.append(Step(action=action, item=item, fields=fields, path=path, run=run))

    def missing(self, item: Item, run: Run) -> None:
        """An object that the file does not have: it goes with --prune only."""
        if self.options.prune:
            self.removals.append(Step(action="delete", item=item, run=run))
        else:
            self.unmanaged.append(item)

    def secret(self, ref: str, path: Path) -> Secret | None:
        """What a reference stands for; None, and an error, where it is not there."""
        try:
            return self.options.secrets.resolve(ref)
        except SecretError as error:
            self.fail(path, str(error))
            return None

    def finish(self) -> Plan:
        """The plan. Raises ConfigError."""
        if self.errors:
            raise ConfigError(*self.errors)
        return Plan(
            steps=(*self.steps, *self.removals),
            warnings=tuple(self.warnings),
            unmanaged=tuple(self.unmanaged),
        )


def differing(before: dict[str, Any], after: dict[str, Any]) -> tuple[Field, ...]:
    """The keys whose values are not the same, as texts: 1 is not 1.0, and not true."""
    keys = [*before, *(key for key in after if key not in before)]
    return tuple(
        Field(key, before.get(key), after.get(key))
        for key in keys
        if _shown(before.get(key)) != _shown(after.get(key))
    )


def _shown(value: Any) -> str | None:
    return None if value is None else value_text(value)
