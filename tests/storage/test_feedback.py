"""Feedback on answers, in both databases: one word for each key, of nobody else, and its worth for scores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from processes import answers, free_port, running
from sluicegate.errors import GatewayError
from sluicegate.http.door import Owner
from sluicegate.ids import request_ids
from sluicegate.quality import store
from sluicegate.quality.endpoint import read
from sluicegate.quality.feedback import Feedback, Labelled, suggested, thresholds
from sluicegate.storage.database import Database, now_ms
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import View
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import Record, packed

T = TypeVar("T")
ADA, BOB, ELSEWHERE = Owner("acme", "key_ada"), Owner("acme", "key_bob"), Owner("other", "key_ada")
ID = "req_" + "ab" * 14


async def write(database: Database, step: Callable[[View], Awaitable[T]]) -> T:
    async with database.note() as view:
        return await step(view)


def said(score: int, **values: Any) -> Feedback:
    return Feedback(request=ID, key="", score=score, **values)


@pytest.mark.asyncio
async def test_each_key_has_one_word(database: Database) -> None:
    steps = [
        (ADA, said(0, correction="It is 4."), False),
        (BOB, said(70, answer_score=40, assistant="asst_1"), False),
        (ADA, said(100, answer_score=60, assistant="asst_1"), True),
        # What is known of the answer is not forgotten.
        (BOB, said(80), True),
        (ELSEWHERE, said(5), False),
    ]
    for owner, word, again in steps:
        assert await write(database, lambda view, o=owner, w=word: store.save(view, o, w)) is again
    async with database.read() as view:
        found = await store.of_request(view, "acme", ID)
        assert {(one.key, one.score, one.correction) for one in found} == {
            ("key_ada", 100, None),
            ("key_bob", 80, None),
        }
        assert [one.score for one in await store.of_request(view, "other", ID)] == [5]
        pairs = await store.labelled(view, "acme", "asst_1")
        assert sorted(pairs) == [Labelled(40, 80), Labelled(60, 100)]
        assert await store.labelled(view, "other", "asst_1") == []
    assert await write(database, lambda view: store.expire(view, now_ms() + 1000, 2)) == 2
    assert await write(database, lambda view: store.expire(view, now_ms() + 1000, 2)) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "id"),
        ({"id": 4, "rating": "up"}, "id"),
        ({"id": "req_" + "AB" * 14, "rating": "up"}, "id"),
        ({"id": "chatcmpl-1", "rating": "up"}, "id"),
        ({"id": ID}, "rating"),
        ({"id": ID, "rating": "maybe"}, "rating"),
        ({"id": ID, "rating": "up", "score": 4}, "rating"),
        ({"id": ID, "score": 101}, "score"),
        ({"id": ID, "score": True}, "score"),
        ({"id": ID, "score": "5"}, "score"),
        ({"id": ID, "score": 5, "correction": "x" * 10_001}, "correction"),
        ({"id": ID, "score": 5, "correction": ["x"]}, "correction"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_what_a_least_score_would_do() -> None:
    found = [Labelled(20, 0)] * 30 + [Labelled(80, 100)] * 60 + [Labelled(80, 0)] * 10
    of = {one.least: one for one in thresholds(found)}
    assert (of[10].fails, of[10].bad_that_pass, of[10].good_that_fail) == (0.0, 0.4, None)
    assert (of[50].fails, of[50].bad_that_pass, of[50].good_that_fail) == (0.3, 0.1429, 0.0)
    assert (of[90].fails, of[90].bad_that_pass, of[90].good_that_fail) == (1.0, None, 0.6)
    assert suggested(found) == 21
    assert suggested(found[:40]) is None, "too few"
    assert suggested([Labelled(50, 0), Labelled(50, 100)] * 50) is None, "no better than chance"
    assert thresholds([])[0].fails is None


def test_clients_say_it_over_http(location: Location, tmp_path: Path) -> None:
    key = "sk-test-0123456789abcdef"
    file = tmp_path / "sluicegate.toml"
    file.write_text(
        f'[[keys]]\nname = "a"\nkey = "{key}"\n'
        '[[upstreams]]\nname = "up"\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["m"]\n'
    )
    environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    fresh, foreign, known = (request_ids.next() for _ in range(3))
    old = "req_" + "00" * 14
    with closing(open_logbook(location)) as logbook:
        values: dict[str, Any] = {"key": "k", "operation": "chat", "score": 42, "assistant": "asst_1"}
        logbook.write(packed([Record(id=foreign, workspace="other", **values)]))
        logbook.write(packed([Record(id=known, workspace="default", **values)]))
    port = free_port()
    arguments = ["sluicegate", "serve", "--port", str(port), "--config", str(file)]
    with running(
        arguments, port, tmp_path / "log", environment=environment, ready=lambda p: answers(p, "/readyz")
    ):

        def post(body: dict[str, Any], token: str = key) -> tuple[int, dict[str, Any]]:
            head = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                connection.request("POST", "/v1/feedback", json.dumps(body), head)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        told = {"object": "feedback", "id": known, "score": 0, "updated": False}
        assert post({"id": known, "rating": "down", "correction": "No:\0 5."}) == (200, told)
        assert post({"id": known, "score": 77})[1] == {**told, "score": 77, "updated": True}
        # Its record may not be there yet.
        assert post({"id": fresh, "rating": "up"})[0] == 200
        for ref in (foreign, old):
            status, body = post({"id": ref, "rating": "up"})
            assert (status, body["error"]["type"]) == (404, "invalid_request_error")
        assert post({"id": known, "rating": "up"}, "sk-wrong-0123456789abcde")[0] == 401
        assert post({"id": known})[0] == 400

    async def stored() -> list[Labelled]:
        database = await Database.open(location)
        try:
            async with database.read() as view:
                return await store.labelled(view, "default", "asst_1")
        finally:
            await database.close()

    assert asyncio.run(stored()) == [Labelled(42, 77)]
