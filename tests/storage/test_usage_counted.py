"""Where no upstream tells what was used, and the tokenizer is known, records have the true numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from spending_upstream import Spending, piece, send, write

from processes import Server, answers, free_port, running
from sluicegate.storage.location import Location
from sluicegate.tokens import count_messages, get_encoding
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import PHASES, Record

pytestmark = pytest.mark.timeout(120)
KEY = "sk-test-0123456789abcdef"
ENCODING = "o200k_base"
HEAD = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
# Characters of several bytes, runs of digits and of white space, and quotes: what is hard to cut.
ANSWER = 'Größe: 12345678 m²,\n\n  "so" 😀 gesagt — und weiter. ' * 400
THOUGHT = "Let me think about it."


class Silent(Spending):
    """It says nothing of usage: the prompt's last word is what it does."""

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        body = json.loads(http.rfile.read(int(http.headers["content-length"])))
        if http.path.endswith("/embeddings"):
            send(
                http,
                200,
                {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]},
            )
            return
        what = body["messages"][-1]["content"].split()[-1]
        if body.get("stream"):
            self._events(http, what)
            return
        message = {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT}
        choices = [{"index": place, "message": message, "finish_reason": "stop"} for place in range(2)]
        send(http, 200, {"id": "c", "object": "chat.completion", "choices": choices[: body.get("n", 1)]})

    def _events(self, http: BaseHTTPRequestHandler, what: str) -> None:
        http.send_response(200)
        http.send_header("content-type", "text/event-stream")
        http.send_header("transfer-encoding", "chunked")
        http.end_headers()
        self.wrote = ""
        for at in range(0, len(ANSWER), 7):
            part = ANSWER[at : at + 7]
            write(http, {"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]})
            self.wrote += part
            if what == "slowly":
                time.sleep(0.005)
            if what == "cut" and at > len(ANSWER) // 2:
                http.close_connection = True
                http.connection.close()
                return
        write(http, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        piece(http, b"data: [DONE]\n\n")
        piece(http, b"")


@pytest.fixture
def upstream() -> Iterator[Silent]:
    silent = Silent()
    with silent.running():
        yield silent


@pytest.fixture
def gateway(location: Location, upstream: Silent, tmp_path: Path) -> Iterator[Server]:
    port, file = free_port(), tmp_path / "sluicegate.toml"
    file.write_text(
        f'[[keys]]\nname = "a"\nkey = "{KEY}"\n[[upstreams]]\nname = "u"\nbase_url = "{upstream.origin}/v1"\n'
        f'models = ["m"]\ntokenizers = {{ m = "{ENCODING}" }}\n'
        'prices = { "m" = { prompt = 1.0, completion = 2.0 } }\n'
    )
    environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    arguments = ["sluicegate", "serve", "--port", str(port), "--config", str(file)]
    ready = {"environment": environment, "ready": lambda p: answers(p, "/readyz")}
    with running(arguments, port, tmp_path / "log", **ready) as server:  # type: ignore[arg-type]
        yield server


def tokens(text: str) -> int:
    return get_encoding(ENCODING).count(text)


def prompt_of(messages: list[dict[str, Any]]) -> int:
    return count_messages(messages, model="m", tokenizer=ENCODING).tokens


def ask(port: int, values: dict[str, Any], *, chunks: int = 1 << 30) -> tuple[str, str]:
    """The request's id, and the text that came; leaves after so many chunks."""
    path = "/v1/embeddings" if "input" in values else "/v1/chat/completions"
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", path, json.dumps({"model": "m", **values}), HEAD)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        seen = ""
        for line in answer:
            if chunks <= 0:
                break
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:]).get("choices", []):
                    seen += choice["delta"].get("content", "")
                chunks -= 1
        return answer.headers["x-request-id"], seen


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def test_tokens_are_counted_as_the_model_would(gateway: Server, upstream: Silent, location: Location) -> None:
    asked: dict[str, tuple[dict[str, Any], tuple[int, int] | None]] = {}
    thought, whole = tokens(THOUGHT), tokens(ANSWER)
    long = chat("word " * 20_000 + "stream", stream=True)
    for values, completion in (
        (chat("Hi"), thought + whole),
        (chat("Hi", n=2), 2 * (thought + whole)),
        (chat("Hi", stream=True), whole),
        # Longer than what is kept while it streams.
        (long, whole),
    ):
        id, _ = ask(gateway.port, values)
        asked[id] = values, (prompt_of(values["messages"]), completion)
    cut, _ = ask(gateway.port, chat("cut", stream=True))
    asked[cut] = {}, (prompt_of(chat("cut")["messages"]), tokens(upstream.wrote))
    embedded, _ = ask(gateway.port, {"input": ["Hello, world!", "Hello"]})
    asked[embedded] = {}, (tokens("Hello, world!") + tokens("Hello"), 0)
    left, seen = ask(gateway.port, chat("slowly", stream=True), chunks=40)
    found = records(location, [*asked, left])
    for id, (_, used) in asked.items():
        record = found[id]
        assert ((record.prompt_tokens, record.completion_tokens), record.source) == (used, "counted"), record
        assert record.micros == record.prompt_tokens + 2 * record.completion_tokens
    record = found[left]
    assert (record.source, record.code) == ("counted", "client_closed")
    assert record.prompt_tokens == prompt_of(chat("slowly")["messages"])
    # At least what the client saw, at most what the upstream wrote.
    assert tokens(seen) - 1 <= record.completion_tokens <= tokens(upstream.wrote) + 1 < whole
    took = dict(zip(PHASES, (record.phases or "").split(","), strict=True))
    assert all(part.isdecimal() for part in took.values()), took
    assert int(took["upstream"]) + int(took["relay"]) > 100_000


def records(location: Location, ids: list[str]) -> dict[str, Record]:
    """From the database, where they arrive within a second or two."""
    deadline = time.monotonic() + 30
    with closing(open_logbook(location)) as logbook:
        while True:
            found = {id: record for id in ids if (record := logbook.one(id)) is not None}
            if len(found) == len(ids) and all(record.duration_us for record in found.values()):
                return found
            assert time.monotonic() < deadline, (len(found), len(ids))
            time.sleep(0.2)
