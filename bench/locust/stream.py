"""Locust scenario: a streamed chat completion, read to `[DONE]`, with the lateness of each chunk."""

from __future__ import annotations

import time

from bench.locust.recording import EVENTS, HEADERS, PROMPT, RECORD
from locust import FastHttpUser, task

CHUNKS = 50
BODY = {
    "model": f"bench-n{CHUNKS}-d10-t20-b40",
    "messages": [{"role": "user", "content": PROMPT}],
    "stream": True,
}
STAMP = b'"@'


class Stream(FastHttpUser):
    """Reads one stream after another."""

    @task
    def ask(self) -> None:
        asked = time.monotonic_ns()
        chunks, done = 0, False
        with self.client.post(
            "/v1/chat/completions", json=BODY, headers=HEADERS, name="head", stream=True, catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            while line := answer.stream.readline(b"\n"):
                now = time.monotonic_ns()
                at = line.find(STAMP)
                if at >= 0:
                    sent = int(line[at + len(STAMP) : line.index(b"@", at + len(STAMP))])
                    RECORD.add("late", (now - sent) / 1e6)
                    if chunks == 0:
                        report("first", now - asked)
                    chunks += 1
                done = done or line.startswith(b"data: [DONE]")
            if not done or chunks != CHUNKS:
                answer.failure(f"{chunks} of {CHUNKS} chunks, {'a' if done else 'no'} [DONE]")
                return
        report("latency", time.monotonic_ns() - asked)


def report(name: str, nanoseconds: int) -> None:
    """Into locust's statistics, and from there into the record."""
    EVENTS.request.fire(
        request_type="SSE",
        name=name,
        response_time=nanoseconds / 1e6,
        response_length=0,
        exception=None,
        context={},
    )
