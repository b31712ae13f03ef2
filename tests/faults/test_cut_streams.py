"""Recorded streams, cut at every byte and split at every byte: never shown as finished, never changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.client import PATHS, Answer, body_for, read_answer, request_bytes
from faults.content import LAST_CHUNK, Asked, chunked_head, http_chunk
from faults.oracle import judge, parse
from faults.rig import Rig
from faults.steps import Steps, World

pytestmark = pytest.mark.timeout(120)

RECORDED = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parents[1] / "fixtures" / "streams").glob("*.sse"))
}
UPSTREAM_MODEL = "replayed"


@dataclass(frozen=True)
class Way:
    """A way through the relay: bytes untouched, or each event rewritten."""

    model: str
    # The client asks for its usage; if not, the gateway asks for it and takes it out of the stream again.
    include_usage: bool

    def shown(self, data: str) -> list[str]:
        """The event as the client gets it; empty if it is not shown at all."""
        if data == "[DONE]" or self.include_usage:
            return [data]
        chunk = json.loads(data)
        if chunk["choices"] == [] and "usage" in chunk:
            return []
        chunk.pop("usage", None)
        return [json.dumps({**chunk, "model": self.model})]

    def same(self, wanted: list[str], got: list[str]) -> bool:
        """Equal as text where nothing is rewritten, else equal as JSON."""
        if self.include_usage:
            return wanted == got
        return [_loaded(data) for data in wanted] == [_loaded(data) for data in got]


def _loaded(data: str) -> object:
    return data if data == "[DONE]" else json.loads(data)


WAYS = {"as-it-is": Way(UPSTREAM_MODEL, True), "rewritten": Way("replayed-alias", False)}
# Connections at a time. The gateway's worker is the limit; more would only wait.
SIDE_BY_SIDE = 16
# A second read needs a pause, or the kernel joins the two writes.
APART = 0.001


def replay(asked: Asked, _: World) -> Steps:
    """`user` says what to send: `cut NAME POSITION` or `split NAME POSITION`."""
    how, name, position = str(asked.json["user"]).split()
    body, at = RECORDED[name], int(position)
    yield chunked_head(asked)
    if how == "cut":
        yield (http_chunk(body[:at]) if at else b"") + LAST_CHUNK
        return
    if at:
        yield http_chunk(body[:at])
        yield APART
    yield (http_chunk(body[at:]) if at < len(body) else b"") + LAST_CHUNK


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("name", RECORDED)
def test_a_cut_stream_is_never_shown_as_finished(name: str, way: Way, rig: Rig) -> None:
    def check(position: int, answer: Answer) -> str | None:
        return wrong_cut(RECORDED[name][:position], answer, way)

    assert_all(rig, way, f"cut {name}", range(len(RECORDED[name])), check)


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("name", RECORDED)
def test_a_split_stream_gives_the_same_output(name: str, way: Way, rig: Rig) -> None:
    whole = RECORDED[name]
    wanted = [shown for event in parse(whole) for shown in way.shown(event.data)]
    if wanted[-1] != "[DONE]":
        wanted.append("[DONE]")

    def check(_: int, answer: Answer) -> str | None:
        good = answer.status == 200 and answer.complete and way.same(wanted, answer.data)
        return None if good else "other events"

    assert_all(rig, way, f"split {name}", range(len(whole) + 1), check)


def wrong_cut(sent: bytes, answer: Answer, way: Way) -> str | None:
    """What is wrong with the answer to a stream of which only this was sent."""
    verdict = judge(sent)
    events = [shown for event in parse(sent) for shown in way.shown(event.data) if shown != "[DONE]"]
    problem = None
    if not answer.complete:
        problem = "the response breaks off"
    elif not events:
        if answer.status != 502 or answer.error["code"] not in ("upstream_truncated", "upstream_empty"):
            problem = "not refused, though no event came"
    elif answer.status != 200:
        problem = f"status {answer.status} after {len(events)} events"
    elif verdict.finished:
        if not way.same([*events, "[DONE]"], answer.data):
            problem = "a finished stream is not shown so"
    elif "[DONE]" in answer.data:
        problem = "shown as finished"
    elif not way.same(events, answer.data[:-1]):
        problem = "not all whole events are delivered"
    else:
        last = json.loads(answer.data[-1])
        if set(last) != {"error"} or last["error"]["code"] != "upstream_truncated":
            problem = f"ends with {last}"
    return problem


def assert_all(
    rig: Rig, way: Way, order: str, positions: Iterable[int], check: Callable[[int, Answer], str | None]
) -> None:
    """Ask for each position; report all that went wrong, not only the first."""
    rig.upstream.add(UPSTREAM_MODEL, replay)
    wrong: list[tuple[int, str, Answer]] = []
    todo = iter(positions)
    options = {"stream_options": {"include_usage": True}} if way.include_usage else {}

    async def worker() -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for position in todo:
            fields = body_for("chat", way.model, stream=True, user=f"{order} {position}", **options)
            reader, writer = streams or await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(request_bytes(PATHS["chat"], json.dumps(fields).encode()))
            answer = await read_answer(reader)
            streams = (reader, writer) if answer.complete else None
            if streams is None:
                writer.close()
            problem = check(position, answer)
            if problem is not None:
                wrong.append((position, problem, answer))
        if streams is not None:
            streams[1].close()

    async def workers() -> None:
        await asyncio.gather(*(worker() for _ in range(SIDE_BY_SIDE)))

    asyncio.run(workers())
    assert not wrong, f"{len(wrong)} positions, the first: {wrong[0]}"
