"""Around the pipeline: paths, methods, media types, request ids, health, and faults of our own."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from typing import Any

import pytest

from fakes.asgi import AUTH, JSON, Answer, Client, request
from fakes.engine import FakeReply, failed, streaming
from fakes.gateway import STRICT, FakeGateway, Made
from sluicegate.app import DRAIN_SIGNAL, verify
from sluicegate.settings import Settings, SettingsError, UpstreamConfig
from sluicegate.upstreams.connect import connect

pytestmark = pytest.mark.asyncio
OPEN = UpstreamConfig(name="open", base_url="http://open/v1")


async def get(gateway: FakeGateway, path: str, *more: Any, method: str = "GET", **options: Any) -> Answer:
    return await request(gateway.app, path, b"", [AUTH, *more], method, **options)


WRONG_PATHS = [
    "/v1/chat/completions/",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/V1/chat/completions",
    "/v1/Chat/completions",
    "/v1",
    "/v1/",
    "/v1/unknown",
    "/v1/embeddings/x",
]


@pytest.mark.parametrize("path", WRONG_PATHS)
async def test_paths_are_exact_and_keys_come_first(make: Made, path: str) -> None:
    gateway = make()
    answer = await request(gateway.app, path)
    assert answer.status == 404
    assert answer.error["code"] in ("unknown_url", "model_not_found")
    without = await request(gateway.app, path, headers=[JSON])
    assert (without.status, without.error["code"]) == (401, "invalid_api_key")
    assert gateway.engine.asked == []


@pytest.mark.parametrize(
    "raw",
    [
        b"/v1/chat/completions%0A",
        b"/v1/chat%2Fcompletions",
        b"/v1/%63hat/completions",
        b"/v1/chat/%2e/completions",
        b"/%76%31/chat/completions",
    ],
)
async def test_escapes_are_no_other_way_in(make: Made, raw: bytes) -> None:
    gateway = make()
    assert (await request(gateway.app, raw_path=raw)).status == 404
    assert (await request(gateway.app, headers=[JSON], raw_path=raw)).status == 401
    assert (await request(gateway.app, "/healthz", raw_path=b"/%68ealthz")).status == 404
    assert gateway.engine.asked == []


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/chat/completions", "/docs"])
async def test_other_paths_are_a_404_with_the_hint_for_anybody(make: Made, path: str) -> None:
    answer = await request(make().app, path, headers=[])
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert "ends in /v1" in answer.error["message"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "post", "TRACE"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_wrong_methods_are_a_405_that_names_the_right_one(make: Made, path: str, method: str) -> None:
    answer = await request(make().app, path, method=method)
    if (path, method) == ("/v1/chat/completions", "GET"):
        # Stored chats are listed there; without a database there are none.
        assert (answer.status, answer.error["code"]) == (400, "storage_not_configured")
        return
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == ("GET, POST" if path == "/v1/chat/completions" else "POST")
    assert (await request(make().app, path, method=method, headers=[])).status == 401


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m", "/healthz", "/readyz"])
async def test_reading_paths_take_no_post(make: Made, path: str) -> None:
    answer = await request(make().app, path)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await request(make().app, path, b"", [AUTH], "HEAD")).status == 200


async def test_a_wrong_media_type_is_a_415(make: Made) -> None:
    for kind in ([], [(b"content-type", b"text/plain")]):
        answer = await request(make().app, headers=[AUTH, *kind])
        assert (answer.status, answer.error["code"]) == (415, "unsupported_content_type")
    packed = await request(make().app, headers=[AUTH, JSON, (b"content-encoding", b"gzip")])
    assert (packed.status, packed.error["code"]) == (415, "unsupported_content_encoding")


async def test_a_body_over_the_cap_is_a_413_and_the_end_of_the_connection(make: Made) -> None:
    gateway = make(max_body_bytes=10)
    for headers in ([AUTH, JSON, (b"content-length", b"11")], [AUTH, JSON]):
        answer = await request(gateway.app, body=b"x" * 11, headers=headers)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        assert answer.headers["connection"] == "close"


async def test_a_refusal_is_sent_before_the_rest_of_the_body_is_taken(make: Made) -> None:
    gateway = make(max_body_bytes=10)
    client = Client([b"xxxx"] * 10)
    sizes: list[int] = []

    async def send(_message: Any) -> None:
        sizes.append(client.received)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
    scope["headers"] = [AUTH, JSON, (b"content-length", b"40")]  # type: ignore[assignment]
    await gateway.app(scope, client.receive, send)
    assert (sizes, client.received) == ([0, 0], 10)


async def test_a_body_that_stops_is_a_408(make: Made) -> None:
    gateway = make(body_timeout=0.05)
    answer = await request(gateway.app, client=Client([b"{"], complete=False))
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert "x-should-retry" not in answer.headers


async def test_two_different_keys_are_a_400(make: Made) -> None:
    for more in ((b"x-api-key", b"other"), (b"authorization", b"Bearer other")):
        answer = await get(make(), "/v1/models", more)
        assert answer.status == 400


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/healthz", "/x", "/v1/x"])
async def test_every_answer_has_our_request_id(make: Made, path: str) -> None:
    gateway = make()
    ids = {(await request(gateway.app, path, headers=[])).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(one.startswith("req_") for one in ids)


async def test_the_clients_id_is_only_given_back(make: Made) -> None:
    gateway = make(failed(), access_log=True)
    answer = await request(gateway.app, headers=[AUTH, JSON, (b"x-client-request-id", b"mine-1")])
    assert answer.headers["x-client-request-id"] == "mine-1"
    assert answer.headers["x-request-id"].startswith("req_")
    assert "mine-1" not in str(gateway.lines)
    for hostile in (b"a\r\nx: y", b"a\x00", b"x" * 129, "ü".encode()):
        answer = await request(gateway.app, headers=[AUTH, JSON, (b"x-client-request-id", hostile)])
        assert "x-client-request-id" not in answer.headers


# Models.


async def test_the_list_of_models(make: Made) -> None:
    gateway = make(
        None, STRICT, UpstreamConfig(name="two", base_url="http://t", models=("org/a b",), aliases={"z": "y"})
    )
    first = await get(gateway, "/v1/models")
    assert first.json["object"] == "list"
    created = {card.pop("created") for card in first.json["data"]}
    assert len(created) == 1
    shown = [(c["id"], c["object"], c["owned_by"]) for c in first.json["data"]]
    assert shown == [("m", "model", "one"), ("org/a b", "model", "two"), ("z", "model", "two")]
    await asyncio.sleep(1.01)
    assert (await get(gateway, "/v1/models")).body == first.body


async def test_one_model_also_with_a_slash_and_escapes(make: Made) -> None:
    gateway = make(None, UpstreamConfig(name="two", base_url="http://t", models=("org/a b",)))
    for raw in (b"/v1/models/org/a%20b", b"/v1/models/org%2Fa%20b"):
        answer = await get(gateway, "/v1/models/org/a b", raw_path=raw)
        assert (answer.status, answer.json["id"]) == (200, "org/a b")
    for path in ("/v1/models/", "/v1/models/org", "/v1/models/org/a b/", "/v1/models/ORG/a b"):
        answer = await get(gateway, path)
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert (await request(gateway.app, "/v1/models", b"", [], "GET")).status == 401
    assert (await request(gateway.app, "/v1/models/org/a b", b"", [], "GET")).status == 401


# Health and lifespan.


class Lifespan:
    """The server's side of the lifespan."""

    def __init__(self, gateway: FakeGateway) -> None:
        self.to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.from_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        scope: dict[str, Any] = {"type": "lifespan", "state": {}}
        self.task = asyncio.create_task(gateway.app(scope, self.to_app.get, self.from_app.put))

    async def go(self, what: str) -> None:
        await self.to_app.put({"type": f"lifespan.{what}"})
        answer = await asyncio.wait_for(self.from_app.get(), 1)
        assert answer["type"] == f"lifespan.{what}.complete"


async def test_ready_after_the_first_discovery_and_healthy_always(make: Made) -> None:
    gateway = make(lambda _: None, OPEN)
    lifespan = Lifespan(gateway)
    await lifespan.go("startup")
    assert (await request(gateway.app, "/healthz", b"", [], "GET")).json == {"status": "ok"}
    answer = await request(gateway.app, "/readyz", b"", [], "GET")
    assert (answer.status, answer.error["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "1"
    gateway.engine.asked[0].call.future.set_result(failed())
    await asyncio.sleep(0.01)
    assert (await request(gateway.app, "/readyz", b"", [], "GET")).status == 200
    await lifespan.go("shutdown")
    assert (await request(gateway.app, "/readyz", b"", [], "GET")).status == 503
    assert (await request(gateway.app, "/healthz", b"", [], "GET")).status == 200
    await asyncio.wait_for(lifespan.task, 1)
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def status(gateway: Any, path: str) -> int:
    return (await request(gateway.app, path, b"", [], "GET")).status


async def draining(gateway: Any) -> asyncio.Task[Any]:
    """A request under way in a gateway that has been told to stop."""
    running = asyncio.create_task(request(gateway.app))
    async with asyncio.timeout(20):
        while not gateway.engine.asked:  # noqa: ASYNC110 (it asks the gateway)
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), DRAIN_SIGNAL)
        while await status(gateway, "/readyz") != 503:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return running


async def test_a_drain_is_not_ready_and_lets_go_on_what_is_open(make: Made) -> None:
    gateway = make(lambda _: None, drain_timeout=600)
    lifespan = Lifespan(gateway)
    await lifespan.go("startup")
    running = await draining(gateway)
    assert await status(gateway, "/healthz") == 200
    assert not gateway.engine.closed
    assert not running.done()
    await lifespan.go("shutdown")
    await lifespan.task
    await asyncio.wait_for(running, 20)


async def test_a_drain_cuts_what_is_open_at_its_end(make: Made) -> None:
    gateway = make(lambda _: None, drain_timeout=0.02)
    lifespan = Lifespan(gateway)
    await lifespan.go("startup")
    await asyncio.wait_for(await draining(gateway), 20)
    assert gateway.engine.closed
    await lifespan.go("shutdown")
    await lifespan.task


async def test_with_configured_lists_ready_at_once(make: Made) -> None:
    gateway = make()
    assert (await request(gateway.app, "/readyz", b"", [], "GET")).status == 200
    assert gateway.engine.asked == []


# Faults of our own.


class HiddenError(Exception):
    pass


class Panic(BaseException):
    """As PyO3's PanicException."""


@pytest.mark.parametrize("kind", [HiddenError, Panic, RecursionError])
async def test_a_fault_of_ours_is_a_500_without_its_text(make: Made, kind: type[BaseException]) -> None:
    def script(_: Any) -> FakeReply:
        raise kind("canary-secret")

    gateway = make(script)
    answer = await request(gateway.app)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        500,
        "internal_error",
        "server_error",
    )
    (line,) = gateway.lines
    assert (line["level"], line["event"]) == ("error", "internal_error")
    assert line["request_id"] == answer.headers["x-request-id"]
    assert kind.__name__ in line["where"]
    assert "test_app.py" in line["where"]
    assert "canary" not in gateway.output.getvalue() + answer.body.decode()


async def test_after_the_start_of_a_response_a_fault_sends_no_second_one(make: Made) -> None:
    gateway = make()
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)
        if message["type"] == "http.response.body":
            raise HiddenError

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [AUTH, JSON]}
    await gateway.app(scope, Client([b'{"model":"m"}']).receive, send)
    assert [m["type"] for m in messages] == ["http.response.start", "http.response.body"]
    assert gateway.lines[0]["event"] == "internal_error"


async def test_a_cancelled_request_stays_cancelled(make: Made) -> None:
    gateway = make(lambda _: None)
    task = asyncio.create_task(request(gateway.app, patience=60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_websockets_are_closed(make: Made) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await make().app({"type": "websocket", "path": "/v1/chat/completions"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]


async def test_what_the_core_refuses_names_the_upstream(make: Made) -> None:
    make()
    bad = UpstreamConfig(name="x", base_url="http://bad")
    with pytest.raises(SettingsError, match="upstream x: the port of the base URL is not a number"):
        connect(Settings(upstreams=(bad,)), bad)


@pytest.mark.parametrize(
    ("script", "options"),
    [
        (FakeReply(), {}),
        (failed(), {}),
        (failed(), {"headers": []}),
        (failed(), {"path": "/v1/nothing"}),
        (failed(), {"path": "/v1/models", "method": "GET"}),
        (FakeReply(), {"body": b"x" * 100}),
        (streaming(b"x"), {"body": b'{"model":"m","stream":true}'}),
        (None, {"leave": True}),
        (FakeReply(), {"stall": True}),
    ],
    ids=["plain", "502", "401", "404", "list", "413", "stream", "leaves", "408"],
)
async def test_nothing_of_a_request_waits_for_the_garbage_collector(
    make: Made, script: Any, options: dict[str, Any]
) -> None:
    """What is left in a cycle holds the connection open: the server closes it with its last reference."""
    gateway = make(script or (lambda _: None), max_body_bytes=50, body_timeout=0.05)
    leave, stall = options.pop("leave", False), options.pop("stall", False)

    async def once() -> weakref.ref[Client]:
        client = Client([options.get("body", b'{"model":"m"}')], complete=not stall)
        if leave:
            asyncio.get_running_loop().call_later(0.01, client.leave)
        await request(gateway.app, client=client, **options)
        return weakref.ref(client)

    await once()
    gateway.engine.asked.clear()
    gc.collect()
    gc.disable()
    try:
        client = await once()
        gateway.engine.asked.clear()
        await asyncio.sleep(0.01)
        assert client() is None
    finally:
        gc.enable()


async def test_a_network_that_is_none_is_found_before_the_start() -> None:
    with pytest.raises(
        SettingsError, match=r"^allow_private_networks: .*10\.0\.0\.0/99.* is not an address range"
    ):
        verify(Settings(allow_private_networks=("10.0.0.0/99",)))
    verify(Settings(allow_private_networks=("10.0.0.0/8",)))
