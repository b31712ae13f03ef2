"""Assistants with chat history, with the official Python client: five turns in each way to name them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from contract_setup import API_KEY
from openai import APIError, BadRequestError, InternalServerError, OpenAI
from scripted import ScriptedUpstream, completion

from processes import Server

pytestmark = pytest.mark.timeout(120)

MODEL = "remembers"


class Chat:
    """Calls with a script of their own, and the messages that reached the upstream."""

    def __init__(self, client: OpenAI, scripted: ScriptedUpstream) -> None:
        self.client = client
        self.scripted = scripted

    def __call__(self, *said: Any, steps: tuple[dict[str, Any], ...] = ({},), **options: Any) -> Said:
        key = str(uuid.uuid4())
        messages = [{"role": "user", "content": one} if isinstance(one, str) else one for one in said]
        options.setdefault("model", MODEL)
        extra = {"x_script": {"key": key, "steps": list(steps)}, **options.pop("extra_body", {})}
        try:
            raw = self.client.chat.completions.with_raw_response.create(
                messages=messages, extra_body=extra, **options
            )
            return Said(self.bodies(key), raw, dict(raw.headers))
        except APIError as error:
            error.sent = self.bodies(key)  # type: ignore[attr-defined]
            raise

    def bodies(self, key: str) -> list[dict[str, Any]]:
        return [json.loads(call.body) for call in self.scripted.recorded(key)]


class Said:
    """One answer."""

    def __init__(self, bodies: list[dict[str, Any]], raw: Any, headers: dict[str, str]) -> None:
        self.bodies = bodies
        self.raw = raw
        self.headers = headers

    @property
    def sent(self) -> list[str]:
        """What the upstream was told, the system prompt apart."""
        return [str(m["content"]) for m in self.bodies[-1]["messages"] if m["role"] != "system"]

    @property
    def history(self) -> str:
        return self.headers["x-history"]


@pytest.fixture
def chat(keeper: OpenAI, scripted: ScriptedUpstream) -> Iterator[Chat]:
    with keeper.with_options(max_retries=0) as client:
        yield Chat(client, scripted)


def answer(text: str, **message: Any) -> dict[str, Any]:
    """A step of a script that says this."""
    whole = completion("scripted")
    whole["choices"][0]["message"] |= {"content": text, **message}
    return {"body": json.dumps(whole)}


def chunks(*texts: str, cut: bool = False) -> dict[str, Any]:
    found = []
    for place, part in enumerate(texts):
        last = place == len(texts) - 1 and not cut
        choice = {"index": 0, "delta": {"content": part}, "finish_reason": "stop" if last else None}
        found.append(
            json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})
        )
    return {"chunks": found if cut else [*found, "[DONE]"], "cut": cut}


def named() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("header", {"extra_headers": {"X-Conversation-Id": str(uuid.uuid4())}}),
        ("another header", {"extra_headers": {"X-OpenWebUI-Chat-Id": str(uuid.uuid4())}}),
        ("metadata", {"metadata": {"conversation_id": f"metadata/π {uuid.uuid4()}"}}),
        ("model", {"model": f"{MODEL}@{uuid.uuid4()}"}),
        ("user", {"user": str(uuid.uuid4())}),
        ("safety identifier", {"extra_body": {"safety_identifier": str(uuid.uuid4())}}),
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("form", "options"), named(), ids=[form for form, _ in named()])
def test_five_turns(form: str, options: dict[str, Any], stream: bool, chat: Chat, keeping: Server) -> None:
    if form == "model":
        options = {"model": f"{options['model']}-{stream}"}
    elif stream:
        text = json.dumps(options)
        options = json.loads(text[:-3].replace('"}', "") + f"-streamed{text[-3:]}")
    before: list[str] = []
    for turn in range(5):
        # Each turn by another client, as from another process: nothing but the name holds them together.
        with OpenAI(base_url=keeping.base_url, api_key=API_KEY, timeout=45) as client:
            own = Chat(client, chat.scripted)
            step = chunks("answer ", str(turn)) if stream else answer(f"answer {turn}")
            said = own(f"turn {turn}", steps=(step,), stream=stream, **options)
            if stream:
                parts = [chunk.choices[0].delta.content or "" for chunk in said.raw.parse()]
                assert "".join(parts) == f"answer {turn}"
                said.bodies = own.bodies(said.bodies[0]["x_script"]["key"])
        assert said.sent == [*before, f"turn {turn}"]
        assert said.bodies[-1]["messages"][0] == {"role": "system", "content": "Be kind."}
        assert said.history == f"injected={2 * turn} trimmed=0 branch=main"
        before += [f"turn {turn}", f"answer {turn}"]
    if form == "header":
        assert said.headers["x-conversation-id"] == options["extra_headers"]["X-Conversation-Id"]


def test_the_default_thread_of_the_key(stranger: OpenAI, scripted: ScriptedUpstream) -> None:
    chat = Chat(stranger, scripted)
    first = chat("one", steps=(answer("1"),))
    second = chat("two", steps=(answer("2"),))
    assert second.sent == ["one", "1", "two"]
    assert second.headers["x-conversation-id"] == first.headers["x-conversation-id"]
    # By the id that was told, from anywhere.
    by_id = chat("three", extra_headers={"x-conversation-id": first.headers["x-conversation-id"]})
    assert by_id.sent == ["one", "1", "two", "2", "three"]


def test_without_a_default_thread_each_lone_message_begins_anew(chat: Chat) -> None:
    model = "remembers when asked"
    first = chat("one", model=model)
    second = chat("two", model=model)
    assert (second.sent, second.history) == (["two"], "injected=0 trimmed=0 branch=main")
    assert second.headers["x-conversation-id"] != first.headers["x-conversation-id"]


def test_another_key_does_not_see_it(chat: Chat, stranger: OpenAI, scripted: ScriptedUpstream) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    first = chat("secret", extra_headers=name)
    assert Chat(stranger, scripted)("x", extra_headers=name).sent == ["x"]
    for ref in (first.headers["x-conversation-id"], "thread_" + "0" * 28):
        assert Chat(stranger, scripted)("x", extra_headers={"x-session-id": ref}).sent.count("secret") == 0
    assert chat("more", extra_headers=name).sent == ["secret", "scripted", "more"]


def test_who_sends_everything_is_given_nothing(chat: Chat) -> None:
    messages: list[Any] = []
    threads = set()
    for turn in range(4):
        messages.append({"role": "user", "content": f"turn {turn}"})
        said = chat(*messages, steps=(answer(f"answer {turn}"),), user="who-sends-everything")
        assert said.sent == [m["content"] for m in messages]
        messages.append({"role": "assistant", "content": f"answer {turn}"})
        threads.add(said.headers["x-conversation-id"])
    assert len(threads) == 1
    # Answered again, and edited: other branches of the same.
    again = chat(*messages[:-1], steps=(answer("another"),), user="who-sends-everything")
    assert again.headers["x-conversation-id"] in threads
    assert "branch=b" in again.history
    edited = chat(*messages[:2], "other", steps=(answer("x"),), user="who-sends-everything")
    assert edited.headers["x-conversation-id"] in threads
    assert "injected=0 trimmed=0 branch=b" in edited.history


def test_tools_are_called_with_lone_results(chat: Chat) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    chat("weather?", steps=(answer("", content=None, tool_calls=[call]),), extra_headers=name)
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    said = chat(result, extra_headers=name)
    assert [m["role"] for m in said.bodies[-1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert said.bodies[-1]["messages"][2]["tool_calls"] == [call]
    with pytest.raises(BadRequestError) as refused:
        chat({**result, "tool_call_id": "call_2"}, extra_headers=name)
    assert (refused.value.code, refused.value.param) == ("tool_calls_not_pending", "messages")
    assert refused.value.sent == []  # type: ignore[attr-defined]


def test_a_stream_that_breaks_off_is_not_continued(chat: Chat) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    with pytest.raises(APIError):
        list(chat("one", steps=(chunks("half an", cut=True),), stream=True, extra_headers=name).raw.parse())
    said = chat("two", extra_headers=name)
    assert said.sent == ["two"]


def test_an_upstream_that_fails_leaves_the_message_to_be_sent_again(chat: Chat) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    chat("one", steps=(answer("1"),), extra_headers=name)
    with pytest.raises(InternalServerError) as failed:
        chat("two", steps=({"status": 500},), extra_headers=name)
    assert failed.value.response.headers["x-conversation-id"] == name["x-conversation-id"]
    assert chat("two", steps=(answer("2"),), extra_headers=name).history == "injected=2 trimmed=0 branch=main"
    assert chat("three", extra_headers=name).sent == ["one", "1", "two", "2", "three"]


def test_store_false_is_read_and_not_written(chat: Chat) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    chat("one", steps=(answer("1"),), extra_headers=name)
    assert chat("secret", store=False, extra_headers=name).sent == ["one", "1", "secret"]
    assert chat("two", extra_headers=name).sent == ["one", "1", "two"]


def test_store_true_is_kept_in_both_places(chat: Chat, keeper: OpenAI) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    said = chat("one", steps=(answer("1"),), store=True, extra_headers=name)
    assert keeper.chat.completions.retrieve(said.raw.parse().id).choices[0].message.content == "1"
    assert chat("two", extra_headers=name).sent == ["one", "1", "two"]


def test_whole_turns_leave_where_the_window_is_too_small(chat: Chat) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    for turn in range(5):
        said = chat(f"turn {turn} " + "word " * 150, model="remembers-narrow", extra_headers=name)
    injected, trimmed, _ = said.history.split()
    assert int(trimmed.partition("=")[2]) > 0
    assert int(injected.partition("=")[2]) + int(trimmed.partition("=")[2]) == 8
    roles = [m["role"] for m in said.bodies[-1]["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    with pytest.raises(BadRequestError) as refused:
        chat("word " * 2000, model="remembers-narrow", extra_headers=name)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("value", ["x" * 513, "tab\there"])
def test_names_that_cannot_be(value: str, chat: Chat) -> None:
    with pytest.raises(BadRequestError) as refused:
        chat("x", model=f"{MODEL}", extra_body={"metadata": {"conversation_id": value}})
    assert refused.value.param == "metadata.conversation_id"


def test_the_answer_has_the_name_that_was_asked_for(keeper: OpenAI) -> None:
    model = f"remembers-demo@{uuid.uuid4()}@home"
    made = keeper.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
    assert made.model == model
    with keeper.chat.completions.stream(model=model, messages=[{"role": "user", "content": "y"}]) as stream:
        assert stream.get_final_completion().model == model


def test_unknown_fields_and_all_other_bytes_stay(chat: Chat) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    odd = {"role": "user", "content": "one", "x_field": {"a": 1.50}}
    chat(odd, steps=(answer("1"),), extra_headers=name)
    said = chat("two", extra_headers=name, extra_body={"x_more": [1, 2]})
    assert said.bodies[-1]["messages"][1] == odd
    assert said.bodies[-1]["x_more"] == [1, 2]


def test_messages_at_once_are_branches_and_none_is_lost(chat: Chat) -> None:
    name = {"x-conversation-id": str(uuid.uuid4())}
    chat("one", steps=(answer("1"),), extra_headers=name)
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(
                lambda n: chat(f"m{n}", steps=({**answer(f"a{n}"), "delay": 0.2},), extra_headers=name),
                range(8),
            )
        )
    assert all(said.sent == ["one", "1", f"m{n}"] for n, said in enumerate(done))
    assert len({said.history.split()[2] for said in done}) == 8
    last = chat("next", extra_headers=name).sent
    assert last[:2] == ["one", "1"]
    assert last[2][1:] == last[3][1:]


def test_without_a_database_the_assistant_says_so(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    assert refused.value.code == "storage_not_configured"
