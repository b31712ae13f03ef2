"""Bodies of requests: kept only where a workspace wants it, cut to size, and deleted when they are old."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.engine import Asked, FakeOutcome, FakeReply, failed, streaming
from fakes.tenants import Make, Tenants, listing
from processes import Server, answers, free_port, running
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.location import Location
from sluicegate.telemetry.logs import Log
from sluicegate.usage.bodies import Bodies, Body
from sluicegate.usage.logbook import Logbook, open_logbook
from sluicegate.usage.model import DAY_MS, Filter, Record, packed
from sluicegate.usage.retention import Kept, Retention
from sluicegate.workspaces.model import BodyRules

BEGIN = 20_000 * DAY_MS


@pytest.fixture
def logbook(location: Location) -> Iterator[Logbook]:
    with closing(open_logbook(location)) as opened:
        yield opened


async def bodies(location: Location, workspace: str) -> list[Body | None]:
    """Of all its requests, the oldest first."""

    def read() -> list[Body | None]:
        with closing(open_logbook(location)) as logbook:
            page = logbook.page(Filter(workspace=workspace))
            return [logbook.body(workspace, record.id) for record in page.records[::-1]]

    return await asyncio.to_thread(read)


@pytest.mark.asyncio
async def test_they_are_kept_only_where_it_is_wanted(
    make: Make, tenants: Tenants, location: Location
) -> None:
    keys = {}
    for name, rules in (("keeps", BodyRules(days=3, max_bytes=256)), ("not", BodyRules())):
        await tenants.workspace(name, bodies=rules)
        await tenants.upstream(name, "own", f"http://{name}-host/v1", models=("m",))
        keys[name] = (await tenants.key(name))[1]
    whole = b'{"id":"1","choices":[]}'

    def script(asked: Asked) -> FakeReply:
        return listing("m") if asked.operation == "models" else replies.pop(0)

    async with make(script) as gateway:
        for name, key in keys.items():
            replies = [
                FakeReply(body=b'{"a":"' + b"x" * 300 + b'"}'),
                streaming(b"data: 1\n\n", outcome=FakeOutcome(answer=whole if name == "keeps" else None)),
                failed(),
            ]
            assert (await gateway.ask(key, "m")).status == 200
            assert (await gateway.ask(key, "m", stream=True)).status == 200
            assert (await gateway.ask(key, "m", user="y" * 500)).status >= 500
        # The relay keeps a stream only for who wants it.
        assert [asked.options.get("keep") for asked in gateway.chats if asked.options.get("stream")] == [
            True,
            None,
        ]
    assert await bodies(location, "not") == [None] * 3
    plain, stream, bad = await bodies(location, "keeps")
    assert plain and stream and bad
    assert json.loads(plain.request)["model"] == "m"
    assert (len(plain.answer), plain.cut) == (256, True)
    assert (stream.answer, stream.cut) == (whole, False)
    assert (len(bad.request), bad.answer, bad.cut) == (256, b"", True)


def body(number: int, day: int, workspace: str) -> Body:
    id = f"req_{(BEGIN + day * DAY_MS) * 1_000_000 + number:016x}{number:012x}"
    return Body(id=id, workspace=workspace, request=b"\x00\xff request", answer=b"answer" * number)


class Silent:
    """Nobody reads it."""

    def write(self, _text: str) -> int:
        return 0

    def flush(self) -> None:
        """Nothing."""


def test_retention_follows_each_workspace(logbook: Logbook, tmp_path: Path) -> None:
    made = [
        body(n * 10 + day, day, name) for n, name in enumerate(("a", "b", "c", "gone")) for day in range(5)
    ]
    logbook.keep(made)
    logbook.keep(made)
    records = [Record(id=one.id, workspace=one.workspace, key="k", operation="chat") for one in made]
    logbook.write(packed(records))
    assert logbook.body("a", made[1].id) == made[1]
    # Of another workspace it is not there.
    assert logbook.body("b", made[1].id) is None
    log = Log(Silent(), access=False)  # type: ignore[arg-type]
    retention = Retention(logbook, tmp_path / "retention.lock", 4, log)

    async def read() -> list[Kept]:
        return [Kept("a", 2, 1), Kept("b", None, 3), Kept("c", 1000, 0)]

    now = BEGIN + 5 * DAY_MS + 5
    for _ in range(2):
        assert asyncio.run(retention.sweep(read, now))
        kept = {one.id for one in made if logbook.body(one.workspace, one.id)}
        # Of `c`, which keeps none, and of who is gone, nothing is left.
        assert kept == {one.id for one in made if age(one) <= {"a": 1, "b": 3}.get(one.workspace, 0)}
        left = {record.id for record in logbook.page(Filter(), limit=100).records}
        assert left == {one.id for one in made if age(one) <= (2 if one.workspace == "a" else 4)}
    log.close()


def age(one: Body) -> int:
    """In days, of the end of the day that it was made on."""
    return 5 - (int(one.id[4:20], 16) // 1_000_000 - BEGIN) // DAY_MS


def test_what_finds_no_room_is_counted() -> None:
    stored: list[Body] = []
    down = True

    def store(given: Any) -> None:
        if down:
            raise UnavailableError("no")
        stored.extend(given)

    waiting = Bodies(store, most=100)
    one = Body(id="a", workspace="w", request=b"x" * 40)
    for _ in range(4):
        waiting.put(one)
    assert waiting.dropped == 2
    with pytest.raises(UnavailableError):
        waiting.write()
    down = False
    waiting.write()
    assert stored == [one, one]
    assert waiting.is_empty
    waiting.put(msgspec.structs.replace(one, answer=b"y" * 60))
    assert (waiting.is_empty, waiting.dropped) == (False, 2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    arguments = ["sluicegate.demo", "--port", str(port)]
    with running(arguments, port, log, ready=lambda p: answers(p, "/v1/models")) as server:
        yield server


MESSAGES = [{"role": "user", "content": "Hello there"}]
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", {"messages": MESSAGES}),
    ("chat/completions", {"messages": MESSAGES, "stream": True}),
    ("chat/completions", {"messages": MESSAGES, "stream": True, "store": True}),
    ("responses", {"input": "Hello there"}),
    ("responses", {"input": "Hello there", "stream": True}),
]


def test_every_way_of_asking_is_kept(demo: Server, location: Location, tmp_path: Path) -> None:
    file = tmp_path / "sluicegate.toml"
    file.write_text(
        '[workspace]\nbodies = { days = 1 }\n[[keys]]\nname = "a"\nkey = "sk-test-0123456789abcdef"\n'
        f'[[upstreams]]\nname = "demo"\nbase_url = "{demo.base_url}"\nmodels = ["demo-fast"]\n'
    )
    environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    port, sent = free_port(), []
    arguments = ["sluicegate", "serve", "--port", str(port), "--config", str(file)]
    with running(
        arguments, port, tmp_path / "log", environment=environment, ready=lambda p: answers(p, "/readyz")
    ):
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        head = {"authorization": "Bearer sk-test-0123456789abcdef", "content-type": "application/json"}
        connection.request("POST", "/v1/conversations", "{}", head)
        conversation = json.loads(connection.getresponse().read())["id"]
        for path, values in [*ASKED, ("responses", {"input": "Hello there", "conversation": conversation})]:
            body = json.dumps({"model": "demo-fast", **values})
            connection.request("POST", f"/v1/{path}", body, head)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            sent.append((answer.headers["x-request-id"], body.encode(), text))
        connection.close()
    with closing(open_logbook(location)) as logbook:
        for id, body, text in sent:
            record, kept = logbook.one(id), logbook.body("default", id)
            assert record is not None
            assert kept is not None
            assert (record.client, record.bytes_out) == ("127.0.0.1", len(text))
            assert kept.request == body
            assert not kept.cut
            said = json.loads(kept.answer)
            if record.operation == "responses":
                assert said["status"] == "completed"
                assert b"Hello" in kept.answer or said["output"]
            else:
                assert said["object"] == "chat.completion"
                assert said["choices"][0]["message"]["content"]
            if not record.stream:
                assert kept.answer == text
        assert record is not None
        assert record.conversation == conversation
