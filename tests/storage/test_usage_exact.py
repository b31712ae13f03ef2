"""The sum of usage is the sum of what mixed requests saw, to the token: `TEST_REQUESTS=10000` for all."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from spending_upstream import Spending

from processes import answers, free_port, running
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import Filter, Record, Sum

KEY = "sk-test-0123456789abcdef"
REQUESTS = int(os.environ.get("TEST_REQUESTS", "400"))
THREADS = 6
WORKERS = 2
KINDS = ("whole", "stream", "hidden", "left", "cut", "refused", "broken", "fallback")

pytestmark = pytest.mark.timeout(120 + REQUESTS // 4)


@dataclass
class Seen:
    """What one client saw of one request."""

    kind: str
    status: int
    stream: bool
    prompt: int = 0
    completion: int = 0
    chunks: int = 0
    bytes: int = 0
    is_whole: bool = False


class Clients:
    """Each asks for its share, in an order of its own."""

    def __init__(self, port: int, requests: int) -> None:
        self.seen: dict[str, Seen] = {}
        self._port = port
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number, requests // THREADS))
            for number in range(THREADS)
        ]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(100 + REQUESTS // 4)
            assert not thread.is_alive()

    def _run(self, number: int, requests: int) -> None:
        chance = random.Random(number)
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        for _ in range(requests):
            script = {
                "kind": chance.choice(KINDS),
                "prompt": chance.randrange(1, 5000),
                "completion": chance.randrange(1, 3000),
                "chunks": chance.randrange(1, 12),
                "pause": chance.choice((0, 0, 0.002)),
            }
            if script["kind"] == "left":
                script |= {"chunks": 200, "pause": 0.005}
            stream = script["kind"] in ("stream", "hidden", "left", "cut") or chance.random() < 0.3
            if not self._ask(connection, script, chance, stream=stream):
                connection.close()
                connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.close()

    def _ask(
        self, connection: HTTPConnection, script: dict[str, Any], chance: random.Random, *, stream: bool
    ) -> bool:
        """False: the connection cannot be used any more."""
        values: dict[str, Any] = {"messages": [{"role": "user", "content": json.dumps(script)}]}
        values["model"] = "both" if script["kind"] == "fallback" else "m"
        if stream:
            values["stream"] = True
            if script["kind"] != "hidden":
                values["stream_options"] = {"include_usage": True}
        head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(values), head)
        answer = connection.getresponse()
        seen = Seen(script["kind"], answer.status, stream)
        with self._lock:
            assert answer.headers["x-request-id"] not in self.seen
            self.seen[answer.headers["x-request-id"]] = seen
        if answer.status != 200:
            answer.read()
            return True
        if not stream:
            body = answer.read()
            note(seen, json.loads(body)["usage"])
            seen.bytes, seen.is_whole = len(body), True
            return True
        leave_after = chance.randrange(0, 20) if script["kind"] == "left" else 1 << 30
        with suppress(OSError, HTTPException):
            for line in answer:
                if seen.chunks >= leave_after:
                    break
                take(seen, line)
                seen.bytes += len(line)
        # The connection stays open for as long as its answer does.
        answer.close()
        return seen.is_whole and script["kind"] != "cut"


def take(seen: Seen, line: bytes) -> None:
    if line.startswith(b"data: [DONE]"):
        seen.is_whole = True
    elif line.startswith(b"data: {"):
        chunk = json.loads(line[6:])
        seen.chunks += any(choice["delta"].get("content") for choice in chunk.get("choices", []))
        if chunk.get("usage"):
            note(seen, chunk["usage"])


def note(seen: Seen, usage: dict[str, int]) -> None:
    seen.prompt, seen.completion = usage["prompt_tokens"], usage["completion_tokens"]


def settings(origin: str) -> str:
    upstreams = "".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "{origin}/{name}/v1"\nmodels = ["{model}"]\n'
        for name, model in (("only", "m"), ("first", "f"), ("second", "s"))
    )
    both = '[[assistants]]\nname = "both"\nmodel = ["first/f", "second/s"]\n'
    return f'[[keys]]\nname = "a"\nkey = "{KEY}"\n{upstreams}{both}'


def test_usage_is_what_was_seen(location: Location, tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "sluicegate.toml"
    environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    arguments = ["sluicegate", "serve", "--port", str(port), "--workers", str(WORKERS), "--config", str(file)]
    with Spending().running() as upstream:
        file.write_text(settings(upstream.origin))
        with running(
            arguments, port, tmp_path / "log", environment=environment, ready=lambda p: answers(p, "/readyz")
        ):
            clients = Clients(port, REQUESTS)
            clients.run()
            # Those who left last are noticed before the gateway has to go.
            time.sleep(2)
        found = Counter[str]()
        with closing(open_logbook(location)) as logbook:
            records = every(logbook)
            (total,) = logbook.sums(Filter())
        assert {record.id for record in records} == clients.seen.keys()
        for record in records:
            check(record, clients.seen[record.id], upstream)
            found[clients.seen[record.id].kind] += 1
        # Nothing was left out of the mix.
        assert set(found) == set(KINDS)
        compare(total, records, clients.seen)


def every(logbook: Any) -> list[Record]:
    found: dict[str, Record] = {}
    below = None
    while True:
        page = logbook.page(Filter(), below=below, limit=1000)
        for record in page.records:
            assert record.id not in found
            found[record.id] = record
        if page.next is None:
            return list(found.values())
        below = page.next


def check(record: Record, seen: Seen, upstream: Spending) -> None:
    """One request: its record, what its client saw, and what its upstream told."""
    used = (record.prompt_tokens, record.completion_tokens)
    told = upstream.told.get(record.id)
    if seen.kind in ("refused", "broken"):
        assert (used, seen.status, record.status) == ((0, 0), record.status, seen.status)
        assert record.code
        return
    assert told is not None
    if seen.is_whole:
        assert told.is_whole
        assert used == (told.prompt, told.completion), (seen, told)
        assert (record.source, record.code, record.status) == ("upstream", None, 200)
        if seen.kind != "hidden":
            assert used == (seen.prompt, seen.completion)
        assert record.bytes_out == seen.bytes, (seen, record)
        # One that has failed often is passed over for a while.
        assert record.attempts in ((1, 2) if seen.kind == "fallback" else (1,))
        assert record.upstream == ("second" if seen.kind == "fallback" else "only")
        return
    # It broke off: at least what the client saw is charged, at most what the upstream wrote.
    assert seen.kind in ("left", "cut"), (seen, record)
    assert seen.chunks <= record.completion_tokens <= told.chunks, (seen, told, record)
    assert record.prompt_tokens > 0
    assert record.source == "estimated"
    assert record.code == ("client_closed" if seen.kind == "left" else "upstream_truncated")
    assert record.client == "127.0.0.1"


def compare(total: Sum, records: list[Record], seen: dict[str, Seen]) -> None:
    """The sums, against the records and against the clients' own."""
    assert total.requests == len(records) == len(seen)
    assert total.failed == sum(record.code is not None for record in records)
    assert total.prompt_tokens == sum(record.prompt_tokens for record in records)
    assert total.completion_tokens == sum(record.completion_tokens for record in records)
    whole = {id for id, one in seen.items() if one.is_whole and one.kind != "hidden"}
    counted = [record for record in records if record.id in whole]
    assert sum(r.prompt_tokens for r in counted) == sum(seen[id].prompt for id in whole)
    assert sum(r.completion_tokens for r in counted) == sum(seen[id].completion for id in whole)
