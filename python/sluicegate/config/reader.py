"""Text → entries: every error is found, each with file, line and key."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct

from sluicegate import conversion
from sluicegate.config.file import (
    AssistantEntry,
    ConfigFile,
    KeyEntry,
    UpstreamEntry,
    WorkspaceEntry,
)
from sluicegate.settings import Source
from sluicegate.toml_lines import Path as KeyPath
from sluicegate.toml_lines import TomlError, parse
from sluicegate.upstreams.record import origin_of
from sluicegate.upstreams.tokenizers import names_file

S = TypeVar("S", bound=Struct)

MOST_BYTES = 16 << 20
_MOST_PROMPT_BYTES = 1 << 20
_JSON = "json:"

_NAME = "1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit"
_REF = "env:NAME or file:PATH; the secret itself must not stand here, where others can read it"
# What the patterns of texts mean, by the key.
_FORMS = {
    "api_key": f'{_REF}. "kept" is the one that is stored',
    "secret": _REF,
    "headers": 'env:NAME, file:PATH, text:VALUE, or "kept" for what is stored',
    "id": "1 to 63 lower-case letters, digits and hyphens, no hyphen at either end",
    "context_window": 'a share such as "40%", or a number of tokens such as 4096',
    "model": "an upstream's name, a slash, the model's id",
    "base_url": "a URL that begins with http:// or https://, without a query",
    "public_base_url": "a URL that begins with http:// or https://, without a query",
    "default_upstream": f"an upstream's name: {_NAME}",
}


class ConfigError(Exception):
    """A configuration that cannot be used; each line names file, line and key, and what is expected."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Reader:
    """Turns tables into entries, and collects what is wrong with them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.errors: list[str] = []

    def fail(self, path: KeyPath, message: str) -> None:
        """Note an error."""
        text = str(self.source.error(path, message))
        if text not in self.errors:
            self.errors.append(text)

    def finish(self) -> None:
        """Raises ConfigError where anything was wrong."""
        if self.errors:
            raise ConfigError(*sorted(self.errors, key=_in_order))

    def entry(self, values: Any, kind: type[S], path: KeyPath) -> S | None:
        """One table as an entry, field by field; None where something is wrong with it."""
        if not isinstance(values, dict):
            self.fail(path, "expected a table")
            return None
        before = len(self.errors)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for name in values:
            if name not in fields:
                self.fail((*path, name), _unknown(name, fields))
        read: dict[str, Any] = {}
        for name, field in fields.items():
            if name in values:
                found = self._value(values[name], field.type, (*path, name))
                if found is not _BAD:
                    read[field.name] = found
            elif field.required:
                self.fail(path, f"the key `{name}` is missing")
        return kind(**read) if len(self.errors) == before else None

    def _value(self, value: Any, kind: Any, path: KeyPath) -> Any:
        key = str(path[-1])
        try:
            return msgspec.convert(_PREPARE.get(key, _as_it_is)(value), kind)
        except msgspec.ValidationError as error:
            what, inner = conversion.split(str(error))
            self.fail((*path, *inner), _explain(what, key, kind))
        except (ValueError, RecursionError) as error:
            self.fail(
                path, str(error) if isinstance(error, _PreparedError) else "nested too deep or too large"
            )
        return _BAD


_BAD = object()


class _PreparedError(ValueError):
    """A value that has a form of its own here, and does not have it."""


def read_file(path: Path | None, raw: bytes, shown: str) -> tuple[ConfigFile, Source]:
    """A whole file. `path` is what relative paths in it start from; None: the working directory.

    Raises ConfigError.
    """
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{shown}: larger than {MOST_BYTES >> 20} MiB")
    try:
        values, lines = parse(raw)
    except TomlError as error:
        raise ConfigError(f"{shown}:{error.line}: {error}") from None
    reader = Reader(Source(shown, lines))
    for name, value in values.items():
        if name not in ConfigFile.__struct_fields__:
            hint = " This looks like a settings file, for `serve --config`." if name in _SETTINGS else ""
            where: KeyPath = (name, 0) if isinstance(value, list) else (name,)
            reader.fail(where, f"unknown key. Known here: [[workspace]], [[upstream]].{hint}")
    folder = Path() if path is None else path.parent
    upstreams = list(_all(reader, values, "upstream", UpstreamEntry, ()))
    for index, upstream in enumerate(upstreams):
        upstreams[index] = check_upstream(reader, upstream, ("upstream", index), folder, owned=False)
        _refuse_stdin(reader, upstream.api_key, ("upstream", index, "api_key"))
    workspaces = tuple(_workspaces(reader, values, folder))
    _require_unique(reader, upstreams, ("upstream",), "name")
    _require_unique(reader, workspaces, ("workspace",), "id")
    reader.finish()
    return ConfigFile(upstream=tuple(upstreams), workspace=workspaces), reader.source


_SETTINGS = ("server", "keys", "upstreams", "assistants", "default_model", "allow_private_networks")


def check_upstream(
    reader: Reader, entry: UpstreamEntry, path: KeyPath, folder: Path, *, owned: bool
) -> UpstreamEntry:
    """What the fields alone do not say. Gives the entry with whole paths of its files."""
    try:
        origin_of(entry.base_url)
    except ValueError:
        reader.fail((*path, "base_url"), "expected a URL with a host, and a port from 1 to 65535")
    if owned and entry.offered_to != "none":
        reader.fail((*path, "offered_to"), "only the operator's own upstreams, [[upstream]], can be offered")
    tokenizers = {
        model: str((folder / name).absolute()) if names_file(name) else name
        for model, name in entry.tokenizers.items()
    }
    return msgspec.structs.replace(entry, tokenizers=tokenizers)


def check_assistant(reader: Reader, entry: AssistantEntry, path: KeyPath, folder: Path) -> AssistantEntry:
    """The entry, with the text of its prompt."""
    if len(set(entry.model)) != len(entry.model):
        reader.fail((*path, "model"), "the same model stands twice in the list")
    if entry.system_prompt_file is None:
        return entry
    where = (*path, "system_prompt_file")
    if entry.system_prompt is not None:
        reader.fail(where, "set either system_prompt or system_prompt_file, not both")
        return entry
    file = folder / entry.system_prompt_file
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MOST_PROMPT_BYTES)
        prompt = msgspec.convert(raw.decode("utf-8"), _fields(AssistantEntry)["system_prompt"].type)
    except OSError as error:
        reader.fail(where, f"{file} cannot be read: {error.strerror}")
        return entry
    except (UnicodeDecodeError, msgspec.ValidationError):
        reader.fail(where, f"{file}: expected a UTF-8 text of at most 100000 characters")
        return entry
    return msgspec.structs.replace(entry, system_prompt=prompt)


def _workspaces(reader: Reader, values: dict[str, Any], folder: Path) -> Iterator[WorkspaceEntry]:
    for index, table in enumerate(_tables(reader, values, "workspace", ())):
        path: KeyPath = ("workspace", index)
        own = {name: value for name, value in table.items() if name not in ("upstream", "assistant", "key")}
        found = reader.entry(own, WorkspaceEntry, path)
        upstreams = list(_all(reader, table, "upstream", UpstreamEntry, path))
        assistants = list(_all(reader, table, "assistant", AssistantEntry, path))
        keys = _all(reader, table, "key", KeyEntry, path)
        for number, upstream in enumerate(upstreams):
            where = (*path, "upstream", number)
            upstreams[number] = check_upstream(reader, upstream, where, folder, owned=True)
            _refuse_stdin(reader, upstream.api_key, (*path, "upstream", number, "api_key"))
        for number, assistant in enumerate(assistants):
            assistants[number] = check_assistant(reader, assistant, (*path, "assistant", number), folder)
        for number, key in enumerate(keys):
            _refuse_stdin(reader, key.secret, (*path, "key", number, "secret"))
        for kind, entries in (("upstream", upstreams), ("assistant", assistants), ("key", keys)):
            _require_unique(reader, entries, (*path, kind), "name")
        if found is not None:
            yield msgspec.structs.replace(
                found, upstream=tuple(upstreams), assistant=tuple(assistants), key=keys
            )


def _all(reader: Reader, values: dict[str, Any], name: str, kind: type[S], path: KeyPath) -> tuple[S, ...]:
    """The entries of an array of tables. With a bad one among them their numbers are wrong, but then the file
    is refused anyway.
    """
    tables = _tables(reader, values, name, path)
    found = [reader.entry(table, kind, (*path, name, index)) for index, table in enumerate(tables)]
    return tuple(entry for entry in found if entry is not None) if None not in found else ()


def _tables(reader: Reader, values: dict[str, Any], name: str, path: KeyPath) -> list[dict[str, Any]]:
    found = values.get(name, [])
    if isinstance(found, list) and all(isinstance(table, dict) for table in found):
        return found
    dotted = ".".join([*(part for part in path if isinstance(part, str)), name])
    reader.fail((*path, name), f"expected tables with the heading [[{dotted}]]")
    return []


def _require_unique(reader: Reader, entries: Any, path: KeyPath, field: str) -> None:
    seen = set()
    for index, entry in enumerate(entries):
        name = getattr(entry, field)
        if name in seen:
            reader.fail((*path, index, field), f"`{name}` is used twice")
        seen.add(name)


def _refuse_stdin(reader: Reader, ref: str | None, path: KeyPath) -> None:
    if ref == "-":
        reader.fail(path, f"expected {_REF}")


def _fields(kind: type[Struct]) -> dict[str, Any]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, known, n=1)
    return "unknown key." + (
        f" Did you mean `{close[0]}`?" if close else f" Known here: {', '.join(sorted(known))}."
    )


def _explain(what: str, key: str, kind: Any) -> str:
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        return f"unknown key `{unknown[1]}`. Known here: {', '.join(_inner_fields(kind))}."
    if "matching regex" in what:
        return f"expected {_FORMS.get(key, 'a name without control characters' if key == 'name' else _NAME)}"
    if what.startswith("Invalid enum value"):
        said = what.partition("value ")[2].strip("'")
        choices = sorted(set(_choices(kind)))
        close = get_close_matches(said, choices, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        return f"`{said}` is none of: {', '.join(choices)}.{hint}"
    return conversion.words(what)


def _choices(kind: Any) -> Iterator[str]:
    """The words that a type allows, wherever in it they stand."""
    if get_origin(kind) is Literal:
        yield from (str(value) for value in get_args(kind))
    else:
        for inner in get_args(kind):
            yield from _choices(inner)


def _inner_fields(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return list(kind.__struct_fields__)
    return [name for inner in get_args(kind) for name in _inner_fields(inner)]


def _in_order(text: str) -> tuple[int, str]:
    line = re.search(r":(\d+): ", text)
    return (int(line[1]) if line else 0, text)


def _as_it_is(value: Any) -> Any:
    return value


def _window(value: Any) -> Any:
    # TOML has numbers: 4096 is as good as "4096".
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _time(value: Any) -> Any:
    """A time as milliseconds since 1970."""
    if isinstance(value, str):
        try:
            value = (
                datetime.fromisoformat(value) if len(value) > len("2027-01-01") else date.fromisoformat(value)
            )
        except ValueError:
            raise _PreparedError(_TIME) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise _PreparedError("which time is that? Add an offset, such as Z: 2027-01-01T00:00:00Z")
    elif isinstance(value, date):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    else:
        raise _PreparedError(_TIME)
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND


_TIME = "expected a date such as 2027-01-01, or a time such as 2027-01-01T00:00:00Z"
_MILLISECOND = datetime(1970, 1, 1, 0, 0, 0, 1000) - datetime(1970, 1, 1)


def _json(value: Any) -> Any:
    """What TOML cannot say, such as null, stands as JSON behind «json:»."""
    if not isinstance(value, str) or not value.startswith(_JSON):
        return value
    try:
        return json.loads(value.removeprefix(_JSON))
    except ValueError:
        raise _PreparedError("not valid JSON behind json:") from None


_PREPARE = {
    "context_window": _window,
    "expires": _time,
    "response_format": _json,
    "tools": _json,
    "tool_choice": _json,
}
