"""Which way an upstream is told how much to think, and what is made of an assistant's words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sluicegate.assistants.model import AssistantSpec
from sluicegate.chat.thinking import rule_of
from sluicegate.upstreams.profile import PROFILES
from sluicegate.upstreams.thinking import MOST_LEARNED, LearnedSwitch, Switches, settings


def spec(**fields: Any) -> AssistantSpec:
    return msgspec.convert({"model": ["local/m"], **fields}, AssistantSpec)


@pytest.mark.parametrize(
    ("fields", "value", "locked", "output"),
    [
        ({}, "inherit", False, "pass"),
        ({"thinking": "off"}, "off", False, "pass"),
        ({"thinking": "budget:2000", "locked": ["thinking"]}, "budget:2000", True, "pass"),
        ({"locked": ["thinking"]}, "inherit", True, "pass"),
        ({"chat_history": "disable_think", "thinking": "high"}, "off", True, "hide"),
        ({"chat_history": "default_on", "reasoning_output": "separate"}, "inherit", False, "separate"),
        ({"reasoning_effort": "xhigh", "locked": ["reasoning_effort"]}, "xhigh", True, "pass"),
        ({"reasoning_effort": "none"}, "off", False, "pass"),
        ({"reasoning_effort": "high", "thinking": "low"}, "low", False, "pass"),
        ({"locked": ["reasoning_effort"]}, "inherit", True, "pass"),
    ],
)
def test_what_an_assistant_says(fields: dict[str, Any], value: str, locked: bool, output: str) -> None:
    rule = rule_of(spec(**fields))
    assert (rule.value, rule.locked, rule.output) == (value, locked, output)


@pytest.mark.parametrize(
    "wrong", ["max", "budget:", "budget:0", "budget:-1", "off ", "OFF", "budget:1e9", ""]
)
def test_what_no_assistant_can_say(wrong: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.thinking"):
        spec(thinking=wrong)


def test_the_next_way_follows_on_what_failed() -> None:
    switches = Switches(("template", "effort", "type"))
    assert switches.way("m", "off") == "template"
    assert switches.note("m", "off", "template", "not_effective")
    assert not switches.note("m", "off", "template", "not_effective"), "no news"
    assert not switches.note("m", "off", "template", "effective"), "once is not enough to be believed again"
    assert switches.way("m", "off") == "effort"
    assert (switches.way("other", "off"), switches.way("m", "on")) == ("template", "template")
    switches.note("m", "off", "effort", "refused")
    assert switches.way("m", "off") == "type"
    switches.note("m", "off", "type", "not_effective")
    # None works: the first that is no error.
    assert switches.way("m", "off") == "template"
    switches.note("m", "off", "template", "refused")
    assert switches.way("m", "off") == "type"
    switches.note("m", "off", "type", "refused")
    assert switches.way("m", "off") == "omit"
    assert settings("omit", "off") == []


def test_what_worked_may_cease_to() -> None:
    switches = Switches(("effort", "minimal"))
    assert switches.note("m", "off", "effort", "effective")
    assert switches.verdict("m", "off", "effort") == "effective"
    assert switches.note("m", "off", "effort", "not_effective")
    assert switches.way("m", "off") == "minimal"
    # A level in the same words would be refused again.
    switches.note("m", "on", "effort", "refused")
    assert switches.way("m", "on") == "omit"


def test_what_is_learned_is_bounded() -> None:
    switches = Switches(("effort",))
    found = [
        LearnedSwitch(model=f"m{n}", asked="off", way="effort", verdict="refused", at=1)
        for n in range(MOST_LEARNED + 10)
    ]
    switches.learn(found)
    assert switches.way(f"m{MOST_LEARNED - 1}", "off") == "omit"
    assert switches.way(f"m{MOST_LEARNED}", "off") == "effort"
    switches.note_opens("m", opens=True)
    assert switches.opens_thought("m")
    switches.note_opens("m", opens=False)
    assert not switches.opens_thought("m")


def test_every_kind_can_be_told() -> None:
    for kind, profile in PROFILES.items():
        assert profile.thinking, kind
        for way in profile.thinking:
            for value in ("off", "on", "low", "high", "budget:1", "budget:8192", "budget:999999999", "xhigh"):
                told = settings(way, value)
                assert told, (kind, way, value)
                for _, _, text in told:
                    msgspec.json.decode(text)


def test_a_word_cannot_break_out_of_its_quotes() -> None:
    assert settings("effort", 'a"b') == [("reasoning_effort", None, b'"a\\"b"')]
