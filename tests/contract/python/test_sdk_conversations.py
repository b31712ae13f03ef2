"""The official Python client's conversations and stored chat completions: what is kept, and for whom."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from scripted import ScriptedUpstream

pytestmark = pytest.mark.timeout(120)


def user(text: str) -> Any:
    return {"type": "message", "role": "user", "content": text}


def script() -> tuple[str, dict[str, Any]]:
    key = str(uuid.uuid4())
    return key, {"x_script": {"key": key, "steps": [{}]}}


def test_a_conversation_is_made_read_changed_and_deleted(keeper: OpenAI, stranger: OpenAI) -> None:
    made = keeper.conversations.create(metadata={"topic": "x"}, items=[user("one"), user("two")])
    assert made.id.startswith("conv_")
    assert keeper.conversations.retrieve(made.id).metadata == {"topic": "x"}
    assert keeper.conversations.update(made.id, metadata={"topic": "y"}).metadata == {"topic": "y"}
    with pytest.raises(NotFoundError):
        stranger.conversations.retrieve(made.id)
    with pytest.raises(NotFoundError):
        stranger.conversations.items.create(made.id, items=[user("mine")])
    assert keeper.conversations.delete(made.id).deleted
    with pytest.raises(NotFoundError):
        keeper.conversations.retrieve(made.id)
    with pytest.raises(NotFoundError):
        list(keeper.conversations.items.list(made.id))


def test_items_are_added_listed_in_pages_and_taken_out(keeper: OpenAI) -> None:
    made = keeper.conversations.create()
    added = keeper.conversations.items.create(made.id, items=[user(str(n)) for n in range(7)])
    ids = [item.id for item in added.data]
    assert len(set(ids)) == 7
    assert [item.id for item in keeper.conversations.items.list(made.id, order="asc", limit=3)] == ids
    assert [item.id for item in keeper.conversations.items.list(made.id, limit=2)] == ids[::-1]
    one: Any = keeper.conversations.items.retrieve(ids[3], conversation_id=made.id)
    assert one.content[0].text == "3"
    keeper.conversations.items.delete(ids[3], conversation_id=made.id)
    assert len(list(keeper.conversations.items.list(made.id))) == 6
    with pytest.raises(NotFoundError):
        keeper.conversations.items.retrieve(ids[3], conversation_id=made.id)
    with pytest.raises(BadRequestError) as refused:
        keeper.conversations.items.create(made.id, items=[{"role": "user"}])  # type: ignore[list-item]
    assert refused.value.param == "items[0].content"


def test_responses_read_a_conversation_and_add_to_it(keeper: OpenAI, scripted: ScriptedUpstream) -> None:
    conversation = keeper.conversations.create(items=[user("My name is Ada.")])
    for turn in range(3):
        key, extra = script()
        made = keeper.responses.create(
            model="scripted",
            input=f"turn {turn}",
            conversation=conversation.id,
            stream=False,
            extra_body=extra,
        )
        assert made.conversation is not None
        assert made.conversation.id == conversation.id
        body = json.loads(scripted.recorded(key)[0].body)
        assert len(body["messages"]) == 2 + 2 * turn
        assert body["messages"][0]["content"] == "My name is Ada."
    with keeper.responses.stream(model="demo-fast", input="streamed", conversation=conversation.id) as stream:
        stream.until_done()
    items = list(keeper.conversations.items.list(conversation.id, order="asc"))
    assert [getattr(item, "role", None) for item in items] == ["user", *["user", "assistant"] * 4]
    # A response that is deleted leaves the conversation as it is.
    keeper.responses.delete(made.id)
    assert len(list(keeper.conversations.items.list(conversation.id))) == 9


def test_a_failed_response_adds_nothing(keeper: OpenAI) -> None:
    conversation = keeper.conversations.create()
    extra = {"x_script": {"key": str(uuid.uuid4()), "steps": [{"chunks": ["{}"], "cut": True}]}}
    stream = keeper.responses.create(
        model="scripted", input="x", conversation=conversation.id, stream=True, extra_body=extra
    )
    assert [event.type for event in stream][-1] == "response.failed"
    assert list(keeper.conversations.items.list(conversation.id)) == []


def test_another_key_s_conversation_is_none(keeper: OpenAI, stranger: OpenAI) -> None:
    conversation = keeper.conversations.create()
    with pytest.raises(BadRequestError) as refused:
        stranger.responses.create(model="demo-fast", input="x", conversation=conversation.id)
    assert (refused.value.code, refused.value.param) == ("conversation_not_found", "conversation")


def chat(client: OpenAI, *, stream: bool = False, **options: Any) -> str:
    """Its id."""
    messages: Any = [{"role": "system", "content": "Short."}, {"role": "user", "content": "What are you?"}]
    if not stream:
        return client.chat.completions.create(model="demo-fast", messages=messages, store=True, **options).id
    chunks = list(
        client.chat.completions.create(
            model="demo-fast", messages=messages, store=True, stream=True, **options
        )
    )
    (only,) = {chunk.id for chunk in chunks}
    return only


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_chat_is_read_changed_and_deleted(keeper: OpenAI, stranger: OpenAI, stream: bool) -> None:
    ref = chat(keeper, stream=stream, metadata={"a": "b"})
    found = keeper.chat.completions.retrieve(ref)
    assert found.id == ref
    assert "Sluicegate" in (found.choices[0].message.content or "")
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.total_tokens > 0
    messages = list(keeper.chat.completions.messages.list(ref))
    assert [message.content for message in messages] == ["Short.", "What are you?"]
    changed: Any = keeper.chat.completions.update(ref, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}
    with pytest.raises(NotFoundError):
        stranger.chat.completions.retrieve(ref)
    assert keeper.chat.completions.delete(ref).deleted
    with pytest.raises(NotFoundError):
        keeper.chat.completions.retrieve(ref)


def test_stored_chats_are_listed_by_metadata(keeper: OpenAI) -> None:
    batch = str(uuid.uuid4())
    made = [chat(keeper, metadata={"batch": batch, "n": str(n)}) for n in range(5)]
    listed = [item.id for item in keeper.chat.completions.list(metadata={"batch": batch}, limit=2)]
    assert listed == made
    newest = keeper.chat.completions.list(metadata={"batch": batch}, order="desc", limit=1)
    assert newest.data[0].id == made[-1]
    one = keeper.chat.completions.list(metadata={"batch": batch, "n": "3"})
    assert [item.id for item in one] == [made[3]]
    assert list(keeper.chat.completions.list(metadata={"batch": batch}, model="other")) == []


def test_a_chat_that_is_not_to_be_stored_is_not(keeper: OpenAI) -> None:
    made = keeper.chat.completions.create(
        model="demo-fast", messages=[{"role": "user", "content": "x"}], store=False
    )
    with pytest.raises(NotFoundError):
        keeper.chat.completions.retrieve(made.id)


def test_a_broken_stream_is_not_stored(keeper: OpenAI) -> None:
    before = {item.id for item in keeper.chat.completions.list(model="scripted")}
    chunk = json.dumps({"id": "c", "choices": [{"index": 0, "delta": {"content": "Half"}}]})
    steps = [{"chunks": [chunk], "cut": True}]
    extra = {"x_script": {"key": str(uuid.uuid4()), "steps": steps}}
    stream = keeper.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "x"}],
        store=True,
        stream=True,
        extra_body=extra,
    )
    with pytest.raises(Exception, match=r"before it was complete|broke in the middle"):
        list(stream)
    assert {item.id for item in keeper.chat.completions.list(model="scripted")} == before


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.conversations.create(),
        lambda client: client.responses.retrieve("resp_x"),
        lambda client: list(client.chat.completions.list()),
        lambda client: client.chat.completions.retrieve("chatcmpl-x"),
    ],
)
def test_without_a_database_nothing_is_kept(call: Any, client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        call(client)
    assert refused.value.code == "storage_not_configured"
