"""U48 and HTTP/2 as such: many calls on one connection, and faults that must harm only one of them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from faults import certificates
from faults.client import KEY, PATHS, Answer, ask, body_for, request_bytes
from faults.content import TEXT
from faults.http2 import SCENARIOS, Http2Upstream, StreamRecord
from faults.pace import LONGEST, Pace
from faults.rig import SOON, UPSTREAM_KEY
from processes import Server, gateway

pytestmark = pytest.mark.timeout(120)

CANCEL = 8
SETTINGS = """
[[upstreams]]
name = "h2"
base_url = "https://localhost:{port}/v1"
api_key = "{key}"
models = {models}
ca_file = "{ca_file}"
connect_timeout = 30.0
"""


@dataclass(frozen=True)
class Rig2:
    """Gateway, upstream, clock."""

    upstream: Http2Upstream
    server: Server
    pace: Pace

    def ask(self, model: str, *, stream: bool = True, op: str = "chat", **fields: object) -> Answer:
        """One request."""
        return asyncio.run(ask(self.server.port, op, body_for(op, model, stream=stream, **fields)))

    def ask_all(self, *bodies: dict[str, object]) -> list[Answer]:
        """Chat requests side by side."""

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(ask(self.server.port, "chat", body) for body in bodies))

        return asyncio.run(all_of_them())

    def stream(self, nonce: str) -> StreamRecord:
        """The stream of this `user`, once it is there."""
        wait_for(lambda: bool(self.upstream.of(nonce)), f"{nonce} did not reach the upstream")
        return self.upstream.of(nonce)[0]


def wait_for(true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + LONGEST
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def streaming(model: str, nonce: str = "") -> dict[str, object]:
    return body_for("chat", model, stream=True, user=nonce)


@pytest.fixture(scope="module")
def h2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig2]:
    folder = tmp_path_factory.mktemp("h2")
    certificates.make(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls-good.pem", folder / "tls-good.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Http2Upstream(context) as upstream:
        settings = SETTINGS.format(
            port=upstream.port,
            key=UPSTREAM_KEY,
            models=json.dumps(list(SCENARIOS)),
            ca_file=folder / "ca.pem",
        )
        with gateway(settings, folder, keys=KEY) as server, Pace(server.port) as pace:
            yield Rig2(upstream, server, pace)
    assert upstream.broken == 0, "the gateway broke the rules of HTTP/2"


@pytest.fixture(autouse=True)
def warm(h2: Rig2) -> None:
    """One connection is open: calls that begin together without one would each open their own."""
    assert h2.ask("h2-ok").text == TEXT


@pytest.mark.parametrize(
    ("op", "stream"), [("chat", True), ("chat", False), ("completions", True), ("embeddings", False)]
)
def test_every_kind_of_answer(op: str, stream: bool, h2: Rig2) -> None:
    nonce = f"kind-{op}-{stream}"
    answer = h2.ask("h2-ok", op=op, stream=stream, user=nonce)
    assert answer.status == 200, answer
    if op == "embeddings":
        assert answer.json()["data"][0]["embedding"] == [0.6, 0.8]
    else:
        assert answer.text == TEXT
    sent = dict(h2.stream(nonce).asked.headers)
    assert sent[":authority"] == f"localhost:{h2.upstream.port}"
    assert sent["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert not {"host", "connection", "te", "transfer-encoding"} & set(sent)
    assert set(h2.upstream.protocols) == {"h2"}


def test_many_calls_share_a_connection(h2: Rig2) -> None:
    before = len(h2.upstream.protocols)
    answers = h2.ask_all(*(streaming("h2-slow", f"shared-{i}") for i in range(40)))
    assert [a.text for a in answers] == [TEXT] * 40
    assert all(a.data[-1] == "[DONE]" for a in answers)
    assert len({h2.stream(f"shared-{i}").connection for i in range(40)}) == 1
    assert len(h2.upstream.protocols) == before


def test_beyond_64_streams_there_is_a_second_connection(h2: Rig2) -> None:
    answers = h2.ask_all(*(streaming("h2-slow", f"many-{i}") for i in range(80)))
    assert [a.text for a in answers] == [TEXT] * 80
    used = [h2.stream(f"many-{i}").connection for i in range(80)]
    # Those that find 64 streams before them begin together, so each may open one.
    assert 2 <= len(set(used)) <= 17
    assert max(used.count(one) for one in set(used)) <= 64


def test_a_stream_that_has_ended_makes_room_for_another(h2: Rig2) -> None:
    before = len(h2.upstream.protocols)
    for turn in range(4):
        answers = h2.ask_all(*(streaming("h2-ok", f"room-{turn}") for _ in range(30)))
        assert [a.text for a in answers] == [TEXT] * 30
    assert len(h2.upstream.protocols) == before, "120 calls, 30 at a time, fit on what is open"


def test_a_large_request_keeps_to_the_window(h2: Rig2) -> None:
    """1.5 MB through a window of 64 KiB."""
    answer = h2.ask("h2-ok", user="large", metadata={"padding": "x" * 1_500_000})
    assert answer.text == TEXT
    assert len(h2.stream("large").asked.body) > 1_500_000


@pytest.mark.parametrize(
    ("model", "stream"),
    [("h2-silence", True), ("h2-silence", False), ("h2-stall-first", True), ("h2-stall-first", False),
     ("h2-endless", True), ("h2-endless", False)],
)  # fmt: skip
def test_a_client_that_leaves_resets_its_stream_alone(model: str, stream: bool, h2: Rig2) -> None:
    nonce, other = f"leave-{model}-{stream}", f"stay-{model}-{stream}"

    async def leave() -> Answer:
        staying = asyncio.create_task(ask(h2.server.port, "chat", streaming("h2-slow", other)))
        _, writer = await asyncio.open_connection("127.0.0.1", h2.server.port)
        body = json.dumps(body_for("chat", model, stream=stream, user=nonce)).encode()
        writer.write(request_bytes(PATHS["chat"], body))
        await asyncio.to_thread(h2.stream, nonce)
        await asyncio.sleep(0.1)
        writer.close()
        return await staying

    answer = asyncio.run(leave())
    left = time.monotonic()
    assert answer.text == TEXT
    record = h2.stream(nonce)
    wait_for(lambda: record.reset is not None, "the stream stays open")
    assert record.reset_code == CANCEL
    # `left` is when the other answer was complete: the client had gone up to 0.3 s before.
    assert h2.pace.seconds(left, record.reset or left) <= SOON
    assert h2.stream(other).connection == record.connection


def test_a_reset_in_the_middle_harms_one_stream(h2: Rig2) -> None:
    broken, *others = h2.ask_all(
        streaming("h2-reset-mid", "reset-mid"), *(streaming("h2-slow", f"beside-{i}") for i in range(10))
    )
    assert broken.status == 200
    assert broken.text == TEXT, "what had arrived before is delivered"
    assert "[DONE]" not in broken.data
    assert json.loads(broken.data[-1])["error"]["code"] == "upstream_reset"
    assert [a.text for a in others] == [TEXT] * 10
    assert {h2.stream(f"beside-{i}").connection for i in range(10)} == {h2.stream("reset-mid").connection}
    assert h2.ask("h2-ok", user="after-reset").text == TEXT
    assert h2.stream("after-reset").connection == h2.stream("reset-mid").connection


@pytest.mark.parametrize("stream", [True, False])
def test_a_reset_instead_of_an_answer_is_a_502(stream: bool, h2: Rig2) -> None:
    answer = h2.ask("h2-reset-first", stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol_error"), answer


@pytest.mark.parametrize("model", ["h2-refused-once", "h2-go-away-unseen"])
@pytest.mark.parametrize("stream", [True, False])
def test_what_the_upstream_did_not_look_at_is_sent_again(model: str, stream: bool, h2: Rig2) -> None:
    nonce = f"{model}-{stream}"
    assert h2.ask(model, stream=stream, user=nonce).text == TEXT
    first, second = h2.upstream.of(nonce)
    assert first.connection != second.connection


def test_after_go_away_running_streams_finish_and_new_ones_go_elsewhere(h2: Rig2) -> None:
    answers = h2.ask_all(streaming("h2-go-away", "going"), *(streaming("h2-slow") for _ in range(5)))
    assert [a.text for a in answers] == [TEXT] * 6
    assert all(a.data[-1] == "[DONE]" for a in answers)
    assert h2.ask("h2-ok", user="elsewhere").text == TEXT
    assert h2.stream("elsewhere").connection != h2.stream("going").connection


def test_a_cut_connection_ends_its_streams_and_is_forgotten(h2: Rig2) -> None:
    answers = h2.ask_all(streaming("h2-hangup", "cut"), *(streaming("h2-endless") for _ in range(5)))
    for answer in answers:
        assert "[DONE]" not in answer.data
        assert json.loads(answer.data[-1])["error"]["code"] in ("upstream_reset", "upstream_truncated")
    assert answers[0].text == TEXT
    assert h2.ask("h2-ok", user="after-cut").text == TEXT
    assert h2.stream("after-cut").connection != h2.stream("cut").connection


def test_a_slow_reader_stops_its_own_stream_only(h2: Rig2) -> None:
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        reader.connect(("127.0.0.1", h2.server.port))
        reader.sendall(request_bytes(PATHS["chat"], json.dumps(streaming("h2-flood", "slow")).encode()))
        record = h2.stream("slow")
        seen = 0

        def stands_still() -> bool:
            nonlocal seen
            before, seen = seen, record.sent
            time.sleep(0.3)
            return 0 < seen == before == record.sent

        wait_for(stands_still, "the upstream is still read, though nobody reads the answer")
        assert seen < 4 << 20
        answers = h2.ask_all(*(streaming("h2-slow", f"past-{i}") for i in range(10)))
        assert [a.text for a in answers] == [TEXT] * 10
        assert {h2.stream(f"past-{i}").connection for i in range(10)} == {record.connection}
    wait_for(lambda: record.reset is not None, "the stream stays open")
