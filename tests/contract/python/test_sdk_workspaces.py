"""A gateway with a database, as the official client sees it: two workspaces, each with its own."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from scripted import ScriptedUpstream

from fakes.tenants import Tenants
from processes import Server
from served import served
from sluicegate.ids import PLATFORM
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What are you?"}]
NAME = "Helpful one/π v1"
CANARY = "canary-91c2"


async def set_up(location: Location, demo: str, scripted: str) -> dict[str, str]:
    """Two workspaces; the texts of their keys."""
    database = await Database.open(location)
    tenants = Tenants(database)
    for name in ("acme", CANARY):
        await tenants.workspace(name)
        await tenants.upstream(name, "own", scripted, models=("scripted", f"{name}-only"))
    await tenants.upstream(PLATFORM, "demo", demo, offered_to=("acme",))
    await tenants.assistant("acme", NAME, "demo/demo-fast", system_prompt="Be short.", temperature=0.0)
    await tenants.assistant("acme", "Two", "own/scripted", "demo/demo-fast", max_tokens=50)
    await tenants.assistant(CANARY, f"{CANARY} assistant", "own/scripted")
    texts = {name: (await tenants.key(name))[1] for name in ("acme", CANARY)}
    texts["narrow"] = (await tenants.key("acme", "narrow", models=("Two",)))[1]
    await database.close()
    return texts


@pytest.fixture(scope="module")
def both(
    demo: Server, scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, dict[str, str]]]:
    """The gateway, and a key of each workspace."""
    folder = tmp_path_factory.mktemp("workspaces")
    location = Location(data_dir=folder / "data")
    texts = asyncio.run(set_up(location, demo.base_url, scripted.base_url))
    with served(location, folder, workers=2) as server:
        yield server, texts


def client_of(both: tuple[Server, dict[str, str]], key: str) -> OpenAI:
    return OpenAI(base_url=both[0].base_url, api_key=both[1][key], timeout=45, max_retries=0)


@pytest.fixture
def acme(both: tuple[Server, dict[str, str]]) -> Iterator[OpenAI]:
    with client_of(both, "acme") as client:
        yield client


def test_assistants_are_models(acme: OpenAI) -> None:
    raw = acme.chat.completions.with_raw_response.create(model=NAME, messages=QUESTION)
    assert raw.headers["x-upstream-model"] == "demo-fast"
    assert raw.parse().model == NAME
    chunks = list(acme.chat.completions.create(model=NAME, messages=QUESTION, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.model for chunk in chunks} == {NAME}
    listed = [model.id for model in acme.models.list()]
    assert listed[:2] == [NAME, "Two"]
    assert {"scripted", "acme-only"} <= set(listed)
    assert acme.models.retrieve(NAME).owned_by == "acme"


def test_the_next_model_answers_where_the_first_cannot(acme: OpenAI, scripted: ScriptedUpstream) -> None:
    key = uuid.uuid4().hex
    extra = {"x_script": {"key": key, "steps": [{"status": 500}]}}
    raw = acme.chat.completions.with_raw_response.create(model="Two", messages=QUESTION, extra_body=extra)
    assert raw.headers["x-upstream-model"] == "demo-fast"
    (call,) = scripted.recorded(key)
    assert json.loads(call.body)["max_tokens"] == 50
    assert call.headers["authorization"] == "Bearer sk-of-acme-own-0123456789"


def test_only_the_case_differs(acme: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`Two` does: names are case-sensitive"):
        acme.chat.completions.create(model="TWO", messages=QUESTION)


@pytest.mark.parametrize("name", [f"{CANARY} assistant", f"{CANARY} ASSISTANT", "own/" + CANARY])
def test_another_workspaces_names_are_like_nobodys(
    acme: OpenAI, both: tuple[Server, dict[str, str]], name: str
) -> None:
    with client_of(both, CANARY) as theirs:
        assert f"{CANARY} assistant" in [model.id for model in theirs.models.list()]
    errors = []
    for asked in (name, "q" * len(name)):
        with pytest.raises(openai.NotFoundError) as caught:
            acme.chat.completions.create(model=asked, messages=QUESTION)
        errors.append(caught.value.response.text.replace(asked, "NAME"))
    assert errors[0] == errors[1]
    assert CANARY not in acme.models.with_raw_response.list().text


def test_a_key_that_may_use_one_model(both: tuple[Server, dict[str, str]]) -> None:
    with client_of(both, "narrow") as client:
        assert [model.id for model in client.models.list()] == ["Two"]
        with pytest.raises(openai.PermissionDeniedError, match="may not use"):
            client.chat.completions.create(model=NAME, messages=QUESTION)


def test_a_wrong_key_is_an_authentication_error(both: tuple[Server, dict[str, str]]) -> None:
    server, texts = both
    with (
        OpenAI(base_url=server.base_url, api_key=texts["acme"][:-1], max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="mistyped"),
    ):
        client.models.list()
