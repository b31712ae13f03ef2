"""The records: what is accepted, what a window of a percentage means, and whom a role includes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sluicegate.assistants.model import LOCKABLE, AssistantDraft, AssistantSpec
from sluicegate.members.model import Role
from sluicegate.upstreams.profile import PROFILES, UpstreamKind
from sluicegate.upstreams.record import UpstreamDraft, origin_of
from sluicegate.workspaces.model import ContextWindow, WorkspaceSettings


def refused(kind: Any, **values: Any) -> str:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(values, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "of_model", "tokens"),
    [
        ("40%", 32_768, 13_107),
        ("40%", None, None),
        ("100%", 8192, 8192),
        ("1%", 50, 1),
        ("4096", None, 4096),
        ("4096", 32_768, 4096),
        ("4096", 2048, 2048),
    ],
)
def test_a_window_is_resolved(text: str, of_model: int | None, tokens: int | None) -> None:
    assert ContextWindow.of(text).resolve(of_model) == tokens
    assert str(ContextWindow.of(text)) == text


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "40 %", "-1", "4k", "1e3", "40%%", "٤٠%", "40%\n"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        ContextWindow.of(text)
    assert "context_window" in refused(WorkspaceSettings, context_window=text)


@pytest.mark.parametrize("name", ["a", "qwen3-coder-14B", "Ä ß/日本:🦀 x", "a" * 256, "`'\"\\<>&"])
def test_names_of_assistants(name: str) -> None:
    draft = msgspec.convert({"name": name, "spec": {"model": ["local/m"]}}, AssistantDraft)
    assert draft.name == name
    assert msgspec.json.decode(msgspec.json.encode(draft), type=AssistantDraft) == draft


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "\x7f", "a\x85", "tab\t", "a" * 257, "a\n"])
def test_what_is_no_name(name: str) -> None:
    assert "name" in refused(AssistantDraft, name=name, spec={"model": ["local/m"]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", []),
        ("model", ["no-slash"]),
        ("model", ["/m"]),
        ("model", ["u/"]),
        ("model", ["u/m"] * 17),
        ("temperature", 2.01),
        ("temperature", -0.1),
        ("quality_score", 101),
        ("quality_score", -1),
        ("quality_score", 1.5),
        ("chat_history", "on"),
        ("max_tokens", 0),
        ("locked", ["stream"]),
        ("tempreature", 1),
    ],
)
def test_what_no_assistant_has(field: str, value: Any) -> None:
    assert field in refused(AssistantSpec, **{"model": ["u/m"], field: value})


def test_an_assistant_keeps_what_is_set() -> None:
    spec = msgspec.convert(
        {"model": ["u/a/b", "u/c"], "temperature": 0.0, "locked": ["temperature"], "stop": ["x"]},
        AssistantSpec,
    )
    assert spec.defaults == {"temperature": 0.0, "stop": ("x",)}
    assert spec.locked == {"temperature"}
    assert (spec.chat_history, spec.quality_score) == ("off", 0)
    assert {f.name for f in msgspec.structs.fields(AssistantSpec)} >= set(LOCKABLE)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("HTTPS://API.Example.com/v1", "https://api.example.com:443"),
        ("http://h", "http://h:80"),
        ("http://[::1]:9/v1", "http://::1:9"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url", ["ftp://h/v1", "h/v1", "http://", "http://h/?a=1", "http://h/#x", "http://h h"]
)
def test_what_is_no_base_url(url: str) -> None:
    assert "base_url" in refused(UpstreamDraft, name="u", base_url=url)


def test_every_kind_has_a_profile() -> None:
    assert set(PROFILES) == set(UpstreamKind.__args__)
    for profile in PROFILES.values():
        assert profile.default_base_url is None or profile.default_base_url.startswith("https://")


def test_roles_include_what_is_below() -> None:
    order = list(Role)
    for at, role in enumerate(order):
        assert [role.includes(other) for other in order] == [n >= at for n in range(len(order))]
