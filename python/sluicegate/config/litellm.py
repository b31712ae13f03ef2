"""A LiteLLM `config.yaml` as a configuration file: what can be carried over, and a warning for the rest."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from sluicegate.config.file import AssistantEntry, KeyEntry, UpstreamEntry, WorkspaceSettingsEntry
from sluicegate.config.litellm_deployment import ENV, Deployment, Notes, read_deployment, secret_ref
from sluicegate.config.reader import Reader
from sluicegate.config.yaml_text import YamlFile
from sluicegate.settings import Source
from sluicegate.toml_lines import Path
from sluicegate.toml_text import table_text

_MOST_MODELS = 16
_SHORTEST_KEY = 16
_READ = {
    "model_list": None,
    "credential_list": None,
    "environment_variables": None,
    "litellm_settings": {"fallbacks", "default_fallbacks", "context_window_fallbacks", "request_timeout"},
    "router_settings": {
        *("fallbacks", "default_fallbacks", "context_window_fallbacks", "model_group_alias"),
        *("timeout", "stream_timeout"),
    },
    "general_settings": {"master_key"},
}
_HEAD = """\
# Made from {name} by `sluicegate import litellm`.
# Read it, set the variables that it names, then: sluicegate apply -f FILE
"""


class Group(Struct):
    """All deployments behind one name, and what follows when they fail."""

    name: str
    path: Path
    deployments: list[Deployment]
    fallbacks: list[str] = []


class Imported(Struct, frozen=True):
    """The file, and what is not in it."""

    text: str
    warnings: tuple[str, ...]


def convert(source: YamlFile, workspace: str, environ: Mapping[str, str] = os.environ) -> Imported:
    """The configuration file that is like it; nothing of it is secret.

    Raises ConfigError for an id that no workspace can have.
    """
    reader = Reader(Source())
    reader.entry({"id": workspace}, WorkspaceSettingsEntry, ())
    reader.finish()
    notes = Notes(source)
    _warn_of_others(source, notes)
    known = {**_section(source, "environment_variables"), **environ}
    groups = _groups(source, notes, known)
    _add_aliases(source, groups, notes)
    _add_fallbacks(source, groups, notes)
    upstreams = _upstreams(group for group in groups.values())
    plain: list[str] = []
    assistants = []
    for group in groups.values():
        if _is_plain(group):
            plain += _add_plain(group, upstreams)
        else:
            assistants.append((_assistant(group, groups, notes), group.path))
    shown = "".join(c if c.isprintable() else "?" for c in source.name)
    parts = [_HEAD.format(name=shown), table_text("[[workspace]]", _workspace(workspace, plain))]
    parts += _valid("[[workspace.upstream]]", UpstreamEntry, _paths(upstreams), notes)
    parts += _valid("[[workspace.assistant]]", AssistantEntry, assistants, notes)
    parts += _valid("[[workspace.key]]", KeyEntry, _keys(source, notes), notes)
    return Imported("\n".join(parts), tuple(notes.lines))


def _section(source: YamlFile, name: str) -> dict[str, Any]:
    found = source.values.get(name)
    return found if isinstance(found, dict) else {}


def _warn_of_others(source: YamlFile, notes: Notes) -> None:
    """Every key that nothing here reads."""
    for name, value in source.values.items():
        wanted = _READ.get(name, set())
        if name == "environment_variables" and value:
            notes.add((name,), f"set these variables yourself: {', '.join(map(str, _section(source, name)))}")
        elif name not in _READ:
            hint = ": include the files into one first" if name == "include" else ""
            notes.add((name,), f"not carried over{hint}")
        elif wanted and isinstance(value, dict):
            for key in value:
                if key not in wanted:
                    notes.add((name, key), "not carried over")


def _groups(source: YamlFile, notes: Notes, known: Mapping[str, Any]) -> dict[str, Group]:
    listed = source.values.get("model_list")
    if not isinstance(listed, list) or not listed:
        notes.add(("model_list",), "there are no models: expected a list with model_name and litellm_params")
        return {}
    shared = source.values.get("credential_list")
    credentials = {
        str(entry.get("credential_name")): entry.get("credential_values")
        for entry in (shared if isinstance(shared, list) else ())
        if isinstance(entry, dict)
    }
    router, general = _section(source, "router_settings"), _section(source, "litellm_settings")
    defaults = {
        "timeout": router.get("timeout", general.get("request_timeout")),
        "stream_timeout": router.get("stream_timeout"),
    }
    groups: dict[str, Group] = {}
    for index, entry in enumerate(listed):
        path: Path = ("model_list", index)
        found = read_deployment(entry, path, notes, known, (credentials, defaults))
        if found is not None:
            group = groups.setdefault(found.name, Group(found.name, path, []))
            group.deployments.append(found)
    return groups


def _add_aliases(source: YamlFile, groups: dict[str, Group], notes: Notes) -> None:
    """A further name for a group: `{"gpt-4": "gpt-4o"}`, or with `{"model": …, "hidden": …}`."""
    path: Path = ("router_settings", "model_group_alias")
    aliases = _section(source, "router_settings").get("model_group_alias")
    for alias, said in (aliases if isinstance(aliases, dict) else {}).items():
        target = said.get("model") if isinstance(said, dict) else said
        if not isinstance(target, str) or target not in groups:
            notes.add((*path, alias), "this is the name of no model")
        elif alias in groups:
            notes.add((*path, alias), "there is a model_name of this name already: left out")
        else:
            copied = [found.renamed(alias) for found in groups[target].deployments]
            groups[alias] = Group(alias, (*path, alias), copied)


def _add_fallbacks(source: YamlFile, groups: dict[str, Group], notes: Notes) -> None:
    for section in ("litellm_settings", "router_settings"):
        values = _section(source, section)
        for kind in ("fallbacks", "context_window_fallbacks"):
            for name, others in _pairs(values.get(kind)):
                path: Path = (section, kind)
                if name == "*":
                    targets = list(groups.values())
                elif name in groups:
                    targets = [groups[name]]
                else:
                    notes.add(path, f"there is no model_name `{name}`")
                    continue
                for group in targets:
                    _extend(group, others, groups, notes, path)
        default = values.get("default_fallbacks")
        for group in list(groups.values()):
            if isinstance(default, list) and not group.fallbacks:
                _extend(group, default, groups, notes, (section, "default_fallbacks"))


def _pairs(listed: Any) -> Iterator[tuple[str, list[Any]]]:
    """`[{"a": ["b", "c"]}, …]`."""
    for entry in listed if isinstance(listed, list) else ():
        for name, others in (entry if isinstance(entry, dict) else {}).items():
            yield name, others if isinstance(others, list) else [others]


def _extend(group: Group, others: list[Any], groups: dict[str, Group], notes: Notes, path: Path) -> None:
    for other in others:
        if not isinstance(other, str) or other not in groups:
            notes.add(
                path, f"there is no model_name `{other if isinstance(other, str) else '…'}` to fall back to"
            )
        elif other != group.name and other not in group.fallbacks:
            group.fallbacks.append(other)


def _upstreams(groups: Iterable[Group]) -> dict[Any, dict[str, Any]]:
    """One upstream for all deployments with the same server, key and clocks; they learn its name."""
    found: dict[Any, dict[str, Any]] = {}
    names: set[str] = set()
    for deployment in (deployment for group in groups for deployment in group.deployments):
        values = found.get(deployment.server)
        if values is None:
            name = _free(deployment.suggested, names)
            names.add(name)
            values = {"name": name, **deployment.upstream, "models": [], "aliases": {}, "context_lengths": {}}
            found[deployment.server] = values | {"path": deployment.path}
            values = found[deployment.server]
        deployment.upstream_name = values["name"]
        if deployment.is_wildcard:
            values["models"] = None
        elif values["models"] is not None and deployment.model not in values["models"]:
            values["models"].append(deployment.model)
        if deployment.context_length is not None:
            values["context_lengths"][deployment.model] = deployment.context_length
    return found


def _free(name: str, taken: set[str]) -> str:
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _is_plain(group: Group) -> bool:
    """Whether aliases of upstreams say it all: no parameters, no fallbacks, one model on each server."""
    servers = {deployment.server for deployment in group.deployments}
    return (
        not group.fallbacks
        and len(servers) == len(group.deployments)
        and not any(deployment.parameters for deployment in group.deployments)
    )


def _add_plain(group: Group, upstreams: dict[Any, dict[str, Any]]) -> list[str]:
    """Put the name on each server; what the workspace has to allow for it."""
    allowed = [group.name]
    for deployment in group.deployments:
        if deployment.is_wildcard:
            allowed.append(f"{deployment.upstream_name}/*")
        elif deployment.model != group.name:
            upstreams[deployment.server]["aliases"][group.name] = deployment.model
    return allowed


def _assistant(group: Group, groups: dict[str, Group], notes: Notes) -> dict[str, Any]:
    """An assistant asks in order: the deployments of the group, then those it falls back to."""
    first = group.deployments[0]
    if len(group.deployments) > 1:
        notes.add(
            group.path,
            f"`{group.name}` becomes an assistant: its deployments are asked in order, not by weight",
        )
    if any(deployment.parameters != first.parameters for deployment in group.deployments):
        notes.add(group.path, f"`{group.name}`: the parameters of its first deployment are used for all")
    members = [group, *(groups[name] for name in group.fallbacks)]
    refs = [
        f"{deployment.upstream_name}/{deployment.model}"
        for member in members
        for deployment in member.deployments
        if not deployment.is_wildcard
    ]
    models = list(dict.fromkeys(refs))
    if len(models) > _MOST_MODELS:
        notes.add(
            group.path, f"`{group.name}`: only the first {_MOST_MODELS} of {len(models)} models are kept"
        )
    return {"name": group.name, "model": models[:_MOST_MODELS], **first.parameters}


def _workspace(workspace: str, plain: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {"id": workspace}
    if not plain:
        values["plain_models"] = False
    elif "*" not in plain:
        # LiteLLM serves what is listed, and nothing else.
        values["allowed_models"] = list(dict.fromkeys(plain))[:10_000]
    return values


def _paths(upstreams: dict[Any, dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Path]]:
    for values in upstreams.values():
        path = values.pop("path")
        yield {key: value for key, value in values.items() if value not in (None, {}, [])}, path


def _keys(source: YamlFile, notes: Notes) -> Iterator[tuple[dict[str, Any], Path]]:
    path: Path = ("general_settings", "master_key")
    given = _section(source, "general_settings").get("master_key")
    if given is None:
        return
    ref = secret_ref(given, "LITELLM_MASTER_KEY", path, notes)
    if not str(given).startswith(ENV) and len(str(given)) < _SHORTEST_KEY:
        notes.add(path, f"a key has at least {_SHORTEST_KEY} characters here: choose a longer one")
    notes.add(path, "becomes the key `master`, for clients only: it manages nothing here")
    yield {"name": "master", **({} if ref is None else {"secret": ref})}, path


def _valid(
    heading: str, kind: type[Struct], entries: Iterable[tuple[dict[str, Any], Path]], notes: Notes
) -> Iterator[str]:
    """The tables that a configuration file takes; the others become warnings."""
    for values, path in entries:
        reader = Reader(Source())
        reader.entry(values, kind, ())
        if reader.errors:
            name = values.get("name")
            notes.add(path, f"`{name}` is left out: {'; '.join(reader.errors)}")
            continue
        yield table_text(heading, values)
