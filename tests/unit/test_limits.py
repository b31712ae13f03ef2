"""Limits as a client meets them: what passes, what is refused, what the headers say, what it costs."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.asgi import request
from fakes.engine import FakeOutcome, FakeReply, failed, streaming
from fakes.gateway import Made
from sluicegate.engine import LimitRules, LimitSets
from sluicegate.engine import Limits as Counting
from sluicegate.errors import GatewayError
from sluicegate.limits.admit import NOTHING, Demand, Held, Limiter, Scope, Together, reserved, scope, together
from sluicegate.limits.model import Budget, Limits, rules_of
from sluicegate.settings import Secret, SettingsError, UpstreamConfig, load
from sluicegate.usage import configured as usage
from sluicegate.usage.prices import FREE, Price, PriceConfig, Prices

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":10}'
STREAM = b'{"model":"m","stream":true,"max_tokens":10}'
PRICED = UpstreamConfig(
    name="one",
    base_url="http://one/v1",
    models=("m",),
    prices={"m": {"prompt": 1000.0, "completion": 2000.0}},
)


class Warnings(list[tuple[str, int]]):
    """Remembers of which budgets it was told."""

    def __call__(self, warned: Scope, percent: int) -> None:
        self.append((warned.name, percent))


def limiter(warnings: Warnings | None = None) -> Limiter:
    return Limiter(Counting(None), warnings if warnings is not None else Warnings())


def of(limits: Limits, budget: Budget = Budget(), name: str = "k") -> Together:  # noqa: B008
    made = scope("key", name, name, limits, budget)
    assert made is not None
    return together(made)


def admit(limiter: Limiter, limited: Together, demand: Demand) -> Held:
    held = limiter.at_once(limited, reserved(limited, demand), demand.micros)
    # One machine counts: nobody is waited for.
    assert held is not None
    return held


def test_without_limits_nothing_is_counted() -> None:
    assert scope("key", "k", "k", Limits()) is None
    assert reserved(None, Demand(1, 1)) == 2
    NOTHING.settle(5, 5)


def test_every_limit_and_budget_becomes_a_rule() -> None:
    limits = Limits(**{name: 7 for name in Limits.__struct_fields__ if "burst" not in name})
    budget = Budget(**{name: 7 for name in Budget.__struct_fields__ if name != "warn_percent"})
    rules = rules_of(limits, budget)
    # All but the size of a body, which is no counter.
    assert len(rules) == 5 + 8
    assert len(LimitRules("key:k", rules)) == 13
    assert ("usd_per_month", 7_000_000, None) in rules
    assert ("budget_tokens_total", 7, None) in rules
    with pytest.raises(ValueError, match="no kind of limit"):
        LimitRules("key:k", [("requests_per_hour", 1, None)])


@pytest.mark.parametrize(
    ("limits", "kind", "words"),
    [
        (Limits(requests_per_minute=2), "requests", "the key `k`: 2 requests per minute"),
        (Limits(requests_per_day=2), "requests", "the key `k`: 2 requests per day"),
        (Limits(tokens_per_minute=20), "tokens", "the key `k`: 20 tokens per minute"),
        (Limits(concurrent_requests=2), "requests", "the key `k`: 2 concurrent requests"),
    ],
)
def test_a_refusal_names_the_limit_and_the_wait(limits: Limits, kind: str, words: str) -> None:
    admits, scopes = limiter(), of(limits)
    held = [admit(admits, scopes, Demand(4, 6)) for _ in range(2)]
    with pytest.raises(GatewayError) as refused:
        admit(admits, scopes, Demand(4, 6))
    error = refused.value
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", kind)
    assert words in error.message
    headers = dict(error.headers)
    wait = int(headers[b"retry-after-ms"])
    assert 0 < wait <= 43_200_000
    assert int(headers[b"retry-after"]) == -(-wait // 1000)
    assert b"x-should-retry" not in headers
    for one in held:
        one.settle(10, 0)


def test_places_come_back() -> None:
    admits, scopes = limiter(), of(Limits(concurrent_requests=1))
    for _ in range(3):
        held = admit(admits, scopes, Demand(1, 1))
        with pytest.raises(GatewayError):
            admit(admits, scopes, Demand(1, 1))
        held.settle(1, 0)
    # Dropped without a word: the place is free all the same.
    held = admit(admits, scopes, Demand(1, 1))
    del held
    admit(admits, scopes, Demand(1, 1)).settle(1, 0)


def test_tokens_are_settled_to_what_was_used() -> None:
    admits, scopes = limiter(), of(Limits(tokens_per_minute=1000))
    admit(admits, scopes, Demand(100, 800)).settle(50, 0)
    held = admit(admits, scopes, Demand(100, 800))
    headers = dict(held.headers)
    assert headers[b"x-ratelimit-limit-tokens"] == b"1000"
    assert 50 <= int(headers[b"x-ratelimit-remaining-tokens"]) <= 60
    assert re.fullmatch(rb"5[67](\.\d+)?s", headers[b"x-ratelimit-reset-tokens"])


def test_an_answer_may_be_longer_than_a_burst_and_a_prompt_may_not() -> None:
    admits, scopes = limiter(), of(Limits(tokens_per_minute=100))
    admit(admits, scopes, Demand(10, 100_000)).settle(20, 0)
    with pytest.raises(GatewayError) as refused:
        admit(admits, scopes, Demand(101, 5))
    assert "needs 101 tokens, more than the key `k`: 100 tokens per minute" in refused.value.message
    assert dict(refused.value.headers)[b"x-should-retry"] == b"false"


@pytest.mark.parametrize("percent", [0, 1, 50, 100])
def test_a_request_is_plain_until_a_budget_is_used_so_far(percent: int) -> None:
    rules = LimitRules("k", [("budget_tokens_total", 200, None)])
    counting, sets = Counting(None), LimitSets([rules], percent)
    for used in range(200):
        held = counting.admit(sets, 1, 0)
        assert held.budget == (used, 200)
        assert held.is_plain == (used * 100 < 200 * percent)
        held.settle(1, 0)
    refused = counting.admit(sets, 1, 0)
    assert refused.refused is not None
    assert not refused.is_plain


def test_a_budget_warns_and_then_stops() -> None:
    warnings = Warnings()
    admits, scopes = limiter(warnings), of(Limits(), Budget(usd_per_month=2.0, warn_percent=50))
    admit(admits, scopes, Demand(1, 1, 600_000)).settle(2, 400_000)
    held = admit(admits, scopes, Demand(1, 1, 1_000_000))
    assert warnings == []
    second = admit(admits, scopes, Demand(1, 1, 600_001))
    assert warnings == [("k", 70)]
    assert dict(second.headers)[b"x-budget-used-percent"] == b"70"
    held.settle(2, 1_000_000)
    second.settle(2, 600_001)
    with pytest.raises(GatewayError) as refused:
        admit(admits, scopes, Demand(1, 1, 1))
    error = refused.value
    assert (error.status, error.code) == (429, "insufficient_quota")
    assert dict(error.headers)[b"x-should-retry"] == b"false"
    assert "the key `k` is used up ($2 per month)" in error.message


def test_a_budget_of_nothing_lets_nothing_through() -> None:
    with pytest.raises(GatewayError, match="insufficient_quota"):
        admit(limiter(), of(Limits(), Budget(tokens_total=0)), Demand(1, 1))


@pytest.mark.asyncio
async def test_the_headers_of_an_answer_are_ours(make: Made) -> None:
    gateway = make(
        FakeReply(headers=[(b"x-upstream-ratelimit-limit-requests", b"9")]), limits={"requests_per_minute": 2}
    )
    seen = [await request(gateway.app, body=BODY) for _ in range(3)]
    assert [answer.status for answer in seen] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in seen] == ["1", "0", "0"]
    assert seen[0].headers["x-ratelimit-limit-requests"] == "2"
    assert re.fullmatch(r"30s|29\.\d+s", seen[0].headers["x-ratelimit-reset-requests"])
    assert seen[0].headers["x-upstream-ratelimit-limit-requests"] == "9"
    error = json.loads(seen[2].body)["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert 29_000 < int(seen[2].headers["retry-after-ms"]) <= 30_000
    assert len(gateway.engine.asked) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("script", [FakeReply(), failed(), streaming(b"data: 1\n\n")])
async def test_a_place_is_free_however_it_ends(make: Made, script: Any) -> None:
    gateway = make(lambda _: script, limits={"concurrent_requests": 1})
    body = STREAM if script.stream is not None else BODY
    statuses = [(await request(gateway.app, body=body)).status for _ in range(3)]
    assert 429 not in statuses


@pytest.mark.asyncio
async def test_budgets_count_what_answers_cost(make: Made) -> None:
    # 3 tokens of prompt and 5 of the answer: 0.003 + 0.01 dollars.
    gateway = make(None, PRICED, budget={"usd_total": 0.03})
    statuses = [(await request(gateway.app, body=BODY)).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


@pytest.mark.asyncio
async def test_many_at_once_pass_a_budget_by_one_at_most(make: Made) -> None:
    gateway = make(None, PRICED, budget={"usd_total": 0.03})
    answers = await asyncio.gather(*(request(gateway.app, body=BODY) for _ in range(64)))
    passed = sum(answer.status == 200 for answer in answers)
    assert 1 <= passed <= 3


@pytest.mark.asyncio
async def test_the_workspace_and_an_assistant_have_limits_too(make: Made) -> None:
    assistant = {"name": "helper", "model": ["one/m"], "limits": {"requests_per_minute": 1}}
    gateway = make(None, assistants=(assistant,), workspace={"limits": {"requests_per_minute": 2}})
    ask = BODY.replace(b'"m"', b'"helper"')
    assert (await request(gateway.app, body=ask)).status == 200
    refused = await request(gateway.app, body=ask)
    assert "the assistant `helper`" in json.loads(refused.body)["error"]["message"]
    assert (await request(gateway.app, body=BODY)).status == 200
    refused = await request(gateway.app, body=BODY)
    assert "the workspace: 2 requests" in json.loads(refused.body)["error"]["message"]


@pytest.mark.asyncio
async def test_a_body_above_the_limit_is_a_413(make: Made) -> None:
    gateway = make(None, limits={"request_bytes": len(BODY) - 1})
    refused = await request(gateway.app, body=BODY)
    assert refused.status == 413
    assert json.loads(refused.body)["error"]["code"] == "request_too_large"


@pytest.mark.asyncio
async def test_usage_that_cannot_be_right_is_estimated(make: Made) -> None:
    outcome = FakeOutcome(prompt_tokens=10**15, usage_suspect=True)
    gateway = make(FakeReply(outcome=outcome), limits={"tokens_per_minute": 1000})
    for _ in range(2):
        answer = await request(gateway.app, body=BODY)
        assert answer.status == 200
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 900


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("limits = { requests_per_minut = 1 }", "keys[0].limits.requests_per_minut: unknown key"),
        ("limits = { requests_per_minute = 0 }", "keys[0].limits.requests_per_minute: expected a whole"),
        ('budget = { usd_per_month = "5" }', "keys[0].budget.usd_per_month: expected"),
    ],
)
def test_mistakes_name_file_line_and_key(tmp_path: Path, line: str, message: str) -> None:
    from sluicegate.limits.configured import read_keys

    path = tmp_path / "s.toml"
    path.write_text(f'[[keys]]\nname = "a"\nkey = "sk-123"\n{line}\n')
    settings = load(str(path), {"OPENAI_COMPATIBLE_BASE_URL": "http://a/v1"})
    with pytest.raises(SettingsError) as raised:
        read_keys(settings, {"a": "key_1"})
    assert f"s.toml:4: {message}" in str(raised.value)


def test_prices_come_from_the_operator_then_the_list_then_nowhere() -> None:
    own = {"a": {"m": PriceConfig(prompt=2.0, completion=4.0, cached=0.5), "*": PriceConfig(prompt=1.0)}}
    prices = Prices(own)
    assert prices.find("a", "openai", "m") == Price(2_000_000, 4_000_000, 500_000)
    assert prices.find("a", "openai", "other") == Price(1_000_000, 0, 1_000_000)
    assert prices.find("b", "vllm", "m") is FREE
    assert prices.find("b", "openai", "no such model") is FREE
    listed = prices.find("b", "openai", "gpt-4o")
    assert listed == Price(2_500_000, 10_000_000, 1_250_000)


def test_costs_are_whole_millionths_and_never_nothing() -> None:
    price = Price(2_000_000, 8_000_000, 1_000_000)
    assert price.cost(10, 5) == 60
    assert price.cost(10, 5, 4) == 56
    assert price.cost(10, 5, 40) == 50
    assert Price(1, 0).cost(1, 0) == 1
    assert FREE.cost(10**9, 10**9) == 0


def test_prices_in_the_settings_are_checked() -> None:
    settings = msgspec.structs.replace(load(None, {"OPENAI_COMPATIBLE_BASE_URL": "http://a/v1"}))
    assert usage.read_prices(settings) == {}


def test_redis_is_set_by_a_variable_or_the_file_and_checked(tmp_path: Path) -> None:
    from sluicegate.limits.configured import open_shared
    from sluicegate.telemetry.logs import Log

    upstream = {"OPENAI_COMPATIBLE_BASE_URL": "http://a/v1"}
    assert open_shared(load(None, upstream), "", Log()) is None
    path = tmp_path / "s.toml"
    path.write_text('[server]\nredis_url = "redis://:secret@file/1"\nredis_timeout = 0.05\n')
    assert load(str(path), upstream).server.redis_url == Secret("redis://:secret@file/1")
    environ = upstream | {"SLUICEGATE_REDIS_URL": "rediss://other"}
    settings = load(str(path), environ)
    assert settings.server.redis_url == Secret("rediss://other")
    assert open_shared(settings, "", Log()) is not None
    path.write_text('[server]\nredis_url = "http://:secret@file/1"\n')
    with pytest.raises(SettingsError, match=r"s\.toml:2: server\.redis_url: expected redis://") as raised:
        open_shared(load(str(path), upstream), "", Log())
    assert "secret" not in str(raised.value)
    for wrong in ("redis://h:port", "redis://h?socket_timeout=x", "redis://h?nonsense=1", "http://h"):
        with pytest.raises(SettingsError, match="SLUICEGATE_REDIS_URL: expected"):
            open_shared(load(None, upstream | {"SLUICEGATE_REDIS_URL": wrong}), "", Log())
    path.write_text('[server]\nrecords = "loose"\n')
    with pytest.raises(SettingsError, match=r"s\.toml:2: server\.records"):
        load(str(path), upstream)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (999_001, "1s"),
        (12_345_000, "12.345s"),
        (360_000_000, "6m0s"),
        (3.6e9, "1h0m0s"),
    ],
)
def test_durations_are_as_the_core_writes_them(microseconds: float, text: str) -> None:
    from sluicegate.limits.counted import counted, level_headers

    (rate,) = counted("key", "k", Limits(requests_per_minute=7), Budget())
    assert level_headers([(rate, microseconds * 7)])[2] == (b"x-ratelimit-reset-requests", text.encode())


def test_every_limit_and_budget_is_counted_in_redis_too() -> None:
    from sluicegate.limits.counted import counted
    from sluicegate.limits.model import BUDGETS

    limits = Limits(**dict.fromkeys(Limits.__struct_fields__, 7))
    budget = Budget(**{name: 7 for name in Budget.__struct_fields__ if name != "warn_percent"})
    found = counted("key", "k", limits, budget)
    assert [(one.kind, one.most) for one in found] == [
        (kind, most) for kind, most, _ in rules_of(limits, budget)
    ]
    assert {one.kind for one in found if one.code == "budget"} == set(BUDGETS)
    assert len({one.key for one in found}) == len(found)
    assert {one.every for one in found if one.code == "budget"} == {"day", "week", "month", "total"}
