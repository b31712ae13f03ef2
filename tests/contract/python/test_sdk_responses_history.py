"""Assistants with chat history behind /v1/responses: the same conversations, and nothing twice."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from contract_setup import API_KEY, settings_file
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from scripted import ScriptedUpstream, completion

from processes import Server, gateway

pytestmark = pytest.mark.timeout(120)

MODEL = "remembers"


class Talk:
    """Responses with a script of their own, and the messages that reached the upstream."""

    def __init__(self, client: OpenAI, scripted: ScriptedUpstream) -> None:
        self.client = client
        self.scripted = scripted

    def __call__(self, said: Any, answer: Any = "ok", **options: Any) -> Said:
        key = str(uuid.uuid4())
        message = answer if isinstance(answer, dict) else {"content": answer}
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        step = {"body": json.dumps({**completion("x"), "choices": [choice]})}
        options.setdefault("model", MODEL)
        extra = {"x_script": {"key": key, "steps": [options.pop("step", step)]}}
        raw = self.client.responses.with_raw_response.create(input=said, extra_body=extra, **options)
        made = raw.parse()
        if options.get("stream"):
            *_, last = made
            made = last.response
        sent = json.loads(self.scripted.recorded(key)[-1].body)["messages"]
        return Said(made, sent, dict(raw.headers))

    def chat(self, text: str, **options: Any) -> list[str]:
        """What the upstream is sent for a chat."""
        key = str(uuid.uuid4())
        extra = {"x_script": {"key": key, "steps": [{}]}}
        options = {"model": MODEL, "messages": [{"role": "user", "content": text}], **options}
        self.client.chat.completions.create(extra_body=extra, **options)
        sent = json.loads(self.scripted.recorded(key)[-1].body)["messages"]
        return [message["content"] for message in sent if message["role"] != "system"]


class Said:
    """One response."""

    def __init__(self, made: Any, messages: list[dict[str, Any]], headers: dict[str, str]) -> None:
        self.made = made
        self.messages = messages
        self.headers = headers

    @property
    def sent(self) -> list[str]:
        return [message["content"] for message in self.messages if message["role"] != "system"]


@pytest.fixture
def talk(keeper: OpenAI, scripted: ScriptedUpstream) -> Talk:
    return Talk(keeper, scripted)


def forms() -> list[tuple[str, dict[str, Any]]]:
    name = str(uuid.uuid4())
    return [
        ("header", {"extra_headers": {"x-conversation-id": f"h-{name}"}}),
        ("metadata", {"metadata": {"conversation_id": f"m-{name}"}}),
        ("model", {"model": f"{MODEL}@s-{name}"}),
        ("user", {"user": f"u-{name}"}),
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["header", "metadata", "model", "user"])
def test_five_turns_in_each_way_to_name_a_conversation(talk: Talk, form: str, stream: bool) -> None:
    options = dict(forms())[form]
    before: list[str] = []
    for turn in range(5):
        step = {"step": _streamed(f"a{turn}"), "stream": True} if stream else {}
        said = talk(f"turn {turn}", f"a{turn}", **options, **step)
        assert said.sent == [*before, f"turn {turn}"]
        assert said.made.output_text == f"a{turn}"
        assert said.made.model == options.get("model", MODEL)
        assert said.headers["x-history"] == f"injected={2 * turn} trimmed=0 branch=main"
        before += [f"turn {turn}", f"a{turn}"]
    # The chat of the same name is the same conversation.
    assert talk.chat("and now?", **options) == [*before, "and now?"]


def _said(text: str) -> dict[str, Any]:
    whole = completion("x")
    whole["choices"][0]["message"]["content"] = text
    return whole


def _streamed(text: str) -> dict[str, Any]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})

    return {"chunks": [chunk({"content": text}), chunk({}, "stop"), "[DONE]"]}


def test_a_previous_response_brings_what_it_had_seen_once(talk: Talk) -> None:
    name = {"extra_headers": {"x-conversation-id": str(uuid.uuid4())}}
    talk("one", "1", **name)
    second = talk("two", "2", **name)
    # No name: the response before it says which conversation, and where in it.
    third = talk("three", "3", previous_response_id=second.made.id)
    assert third.sent == ["one", "1", "two", "2", "three"]
    assert third.headers["x-conversation-id"] == name["extra_headers"]["x-conversation-id"]
    # With a name of another conversation: what the request itself continues counts first.
    other = {"extra_headers": {"x-conversation-id": str(uuid.uuid4())}}
    talk("elsewhere", **other)
    fourth = talk("four", "4", previous_response_id=third.made.id, **other)
    assert fourth.sent == ["one", "1", "two", "2", "three", "3", "four"]
    # From an earlier one: another branch, and nothing of what followed it.
    fork = talk("again", "x", previous_response_id=second.made.id)
    assert fork.sent == ["one", "1", "two", "2", "again"]
    assert "branch=b" in fork.headers["x-history"]
    assert talk("five", previous_response_id=fourth.made.id).sent[-3:] == ["four", "4", "five"]


def test_tools_go_round_by_name_and_by_previous_response(talk: Talk) -> None:
    name = {"extra_headers": {"x-conversation-id": str(uuid.uuid4())}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    first = talk("weather?", {"content": None, "tool_calls": [call]}, **name)
    output: Any = [{"type": "function_call_output", "call_id": "call_1", "output": "sunny"}]
    for options in (name, {"previous_response_id": first.made.id}):
        said = talk(output, "It is sunny.", **options)
        roles = [m["role"] for m in said.messages]
        assert roles == ["system", "user", "assistant", "tool"]
        assert said.messages[2]["tool_calls"] == [call]
    with pytest.raises(BadRequestError) as refused:
        talk([{**output[0], "call_id": "call_2"}], **name)
    assert (refused.value.code, refused.value.param) == ("tool_calls_not_pending", "input")


def test_who_sends_everything_is_given_nothing(talk: Talk) -> None:
    items: list[Any] = []
    threads = set()
    for turn in range(3):
        items.append({"role": "user", "content": f"turn {turn}"})
        said = talk(items, f"a{turn}", user="sends-everything")
        assert said.sent == [item["content"] for item in items]
        items.append({"role": "assistant", "content": f"a{turn}"})
        threads.add(said.headers["x-conversation-id"])
    assert len(threads) == 1


def test_a_conversation_of_openai_s_own_is_all_that_came_before(talk: Talk, keeper: OpenAI) -> None:
    name = {"extra_headers": {"x-conversation-id": str(uuid.uuid4())}}
    talk("secret", **name)
    conversation = keeper.conversations.create().id
    first = talk("one", "1", conversation=conversation, **name)
    assert first.sent == ["one"]
    assert "x-history" not in first.headers
    assert talk("two", conversation=conversation, **name).sent == ["one", "1", "two"]
    assert talk("three", **name).sent == ["secret", "ok", "three"]


def test_another_key_continues_nothing(talk: Talk, stranger: OpenAI, scripted: ScriptedUpstream) -> None:
    made = talk("secret", extra_headers={"x-conversation-id": str(uuid.uuid4())})
    other = Talk(stranger, scripted)
    name = {"x-conversation-id": made.headers["x-conversation-id"]}
    assert other("x", extra_headers=name).sent == ["x"]
    with pytest.raises(BadRequestError):
        other("x", previous_response_id=made.made.id)


def test_store_false_is_read_and_not_written(talk: Talk) -> None:
    name = {"extra_headers": {"x-conversation-id": str(uuid.uuid4())}}
    talk("one", "1", **name)
    assert talk("secret", store=False, **name).sent == ["one", "1", "secret"]
    assert talk("two", **name).sent == ["one", "1", "two"]


def test_a_response_in_the_background_is_a_turn_too(talk: Talk, keeper: OpenAI) -> None:
    name = {"extra_headers": {"x-conversation-id": str(uuid.uuid4())}}
    key = str(uuid.uuid4())
    extra = {"x_script": {"key": key, "steps": [{"body": json.dumps(_said("late"))}]}}
    made = keeper.responses.create(model=MODEL, input="one", background=True, extra_body=extra, **name)
    while keeper.responses.retrieve(made.id).status in ("queued", "in_progress"):
        pass
    assert talk("two", **name).sent == ["one", "late", "two"]
    assert talk("three", previous_response_id=made.id).sent == ["one", "late", "three"]


def test_a_deleted_conversation_leaves_the_response_s_own_words(talk: Talk, keeping: Any) -> None:
    """Retention may take the conversation first: what the responses themselves have is still there."""
    name = {"extra_headers": {"x-conversation-id": str(uuid.uuid4())}}
    talk("one", "1", **name)
    second = talk("two", "2", **name)
    with pytest.raises(APIStatusError):
        talk("x", step={"status": 500}, **name)
    assert talk("three", previous_response_id=second.made.id, model="scripted").sent == ["two", "2", "three"]


def test_without_a_database_the_assistant_says_so(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.responses.create(model=MODEL, input="x")
    assert (refused.value.code, refused.value.param) == ("storage_not_configured", "model")


def test_a_workspace_that_keeps_nothing_stores_no_response(
    demo: Server, scripted: ScriptedUpstream, tmp_path: Path
) -> None:
    settings = settings_file(demo.base_url, scripted.base_url) + "\n[workspace]\nretention_days = 0\n"
    environment = {"SLUICEGATE_DATA_DIR": str(tmp_path / "data")}
    with (
        gateway(settings, tmp_path, keys=API_KEY, environment=environment) as server,
        OpenAI(base_url=server.base_url, api_key=API_KEY, timeout=45) as client,
    ):
        made = client.responses.create(model="demo-fast", input="x")
        assert made.store is False
        with pytest.raises(NotFoundError):
            client.responses.retrieve(made.id)
        with pytest.raises(BadRequestError) as refused:
            client.responses.create(model="demo-fast", input="x", background=True)
        assert refused.value.param == "background"
        message: Any = [{"role": "user", "content": "x"}]
        chat = client.chat.completions.create(model="demo-fast", messages=message, store=True)
        with pytest.raises(NotFoundError):
            client.chat.completions.retrieve(chat.id)
