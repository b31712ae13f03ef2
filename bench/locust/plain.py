"""Locust scenario: a chat completion that is not streamed."""

from __future__ import annotations

from bench.locust.recording import HEADERS, PROMPT
from locust import FastHttpUser, task

BODY = {
    "model": "bench-n20-b40",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0.2,
}


class Plain(FastHttpUser):
    """Asks, checks, asks again."""

    @task
    def ask(self) -> None:
        path = "/v1/chat/completions"
        with self.client.post(
            path, json=BODY, headers=HEADERS, name="latency", catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif answer.json()["choices"][0]["finish_reason"] != "stop":
                answer.failure("no finish")
