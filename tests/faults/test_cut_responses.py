"""Recorded chat streams as responses, cut and split at every byte: never completed, never other text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from faults.client import Answer, read_answer, request_bytes
from faults.oracle import judge, parse
from faults.rig import Rig
from faults.test_cut_streams import RECORDED, SIDE_BY_SIDE, UPSTREAM_MODEL, replay

pytestmark = pytest.mark.timeout(120)

PATH = "/v1/responses"
NAMES = ("openai", "tool-calls", "vllm-reasoning")
# Ids and times of a response are made anew for each, and `user` says what the upstream shall do.
ANEW = ("id", "item_id", "created_at", "user")


def events_of(answer: Answer) -> list[dict[str, Any]]:
    """The events, each checked against the name that it goes by, and their numbers."""
    found = []
    for event in parse(answer.body):
        data = json.loads(event.data)
        found.append(data)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def timeless(value: Any) -> Any:
    """Without what differs from one response to the next."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in ANEW}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_stream_is_never_a_completed_response(name: str, rig: Rig) -> None:
    def check(position: int, answer: Answer) -> str | None:
        return wrong_cut(RECORDED[name][:position], answer)

    assert_all(rig, f"cut {name}", range(len(RECORDED[name])), check)


@pytest.mark.parametrize("name", NAMES)
def test_a_split_stream_gives_the_same_events(name: str, rig: Rig) -> None:
    seen: list[Any] = []

    def check(_: int, answer: Answer) -> str | None:
        if answer.status != 200 or not answer.complete:
            return f"status {answer.status}"
        events = timeless(events_of(answer))
        seen.append(events)
        if events[-1]["type"] != "response.completed":
            return f"ends with {events[-1]['type']}"
        return None if events == seen[0] else "other events"

    assert_all(rig, f"split {name}", range(len(RECORDED[name]) + 1), check)


def wrong_cut(sent: bytes, answer: Answer) -> str | None:
    """What is wrong with the response to a stream of which only this was sent."""
    verdict = judge(sent)
    chunks = [event.data for event in parse(sent) if event.data != "[DONE]"]
    problem = None
    if not answer.complete:
        problem = "the answer breaks off"
    elif not chunks:
        if answer.status != 502 or answer.error["code"] not in ("upstream_truncated", "upstream_empty"):
            problem = "not refused, though no event came"
    elif answer.status != 200:
        problem = f"status {answer.status} after {len(chunks)} events"
    elif b"[DONE]" in answer.body:
        problem = "has the marker of a chat"
    else:
        problem = wrong_end(events_of(answer), finished=verdict.finished)
    return problem


def wrong_end(events: list[dict[str, Any]], *, finished: bool) -> str | None:
    """What is wrong with how the events end."""
    last = events[-1]
    if finished:
        return None if last["type"] == "response.completed" else "a finished stream is not shown so"
    if any(event["type"] in ("response.completed", "response.incomplete") for event in events):
        return "shown as finished"
    if last["type"] != "response.failed" or last["response"]["status"] != "failed":
        return f"ends with {last}"
    code = last["response"]["error"]["code"]
    return None if code == "upstream_truncated" else f"fails with {code}"


def assert_all(
    rig: Rig, order: str, positions: Iterable[int], check: Callable[[int, Answer], str | None]
) -> None:
    """Ask for each position; report all that went wrong, not only the first."""
    rig.upstream.add(UPSTREAM_MODEL, replay)
    wrong: list[tuple[int, str, bytes]] = []
    todo = iter(positions)

    async def worker() -> None:
        for position in todo:
            fields = {"model": UPSTREAM_MODEL, "input": "x", "stream": True, "user": f"{order} {position}"}
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(request_bytes(PATH, json.dumps(fields).encode()))
            answer = await read_answer(reader)
            writer.close()
            problem = check(position, answer)
            if problem is not None:
                wrong.append((position, problem, answer.body[-400:]))

    async def workers() -> None:
        await asyncio.gather(*(worker() for _ in range(SIDE_BY_SIDE)))

    asyncio.run(workers())
    assert not wrong, f"{len(wrong)} positions, the first: {wrong[0]}"
