"""A recipe from Python: values in, a body out, and mistakes that say what they are."""

from __future__ import annotations

import json
import sys

import pytest

from sluicegate.engine import Recipe, scan

BODY = b'{ "model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"x":1.0 }'


def test_a_recipe_does_all_of_it_in_one_call() -> None:
    recipe = Recipe(
        system_prompt='Say "yes".',
        system_role="developer",
        replace_system=True,
        fields=[("temperature", b"0.5", True), ("stop", b'["x"]', False)],
        denied=["x"],
        max_tokens_field="max_completion_tokens",
    )
    request = scan("chat", BODY)
    body, dropped = request.compose(recipe, "b", False, 9)
    assert json.loads(body) == {
        "model": "b",
        "messages": [{"role": "developer", "content": 'Say "yes".'}, {"role": "user", "content": "u"}],
        "temperature": 0.5,
        "stop": ["x"],
        "max_completion_tokens": 9,
    }
    assert dropped == ["x", "messages[0]"]


def test_a_body_that_needs_no_change_is_the_same_object() -> None:
    request = scan("chat", BODY)
    body, dropped = request.compose(Recipe(), "a", True, None)
    assert body is BODY
    assert dropped == []


def test_a_wrong_name_for_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens_field: expected one of"):
        Recipe(max_tokens_field="tokens")


def test_composing_many_times_keeps_nothing() -> None:
    recipe, request = Recipe(system_prompt="p" * 1000), scan("chat", BODY)
    request.compose(recipe, "b", False, None)
    before = sys.getrefcount(BODY), sys.getallocatedblocks()
    for _ in range(2000):
        request.compose(recipe, "b", False, None)
    assert sys.getrefcount(BODY) == before[0]
    assert sys.getallocatedblocks() - before[1] < 200


def test_the_scan_tells_what_counting_needs() -> None:
    request = scan("chat", BODY)
    assert (request.message_count, request.system_count, request.media_count) == (2, 1, 0)
    assert request.prompt_bytes == len(BODY) - len(b'{ "model":"a","messages":') - len(b',"x":1.0 }')
    assert scan("completions", b'{"prompt":["a","b"]}').input_count == 2
