"""Thinking with the official client: told to each kind of server, shown or not, and looked after."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from scripted import UPSTREAM_KEY, ScriptedUpstream, completion

from processes import Server, gateway

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "2 + 2?"}]
TEMPLATE_OFF = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}
TEMPLATE_ON = {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}
# kind: what says «off», «low» and «budget:5000» to it.
TOLD: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "openai": ({"reasoning_effort": "none"}, {"reasoning_effort": "low"}, {"reasoning_effort": "medium"}),
    "vllm": (
        TEMPLATE_OFF,
        TEMPLATE_ON | {"reasoning_effort": "low"},
        TEMPLATE_ON | {"thinking_token_budget": 5000},
    ),
    "ollama": ({"reasoning_effort": "none"}, {"reasoning_effort": "low"}, {"reasoning_effort": "medium"}),
    "lmstudio": ({"reasoning_effort": "none"}, {"reasoning_effort": "low"}, {"reasoning_effort": "medium"}),
    "tgi": (
        TEMPLATE_OFF,
        TEMPLATE_ON | {"reasoning_effort": "low"},
        TEMPLATE_ON | {"thinking_token_budget": 5000},
    ),
    "llamacpp": (
        TEMPLATE_OFF,
        TEMPLATE_ON | {"reasoning_effort": "low"},
        TEMPLATE_ON | {"thinking_token_budget": 5000},
    ),
    "openrouter": (
        {"reasoning": {"effort": "none"}},
        {"reasoning": {"effort": "low"}},
        {"reasoning": {"max_tokens": 5000}},
    ),
    "together": (
        {"reasoning": {"enabled": False}},
        {"reasoning": {"effort": "low"}},
        {"reasoning": {"max_tokens": 5000}},
    ),
    "fireworks": ({"reasoning_effort": "none"}, {"reasoning_effort": "low"}, {"reasoning_effort": "medium"}),
    "groq": ({"reasoning_effort": "none"}, {"reasoning_effort": "low"}, {"reasoning_effort": "medium"}),
    "deepseek": (
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "enabled"}},
        {"thinking": {"type": "enabled"}},
    ),
    "custom": ({"reasoning_effort": "none"}, {"reasoning_effort": "low"}, {"reasoning_effort": "medium"}),
}
SETTINGS = ("off", "low", "budget:5000")
FIELDS = {
    "reasoning_effort",
    "reasoning",
    "thinking",
    "think",
    "enable_thinking",
    "thinking_budget",
    "thinking_token_budget",
    "chat_template_kwargs",
}


def upstream(kind: str, base_url: str) -> str:
    return (
        f'[[upstreams]]\nname = "{kind}"\nkind = "{kind}"\nbase_url = "{base_url}"\n'
        f'api_key = "{UPSTREAM_KEY}"\nmodels = ["m"]\n'
    )


def assistant(name: str, model: str, **fields: str) -> str:
    lines = [f'[[assistants]]\nname = "{name}"\nmodel = ["{model}"]']
    return "\n".join([*lines, *(f"{field} = {json.dumps(value)}" for field, value in fields.items())]) + "\n"


def settings(base_url: str) -> str:
    parts = [upstream(kind, base_url) for kind in TOLD]
    for kind in TOLD:
        parts += [assistant(f"{kind} {value}", f"{kind}/m", thinking=value) for value in SETTINGS]
        parts.append(assistant(f"{kind} inherit", f"{kind}/m"))
    lock: Any = ["thinking"]
    # A server of no known kind whose operator knows how to tell it.
    parts.insert(
        0, upstream("custom", base_url).replace("custom", "known", 1) + 'thinking = ["flag", "type"]\n'
    )
    parts += [assistant("known off", "known/m", thinking="off"), assistant("known inherit", "known/m")]
    parts += [
        assistant("apart", "vllm/apart", reasoning_output="separate"),
        assistant("hidden", "vllm/hidden", reasoning_output="hide"),
        assistant("opening", "vllm/opening", reasoning_output="hide"),
        assistant("quiet", "vllm/quiet", chat_history="disable_think"),
        assistant("stubborn", "vllm/stubborn", thinking="off"),
        assistant("refusing", "ollama/refusing", thinking="low"),
        assistant("locked low", "vllm/m", thinking="low", locked=lock),
        assistant("locked", "vllm/m", locked=lock),
    ]
    return "\n".join(parts)


@pytest.fixture(scope="module")
def thinking(scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`sluicegate serve` before one scripted upstream of each kind."""
    folder = tmp_path_factory.mktemp("thinking")
    # An assistant with chat history needs a database.
    environment = {"SLUICEGATE_DATA_DIR": str(folder / "data")}
    with gateway(settings(scripted.base_url), folder, keys=API_KEY, environment=environment) as server:
        yield server


@pytest.fixture
def thinker(thinking: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=thinking.base_url, api_key=API_KEY, timeout=45, max_retries=0) as client:
        yield client


def script(*steps: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    key = uuid.uuid4().hex
    return key, {"x_script": {"key": key, "steps": list(steps) or [{}]}}


def told(scripted: ScriptedUpstream, key: str) -> list[dict[str, Any]]:
    """What the calls said of thinking."""
    bodies = [json.loads(call.body) for call in scripted.recorded(key)]
    return [{name: value for name, value in body.items() if name in FIELDS} for body in bodies]


def whole(message: dict[str, Any], finish: str = "stop", **usage: Any) -> dict[str, Any]:
    """A step that answers with this message."""
    body = completion("m")
    body["choices"][0]["message"] = {"role": "assistant", **message}
    body["choices"][0]["finish_reason"] = finish
    body["usage"] |= usage
    return {"body": json.dumps(body)}


def streamed(*deltas: dict[str, Any], cut: bool = False) -> dict[str, Any]:
    """A step that streams these deltas."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps(
            {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        )

    begun = [chunk({"role": "assistant", "content": ""}), *(chunk(delta) for delta in deltas)]
    return {"chunks": begun, "cut": True} if cut else {"chunks": [*begun, chunk({}, "stop"), "[DONE]"]}


@pytest.mark.parametrize("kind", list(TOLD))
def test_each_kind_is_told_in_its_own_words(thinker: OpenAI, scripted: ScriptedUpstream, kind: str) -> None:
    for value, expected in zip(SETTINGS, TOLD[kind], strict=True):
        key, extra = script()
        raw = thinker.chat.completions.with_raw_response.create(
            model=f"{kind} {value}", messages=QUESTION, extra_body=extra
        )
        assert told(scripted, key) == [expected], value
        assert raw.headers["x-thinking"].startswith(f"{value}; way=")
        assert raw.parse().choices[0].message.content == "scripted"
    # Nobody says anything: nothing is added, and nothing is told.
    key, extra = script()
    raw = thinker.chat.completions.with_raw_response.create(
        model=f"{kind} inherit", messages=QUESTION, extra_body=extra
    )
    assert told(scripted, key) == [{}]
    assert "x-thinking" not in raw.headers


@pytest.mark.parametrize(
    "wish",
    [
        {"reasoning_effort": "none"},
        {"think": False},
        {"enable_thinking": False},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning": {"effort": "none"}},
        {"thinking": {"type": "disabled"}},
    ],
    ids=str,
)
def test_a_client_may_say_it_in_any_words(
    thinker: OpenAI, scripted: ScriptedUpstream, wish: dict[str, Any]
) -> None:
    for kind in ("openai", "vllm", "openrouter", "deepseek"):
        key, extra = script()
        raw = thinker.chat.completions.with_raw_response.create(
            model=f"{kind} inherit", messages=QUESTION, extra_body=extra | wish
        )
        assert told(scripted, key) == [TOLD[kind][0]], kind
        assert "x-dropped-params" not in raw.headers
    # A default stands in for a word that is missing only.
    key, extra = script()
    thinker.chat.completions.create(model="openai low", messages=QUESTION, extra_body=extra | wish)
    assert told(scripted, key) == [TOLD["openai"][0]]
    # A server of no known kind gets the client's own words, and so does a plain model.
    for model in ("custom inherit", "m"):
        key, extra = script()
        thinker.chat.completions.create(model=model, messages=QUESTION, extra_body=extra | wish)
        assert told(scripted, key) == [wish], model


def test_an_upstream_may_name_its_own_ways(thinker: OpenAI, scripted: ScriptedUpstream) -> None:
    for model in ("known off", "known inherit"):
        key, extra = script()
        wish = {"reasoning_effort": "none"}
        thinker.chat.completions.create(model=model, messages=QUESTION, extra_body=extra | wish)
        assert told(scripted, key) == [{"enable_thinking": False}], model


def test_a_lock_has_the_last_word(thinker: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script()
    wish = {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False, "custom": 1}}
    raw = thinker.chat.completions.with_raw_response.create(
        model="locked low", messages=QUESTION, extra_body=extra | wish
    )
    kwargs = {"custom": 1, "enable_thinking": True, "thinking": True}
    assert told(scripted, key) == [{"reasoning_effort": "low", "chat_template_kwargs": kwargs}]
    assert raw.headers["x-dropped-params"] == "reasoning_effort, chat_template_kwargs"
    key, extra = script()
    raw = thinker.chat.completions.with_raw_response.create(
        model="locked", messages=QUESTION, extra_body=extra | wish
    )
    assert told(scripted, key) == [{"chat_template_kwargs": {"custom": 1}}]
    assert raw.headers["x-dropped-params"] == "reasoning_effort, chat_template_kwargs"


@pytest.mark.parametrize(
    "message",
    [{"content": "<think>\nI add.\n</think>\n\n4"}, {"content": "4", "reasoning": "I add.\n"}],
    ids=str,
)
def test_whole_answers_show_it_apart_or_not(thinker: OpenAI, message: dict[str, Any]) -> None:
    answers = {}
    for model in ("apart", "hidden"):
        _, extra = script(whole(message, completion_tokens=9, total_tokens=12))
        answers[model] = thinker.chat.completions.create(model=model, messages=QUESTION, extra_body=extra)
        assert answers[model].choices[0].message.content == "4"
        assert answers[model].usage.completion_tokens == 9  # type: ignore[union-attr]
    extra_fields = answers["apart"].choices[0].message.model_extra
    assert extra_fields == {"reasoning_content": "I add.\n"}
    assert "add" not in answers["hidden"].to_json()


@pytest.mark.parametrize(
    "deltas",
    [
        ({"content": "<th"}, {"content": "ink>I"}, {"content": " add.</thi"}, {"content": "nk>\n4"}),
        ({"reasoning": "I"}, {"reasoning": " add."}, {"content": "4"}),
        ({"reasoning_content": "I add."}, {"content": "4"}),
    ],
    ids=str,
)
def test_streams_show_it_apart_or_not(thinker: OpenAI, deltas: tuple[dict[str, Any], ...]) -> None:
    for model in ("apart", "hidden"):
        _, extra = script(streamed(*deltas))
        content, thoughts, count = "", "", 0
        stream = thinker.chat.completions.create(
            model=model, messages=QUESTION, stream=True, extra_body=extra
        )
        for chunk in stream:
            delta, count = chunk.choices[0].delta, count + 1
            content += delta.content or ""
            thoughts += (delta.model_extra or {}).get("reasoning_content", "")
            assert "reasoning" not in (delta.model_extra or {})
        assert (content, thoughts) == ("4", "I add." if model == "apart" else "")
        if model == "hidden":
            assert count == 3, "role, content, finish: no empty chunk for a hidden thought"


def test_a_stream_cut_inside_of_a_thought_is_an_error(thinker: OpenAI) -> None:
    for model in ("apart", "hidden"):
        _, extra = script(streamed({"content": "<think>I wonder"}, cut=True))
        with pytest.raises(openai.APIError, match="ended"):
            list(
                thinker.chat.completions.create(model=model, messages=QUESTION, stream=True, extra_body=extra)
            )


def test_a_switch_that_does_not_work_is_noticed_and_the_next_one_tried(
    thinker: OpenAI, scripted: ScriptedUpstream
) -> None:
    key, extra = script(
        whole({"content": "<think>I add.</think>4"}), whole({"content": "4"}), whole({"content": "4"})
    )

    def ask() -> str:
        raw = thinker.chat.completions.with_raw_response.create(
            model="stubborn", messages=QUESTION, extra_body=extra
        )
        return raw.headers["x-thinking"]

    assert ask() == "off; way=template; effective=no"
    assert ask() == "off; way=effort; effective=yes"
    assert ask() == "off; way=effort; effective=yes"
    assert told(scripted, key) == [TEMPLATE_OFF, {"reasoning_effort": "none"}, {"reasoning_effort": "none"}]


def test_disable_think_is_off_and_hidden(thinker: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(streamed({"reasoning_content": "I add."}, {"content": "4"}))
    stream = thinker.chat.completions.create(
        model="quiet", messages=QUESTION, stream=True, extra_body=extra | {"reasoning_effort": "high"}
    )
    assert "add" not in "".join(chunk.to_json() for chunk in stream)
    assert told(scripted, key) == [TEMPLATE_OFF]


def test_a_refused_switch_costs_the_client_nothing(thinker: OpenAI, scripted: ScriptedUpstream) -> None:
    error = {"error": {"message": 'think value "low" is not supported for this model', "type": "api_error"}}
    refusal = {"status": 400, "body": json.dumps(error)}
    key, extra = script(refusal, refusal, {})
    answer = thinker.chat.completions.create(model="refusing", messages=QUESTION, extra_body=extra)
    assert answer.choices[0].message.content == "scripted"
    assert told(scripted, key) == [{"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}, {}]
    # A client's own word is the client's matter.
    _, extra = script(refusal)
    with pytest.raises(openai.BadRequestError, match="think value"):
        thinker.chat.completions.create(
            model="ollama inherit", messages=QUESTION, extra_body=extra | {"reasoning_effort": "low"}
        )


def test_thinking_that_ate_the_whole_answer_is_told(thinker: OpenAI, thinking: Server) -> None:
    _, extra = script(whole({"content": "", "reasoning_content": "I add and add"}, "length"))
    for model in ("m", "hidden"):
        raw = thinker.chat.completions.with_raw_response.create(
            model=model, messages=QUESTION, extra_body=extra
        )
        assert raw.headers["x-thinking"] == "spent=all"


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_has_no_reasoning_item_where_it_is_hidden(thinker: OpenAI, stream: bool) -> None:
    for model in ("apart", "hidden"):
        if stream:
            _, extra = script(streamed({"content": "<think>I"}, {"content": " add.</think>4"}))
        else:
            _, extra = script(whole({"content": "<think>I add.</think>4"}))
        options: Any = {"model": model, "input": "2 + 2?", "store": False, "extra_body": extra}
        if stream:
            events = list(thinker.responses.create(**options, stream=True))
            response = events[-1].response
        else:
            response = thinker.responses.create(**options)
        kinds = [item.type for item in response.output]
        assert kinds == (["reasoning", "message"] if model == "apart" else ["message"])
        assert response.output_text == "4"


def test_endless_and_hostile_thoughts(thinker: OpenAI) -> None:
    thought = "<think>" + "</thin" * 1000 + "`</think>`" + "<think>" * 1000
    _, extra = script(
        streamed(
            {"content": thought}, *({"content": "so " * 3000} for _ in range(200)), {"content": "</think>4"}
        )
    )
    stream = thinker.chat.completions.create(model="hidden", messages=QUESTION, stream=True, extra_body=extra)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "4"
    # A tag that closes nothing, and one in code, are text.
    text = "```\n</think>\n```\nuse <think> here"
    _, extra = script(streamed(*({"content": letter} for letter in text)))
    stream = thinker.chat.completions.create(model="hidden", messages=QUESTION, stream=True, extra_body=extra)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text


def test_a_template_that_opens_the_thought_is_learned(thinker: OpenAI) -> None:
    deltas = ({"content": "I add.\n"}, {"content": "</think>\n\n"}, {"content": "4"})
    told = []
    for _ in range(2):
        _, extra = script(streamed(*deltas))
        stream = thinker.chat.completions.create(
            model="opening", messages=QUESTION, stream=True, extra_body=extra
        )
        told.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))
    assert told == ["I add.\n4", "4"]
