"""Usage over a database: one record for each admitted request, and budgets that remember."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fakes.engine import Asked, FakeOutcome, FakeReply, failed, streaming
from fakes.tenants import Make, Tenants, listing
from sluicegate.settings import KeyConfig, Secret, Settings, UpstreamConfig
from sluicegate.storage.location import Location
from sluicegate.usage.day_files import DayFiles
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import Filter, Record, packed
from sluicegate.usage.parts import period_start

KEY = "sk-test-0123456789abcdef"
PRICED = Settings(
    keys=(KeyConfig(name="own", key=Secret(KEY), budget={"usd_per_month": 0.02}),),
    upstreams=(
        UpstreamConfig(
            name="u",
            base_url="http://u/v1",
            models=("m",),
            # 3 tokens of prompt and 5 of the answer are 13,000 millionths.
            prices={"*": {"prompt": 1000.0, "completion": 2000.0}},
        ),
    ),
)


def records(location: Location) -> tuple[Record, ...]:
    """The oldest first."""
    with closing(open_logbook(location)) as logbook:
        return logbook.page(Filter()).records[::-1]


@pytest.mark.asyncio
async def test_every_admitted_request_has_one_record(make: Make, location: Location, acme: str) -> None:
    replies = [
        FakeReply(outcome=FakeOutcome(cached_tokens=2, reasoning_tokens=1, bytes_in=40)),
        failed(),
        streaming(b"data: 1\n\n"),
    ]

    def script(asked: Asked) -> FakeReply:
        return listing("m") if asked.operation == "models" else replies.pop(0)

    async with make(script) as gateway:
        assert (await gateway.ask(acme, "Helper")).status == 200
        broken = await gateway.ask(acme, "m")
        assert broken.status >= 500
        assert (await gateway.ask(acme, "m", stream=True)).status == 200
        # Never admitted: no record.
        assert (await gateway.ask(acme, "nobody/has/this")).status == 404
    plain, bad, stream = records(location)
    assert (plain.workspace, plain.model, plain.upstream, plain.upstream_model) == (
        "acme",
        "Helper",
        "own",
        "m",
    )
    assert (plain.assistant_version, plain.status, plain.code, plain.attempts) == (1, 200, None, 1)
    assert (plain.prompt_tokens, plain.completion_tokens, plain.cached_tokens) == (3, 5, 2)
    assert (plain.source, plain.finish, plain.first_us) == ("upstream", "stop", 1500)
    assert plain.key.startswith("key_")
    assert (bad.status, bad.prompt_tokens, bad.completion_tokens) == (broken.status, 0, 0)
    assert bad.code == broken.error["code"]
    assert bad.error == broken.error["message"]
    assert (stream.stream, stream.status, stream.source) == (True, 200, "upstream")
    with closing(open_logbook(location)) as logbook:
        (hour,) = logbook.hours(Filter(workspace="acme"))
    assert (hour.requests, hour.failed, hour.prompt_tokens) == (3, 1, 6)


@pytest.mark.asyncio
async def test_limits_of_a_workspace_in_the_database_hold(make: Make, tenants: Tenants) -> None:
    await tenants.workspace("tight", limits={"requests_per_minute": 1})
    await tenants.upstream("tight", "own", "http://tight-host/v1", models=("m",))
    key = (await tenants.key("tight"))[1]
    async with make() as gateway:
        assert (await gateway.ask(key, "m")).status == 200
        refused = await gateway.ask(key, "m")
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    # A restart is no way around it.
    async with make() as gateway:
        assert (await gateway.ask(key, "m")).status == 429


@pytest.mark.asyncio
async def test_a_budget_is_known_after_the_shared_file_is_gone(make: Make, location: Location) -> None:
    async with make(always, PRICED) as gateway:
        statuses = [(await gateway.ask(KEY, "m")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
    assert sum(record.micros for record in records(location)) == 26_000
    location.limits_file.unlink()
    async with make(always, PRICED) as gateway:
        # The first one finds the budget new, and has it read.
        seen = [(await gateway.ask(KEY, "m")).status]
        for _ in range(100):
            seen.append((await gateway.ask(KEY, "m")).status)
            if seen[-1] == 429:
                break
        assert seen[-1] == 429
        assert len(seen) <= 3


def always(asked: Asked) -> FakeReply:
    return listing("m") if asked.operation == "models" else FakeReply()


def test_periods_begin_as_in_the_core() -> None:
    now = int(datetime(2024, 2, 29, 13, 5, tzinfo=UTC).timestamp() * 1000)

    def begun(kind: str) -> str:
        return datetime.fromtimestamp(period_start(kind, now) / 1000, UTC).strftime("%Y-%m-%d %H:%M")

    assert begun("usd_per_day") == "2024-02-29 00:00"
    assert begun("budget_tokens_per_week") == "2024-02-26 00:00"
    assert begun("usd_per_month") == "2024-02-01 00:00"
    assert begun("usd_total") == "1970-01-01 00:00"


def test_a_day_is_deleted_with_its_file(tmp_path: Path) -> None:
    files = DayFiles(tmp_path)
    day = 86_400_000
    made = [
        Record(id=f"req_{at * day * 1_000_000:016x}{at:012x}", workspace="w", key="k", operation="chat")
        for at in (20_000, 20_001, 20_002)
    ]
    assert files.write(packed(made)) == 3
    assert files.write(packed(made)) == 0
    assert files.delete_before(20_002 * day) == 2
    assert [record.id for record in files.page(Filter()).records] == [made[2].id]
    assert files.delete_before(20_002 * day) == 0
