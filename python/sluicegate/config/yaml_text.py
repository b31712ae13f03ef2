"""YAML of others, read with care: plain values only, bounded in size, depth and number, with lines."""

from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs would be one more thing to lock
from msgspec import Struct

from sluicegate.config.reader import ConfigError
from sluicegate.toml_lines import Path

MOST_BYTES = 1 << 20
_DEEPEST = 64
# An alias counts each time it is used: a few lines of aliases of aliases could stand for billions.
_MOST_NODES = 200_000
_MERGE = "tag:yaml.org,2002:merge"


class YamlFile(Struct, frozen=True):
    """The values, and the line of each key."""

    name: str
    values: dict[str, Any]
    lines: dict[Path, int]

    def place(self, path: Path) -> str:
        """`config.yaml:12`, of the path or of the nearest thing around it."""
        for end in range(len(path), 0, -1):
            line = self.lines.get(path[:end])
            if line is not None:
                return f"{self.name}:{line}"
        return self.name


def read_yaml(raw: bytes, name: str) -> YamlFile:
    """A file that is one mapping. Raises ConfigError."""
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{name}: larger than {MOST_BYTES >> 20} MiB")
    loader = None
    try:
        loader = yaml.SafeLoader(raw)
        node = loader.get_single_node()
        reading = _Reading(loader)
        values = {} if node is None else reading.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = name if mark is None else f"{name}:{mark.line + 1}"
        raise ConfigError(f"{place}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{name}: not valid YAML: expected UTF-8 text without control characters") from None
    except (RecursionError, _TooMuchError):
        raise ConfigError(f"{name}: nested too deep, or too many values") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected a mapping at the top, such as `model_list:`")
    return YamlFile(name, values, reading.lines)


class _TooMuchError(Exception):
    pass


class _Reading:
    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.lines: dict[Path, int] = {}
        self._loader = loader
        self._left = _MOST_NODES

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > _DEEPEST:
            raise _TooMuchError
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(inner, (*path, index)) for index, inner in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except ValueError:
            # A date that is none, for example: then it is a text.
            return node.value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, inner in node.value:
            if key.tag == _MERGE:
                parts = inner.value if isinstance(inner, yaml.SequenceNode) else [inner]
                for part in parts:
                    if isinstance(part, yaml.MappingNode):
                        merged = {**self.value(part, (*path, "<<")), **merged}
            elif isinstance(key, yaml.ScalarNode):
                self.lines[*path, key.value] = key.start_mark.line + 1
                own[key.value] = self.value(inner, (*path, key.value))
        return merged | own
