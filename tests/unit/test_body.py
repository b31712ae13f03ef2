"""Reading a body: capped, paced, and over at once when the client is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.asgi import Client
from sluicegate.errors import ClientGoneError, GatewayError
from sluicegate.http import body
from sluicegate.http.body import BodyReader, discard

MIB = 1024 * 1024


def reader(max_bytes: int = MIB, window: float = 10, rate: int = 1024) -> BodyReader:
    return BodyReader(max_bytes, window, rate)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.booleans())
def test_the_frames_are_the_body_however_they_are_cut(frames: list[bytes], declared: bool) -> None:
    whole = b"".join(frames)
    length = len(whole) if declared else None
    assert asyncio.run(reader().read(Client(frames).receive, length)) == whole


@pytest.mark.asyncio
async def test_a_complete_length_needs_no_further_receive() -> None:
    client = Client([b"abc"], complete=False)
    assert await reader().read(client.receive, 3) == b"abc"
    assert client.received == 1


@pytest.mark.asyncio
async def test_one_frame_is_not_copied() -> None:
    frame = b"x" * 1000
    assert await reader().read(Client([frame]).receive, 1000) is frame


@pytest.mark.asyncio
async def test_a_declared_length_over_the_cap_is_refused_unread() -> None:
    client = Client([b"x"])
    with pytest.raises(GatewayError, match="413"):
        await reader(10).read(client.receive, 11)
    assert client.received == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("length", [None, 5])
async def test_a_lying_length_is_refused_before_all_is_read(length: int | None) -> None:
    client = Client([b"xxxx"] * 100)
    with pytest.raises(GatewayError, match="413"):
        await reader(10).read(client.receive, length)
    assert client.received == 3


@pytest.mark.asyncio
async def test_exactly_the_cap_is_accepted() -> None:
    assert await reader(10).read(Client([b"x" * 10]).receive, 10) == b"x" * 10


@pytest.mark.asyncio
async def test_a_client_that_leaves_ends_it() -> None:
    client = Client([b"x"], complete=False)
    asyncio.get_running_loop().call_later(0.01, client.leave)
    with pytest.raises(ClientGoneError):
        await reader().read(client.receive, 5)


@pytest.mark.asyncio
async def test_a_body_that_does_not_come_is_a_408() -> None:
    with pytest.raises(GatewayError, match="408") as caught:
        await asyncio.wait_for(reader(window=0.1).read(Client([b"x"], complete=False).receive, 5), 2)
    assert (b"connection", b"close") in caught.value.headers
    # The cancellation was ours and is over: the answer can still be sent.
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


class Dripping:
    """A body that comes at a steady pace."""

    def __init__(self, part: bytes, pause: float, parts: int) -> None:
        self.part, self.pause, self.left = part, pause, parts

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(self.pause)
        self.left -= 1
        return {"type": "http.request", "body": self.part, "more_body": self.left > 0}


@pytest.mark.asyncio
async def test_the_pace_is_measured_in_each_window_and_not_over_all() -> None:
    # A part each 10 ms, windows of 80 ms: one part is enough for four seconds in which the machine stalls.
    fast = Dripping(b"x" * 4000, 0.01, 30)
    assert len(await reader(window=0.08, rate=1000).read(fast.receive, None)) == 120_000
    slow = Dripping(b"x" * 4, 0.01, 100)
    with pytest.raises(GatewayError, match="408"):
        await reader(window=0.08, rate=1000).read(slow.receive, None)

    class ThenNothing(Dripping):
        async def receive(self) -> dict[str, Any]:
            if self.left == 1:
                await asyncio.sleep(5)
            return await super().receive()

    # A great deal at first buys no time later.
    stalling = ThenNothing(b"x" * 10_000, 0, 20)
    with pytest.raises(GatewayError, match="408"):
        await asyncio.wait_for(reader(window=0.08, rate=1000).read(stalling.receive, None), 2)


@pytest.mark.asyncio
async def test_another_cancellation_stays_one() -> None:
    task = asyncio.create_task(reader().read(Client([b"x"], complete=False).receive, 5))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_one_slow_body_harms_no_other() -> None:
    bodies = reader(window=0.1)
    slow = asyncio.create_task(bodies.read(Client([b"x"], complete=False).receive, 5))
    fast = [asyncio.create_task(bodies.read(Client([b"y"]).receive, None)) for _ in range(50)]
    assert await asyncio.gather(*fast) == [b"y"] * 50
    with pytest.raises(GatewayError, match="408"):
        await slow


@pytest.mark.asyncio
async def test_a_refused_body_is_taken_to_its_end_or_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client([b"x"] * 5)
    await discard(client.receive)
    assert client.received == 5
    monkeypatch.setattr(body, "_LINGER_BYTES", 3)
    client = Client([b"x"] * 5)
    await discard(client.receive)
    assert client.received == 3
    gone = Client([b"x"], complete=False)
    gone.leave()
    await asyncio.wait_for(discard(gone.receive), 0.2)


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", ["_LINGER_IDLE", "_LINGER_TOTAL"])
async def test_a_refused_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(body, limit, 0.03)
    client = Dripping(b"x", 0.01 if limit == "_LINGER_TOTAL" else 9, 1000)
    await asyncio.wait_for(discard(client.receive), 0.5)
    assert client.left > 900
