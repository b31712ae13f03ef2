"""What the Responses API cannot do here is a 400 that names the field, as the official client sees it."""

from __future__ import annotations

from typing import Any

import pytest
from openai import BadRequestError, OpenAI

pytestmark = pytest.mark.timeout(120)

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].image_url",
    ),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tool_choice": {"type": "function", "name": "none"}}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"max_output_tokens": "many"}, "max_output_tokens"),
    ({"truncation": "some"}, "truncation"),
    ({"messages": []}, "messages"),
    ({"prompt": {"id": "pmpt"}}, "prompt"),
    ({"model": 5}, "model"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"api_base": "http://x"}, "api_base"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"conversation": "conv_x", "previous_response_id": "resp_x"}, "previous_response_id"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[param for _, param in REFUSED])
def test_what_cannot_be_is_refused_with_its_name(fields: dict[str, Any], param: str, client: OpenAI) -> None:
    body = {"model": "demo-fast", "input": "x", **fields}
    with pytest.raises(BadRequestError) as refused:
        client.post("/responses", body=body, cast_to=object)
    assert refused.value.param == param
    assert refused.value.code


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "store", "background"])
def test_without_a_database_state_is_refused_by_its_field(field: str, client: OpenAI) -> None:
    value: Any = {"store": True, "background": True}.get(field, "x_1")
    with pytest.raises(BadRequestError) as refused:
        client.responses.create(model="demo-fast", input="x", **{field: value})
    assert (refused.value.code, refused.value.param) == ("storage_not_configured", field)
    assert "SLUICEGATE_DATABASE_URL" in refused.value.message
