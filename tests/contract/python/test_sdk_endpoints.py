"""Embeddings, completions and models with the official client."""

from __future__ import annotations

import math

import openai
import pytest
from openai import OpenAI


def test_embeddings_as_the_client_asks_for_them(client: OpenAI) -> None:
    # The client itself asks for base64 and decodes it.
    answer = client.embeddings.create(model="demo-embedding", input="one two three")
    vector = answer.data[0].embedding
    assert answer.model == "demo-embedding"
    assert all(isinstance(value, float) for value in vector)
    assert math.isclose(math.fsum(value * value for value in vector), 1, rel_tol=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 3


def test_embeddings_as_numbers_are_the_same(client: OpenAI) -> None:
    packed = client.embeddings.create(model="demo-embedding", input="alpha beta")
    plain = client.embeddings.create(model="demo-embedding", input="alpha beta", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(packed.data[0].embedding, abs=1e-6)


def test_embeddings_of_a_list_keep_its_order(client: OpenAI) -> None:
    texts = [f"text number {number}" for number in range(20)]
    answer = client.embeddings.create(model="demo-embedding", input=texts, dimensions=64)
    assert [item.index for item in answer.data] == list(range(20))
    assert {len(item.embedding) for item in answer.data} == {64}
    alone = client.embeddings.create(model="demo-embedding", input=texts[7], dimensions=64)
    assert alone.data[0].embedding == answer.data[7].embedding


def test_embeddings_of_tokens(client: OpenAI) -> None:
    answer = client.embeddings.create(model="demo-embedding", input=[[1, 2, 3], [4, 5]])
    assert len(answer.data) == 2


def test_completions_plain_and_streamed(client: OpenAI) -> None:
    plain = client.completions.create(model="demo-fast", prompt="Once upon a time")
    assert plain.object == "text_completion"
    assert plain.choices[0].finish_reason == "stop"
    chunks = list(client.completions.create(model="demo-fast", prompt="Once upon a time", stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == plain.choices[0].text
    assert not any("usage" in chunk.model_fields_set for chunk in chunks)


def test_completions_with_usage(client: OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="demo-fast", prompt="Once", stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_models_are_listed(client: OpenAI) -> None:
    models = list(client.models.list())
    names = [model.id for model in models]
    assert {"demo", "demo-fast", "demo-embedding", "scripted", "example/scripted-large"} <= set(names)
    assert len(names) == len(set(names))
    assert {model.object for model in models} == {"model"}
    assert all(model.created > 0 and model.owned_by for model in models)


def test_one_model_can_be_asked_for(client: OpenAI) -> None:
    assert client.models.retrieve("demo-fast").id == "demo-fast"


def test_a_model_with_a_slash_can_be_asked_for_and_used(client: OpenAI) -> None:
    # The client sends the slash as it is, or as %2F; both have to find the model.
    assert client.models.retrieve("example/scripted-large").id == "example/scripted-large"
    answer = client.chat.completions.create(
        model="example/scripted-large", messages=[{"role": "user", "content": "x"}]
    )
    assert answer.model == "example/scripted-large"


def test_a_model_that_is_not_there(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no/such/model")
    assert caught.value.code == "model_not_found"
