"""Both clients: settings, plain answers, streams, embeddings, discovery."""

from __future__ import annotations

from typing import Any

import pytest
from client_setup import Both, Script, answered, at, silent

from faults import content
from faults.upstream import FaultUpstream
from processes import Server
from sluicegate.client import (
    Answer,
    AsyncClient,
    Client,
    ClientError,
    ClosedError,
    InvalidRequestError,
    SettingsError,
    Timeouts,
    UnreachableError,
    Usage,
)
from sluicegate.fallback import FALLBACK_MODELS

SECRET = "sk-very-secret-0123456789"
HELLO = Answer("Hello 你好 😀.")


def demo_client(demo: Server, **settings: Any) -> dict[str, Any]:
    return {"base_url": demo.base_url, "model": "demo-fast", **settings}


def test_a_plain_answer(both: Both, demo: Server) -> None:
    answer = both.generate("Say something.", client=demo_client(demo))
    assert "demo" in answer.content
    assert (answer.finish_reason, answer.model, answer.tool_calls) == ("stop", "demo-fast", ())
    assert answer.usage is not None
    assert answer.usage.total_tokens == (answer.usage.prompt_tokens or 0) + (
        answer.usage.completion_tokens or 0
    )
    assert answer.messages[-1] == {"role": "assistant", "content": answer.content}
    assert b"system_fingerprint" in answer.body


def test_a_stream_says_the_same(both: Both, demo: Server) -> None:
    whole = both.generate("Say something.", client=demo_client(demo))
    chunks, answer = both.stream("Say something.", client=demo_client(demo))
    assert "".join(chunk.content for chunk in chunks) == answer.content == whole.content
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert chunks[-1].usage == answer.usage == whole.usage
    assert answer.messages == whole.messages
    assert len(chunks) > 10


def test_thinking(both: Both, demo: Server) -> None:
    client = demo_client(demo, model="demo-thinking-fast")
    chunks, answer = both.stream("Hm?", client=client)
    assert answer.thinking == "".join(chunk.thinking for chunk in chunks) != ""
    assert answer.usage is not None
    assert (answer.usage.reasoning_tokens or 0) > 0
    assert both.generate("Hm?", client=client).thinking == answer.thinking


def test_a_conversation_goes_on(both: Both, script: Script) -> None:
    client = script.says(HELLO)
    first = both.generate("One?", client=client)
    both.generate([*first.messages, {"role": "user", "content": "Two?"}], client=client)
    assert [message["role"] for message in script.asked[1]["messages"]] == ["user", "assistant", "user"]


def test_only_what_is_given_is_sent(both: Both, script: Script) -> None:
    client = script.says(HELLO)
    both.generate("Hi", client=client)
    assert script.asked[0].keys() == {"model", "messages"}
    both.generate("Hi", client=client, max_tokens=5, temperature=0.0, extra={"top_k": 3, "seed": 1})
    assert script.asked[1]["max_tokens"] == 5
    assert script.asked[1]["temperature"] == 0.0
    assert (script.asked[1]["top_k"], script.asked[1]["seed"]) == (3, 1)
    both.generate("Hi", client=client, max_tokens=None, temperature=None)
    assert script.asked[2].keys() == {"model", "messages"}


def test_an_unknown_option_is_not_sent_in_silence(both: Both, script: Script) -> None:
    with pytest.raises(TypeError, match="temprature"):
        both.generate("Hi", client=script.says(HELLO), temprature=1)


@pytest.mark.parametrize("messages", [[], ["text"], [1]])
def test_messages_of_a_wrong_kind(both: Both, script: Script, messages: Any) -> None:
    with pytest.raises(InvalidRequestError, match="message"):
        both.generate(messages, client=script.says(HELLO))
    with pytest.raises(InvalidRequestError, match="JSON"):
        both.generate("Hi", client=script.says(HELLO), extra={"seed": object()})


def test_the_environment_and_arguments(
    both: Both, script: Script, monkeypatch: pytest.MonkeyPatch, faulty: FaultUpstream
) -> None:
    client = script.says(HELLO)
    monkeypatch.setenv("OPENAI_COMPATIBLE_BASE_URL", client["base_url"])
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "sk-from-environment")
    monkeypatch.setenv("OPENAI_COMPATIBLE_MODEL", client["model"])
    assert both.generate("Hi", client={}).content == HELLO.content
    both.generate("Hi", client={"api_key": "sk-argument", "model": f"{client['model']}.b"})
    keys = [dict(asked.headers)["authorization"] for c in script.connections() for asked in c.requests]
    assert keys == ["Bearer sk-from-environment"]
    others = [
        c for c in faulty.records.all() for asked in c.requests if asked.model == f"{client['model']}.b"
    ]
    assert dict(others[0].requests[0].headers)["authorization"] == "Bearer sk-argument"


def test_what_cannot_be_a_client() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingsError, match="OPENAI_COMPATIBLE_BASE_URL"):
            kind()
        for wrong in ({"base_url": "ftp://x"}, {"timeout": 0}, {"nonsense": 1}, {"ca_file": "/no/such/file"}):
            with pytest.raises(SettingsError):
                kind(**{"base_url": "http://127.0.0.1/v1", **wrong})  # type: ignore[arg-type]


def test_no_key_is_ever_shown(both: Both, faulty: FaultUpstream) -> None:
    for model in ("u20-401", "u20-403", "u24-400-json"):
        error = both.error("generate", "Hi", client=at(faulty, model, api_key=SECRET))
        assert SECRET not in f"{error} {error!r} {error.__dict__}"
    client = Client("http://127.0.0.1:9/v1", api_key=SECRET, headers={"x-api-key": SECRET})
    assert SECRET not in repr(client)
    assert SECRET not in repr(client._session.settings)


def test_a_private_name_may_be_called(both: Both, demo: Server) -> None:
    base_url = demo.base_url.replace("127.0.0.1", "localhost")
    assert both.generate("Hi", client=demo_client(demo, base_url=base_url)).content


def test_headers_are_sent(both: Both, script: Script) -> None:
    client = script.says(HELLO)
    both.generate("Hi", client={**client, "headers": {"x-team": "blue"}})
    assert dict(script.connections()[0].requests[0].headers)["x-team"] == "blue"


def test_embeddings(both: Both, demo: Server) -> None:
    client = demo_client(demo, model="demo-embedding")
    found = both.call("embed", ["one", "two", "one"], client=client)
    assert len(found.vectors) == 3
    assert found.vectors[0] == found.vectors[2] != found.vectors[1]
    assert both.call("embed", "one", client=client).vectors[0] == pytest.approx(found.vectors[0])
    for wrong in ([], [1]):
        with pytest.raises(InvalidRequestError):
            both.call("embed", wrong, client=client)


def test_models(both: Both, demo: Server, faulty: FaultUpstream) -> None:
    client = {"base_url": demo.base_url}
    models = both.call("available_models", client=client)
    assert "demo" in models
    assert both.call("first_available_model", client=client) == models[0]
    # A call that names no model takes the first.
    assert both.generate("Hi", client=client).model == models[0]
    nobody = {"base_url": f"http://127.0.0.1:{faulty.ports['refused']}/v1"}
    assert both.call("available_models", client=nobody) == FALLBACK_MODELS
    assert both.call("first_available_model", client=nobody) == "gpt-3.5-turbo"
    with pytest.raises(UnreachableError):
        both.call("available_models", client=nobody, fallback=False)


def test_tools_are_supported_or_not(both: Both, demo: Server, script: Script) -> None:
    assert both.call("supports_tools", client=demo_client(demo)) is True
    body = content.error_body("this model does not support tools", None, "invalid_request_error")
    client = script.says(content.http("400 Bad Request", "application/json", body))
    assert both.call("supports_tools", client=client) is False
    other = content.error_body("the engine is cold", None, "invalid_request_error")
    client = Script(script.upstream, f"{script.model}b").says(
        content.http("400 Bad Request", "application/json", other)
    )
    with pytest.raises(InvalidRequestError, match="cold"):
        both.call("supports_tools", client=client)


def test_a_server_without_stream_options(both: Both, faulty: FaultUpstream) -> None:
    _, answer = both.stream("Hi", client=at(faulty, "u24-400-stream-options"))
    assert answer.content == content.TEXT
    assert answer.finish_reason == "stop"


def test_a_timeout_for_one_call(both: Both, script: Script) -> None:
    client = script.says(silent)
    for how in ("generate", "stream"):
        error = both.error(how, "Hi", client=client, timeout=0.2)
        assert isinstance(error, TimeoutError)
        assert "0.2 s" in str(error)
    clocks = Timeouts(first_event=5, idle=5, total=0.2)
    assert isinstance(both.error("generate", "Hi", client={**client, "timeout": clocks}), TimeoutError)


def test_a_closed_client_refuses(script: Script) -> None:
    client = Client(**script.says(HELLO))
    assert client.generate("Hi").content == HELLO.content
    client.close()
    with pytest.raises(ClosedError):
        client.generate("Hi")


def test_the_answer_is_there_only_at_the_end(script: Script) -> None:
    with Client(**script.says(HELLO)) as client, client.stream("Hi") as stream:
        next(stream)
        with pytest.raises(ClientError, match="last chunk"):
            _ = stream.answer
        assert stream.until_end().content == HELLO.content
        assert list(stream) == []


def test_several_choices_come_side_by_side(both: Both, demo: Server) -> None:
    chunks, answer = both.stream("Hi", client=demo_client(demo), extra={"n": 2})
    texts = ["".join(c.content for c in chunks if c.index == index) for index in (0, 1)]
    assert texts[0] == answer.content
    assert texts[1].endswith("(choice 2)")


def test_chunks_show_what_they_hold(script: Script) -> None:
    with Client(**script.says(HELLO)) as client:
        chunk = next(client.stream("Hi"))
    assert repr(chunk) == "Chunk('Hello')"
    assert repr(Usage(1, 2, 3)).startswith("Usage(prompt_tokens=1, completion_tokens=2")
    assert Usage(1) == Usage(1) != Usage(2)


def test_a_body_that_is_no_answer(both: Both, script: Script) -> None:
    client = script.says(content.http("200 OK", "application/json", b'{"choices": []}'))
    assert both.error("generate", "Hi", client=client).code == "client_error"
    assert "choices" in str(both.error("generate", "Hi", client=client))


def test_the_scripted_answers_are_what_they_say(script: Script) -> None:
    """The rig itself: a whole and a streamed answer hold the same."""
    client = script.says(lambda asked: answered(asked, HELLO))
    with Client(**client) as made:
        assert made.generate("Hi").content == made.stream("Hi").until_end().content == HELLO.content
