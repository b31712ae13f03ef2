"""Locust scenario: embeddings of four texts, 1,536 numbers each (about 55 KiB of JSON)."""

from __future__ import annotations

from bench.locust.recording import HEADERS, PROMPT
from locust import FastHttpUser, task

TEXTS = 4
BODY = {"model": "bench-e1536", "input": [PROMPT] * TEXTS}


class Embeddings(FastHttpUser):
    """Asks, checks, asks again."""

    @task
    def ask(self) -> None:
        with self.client.post(
            "/v1/embeddings", json=BODY, headers=HEADERS, name="latency", catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            # Counting is enough here: to parse 6,144 numbers in Python takes longer than the whole request.
            elif answer.content.count(b'"embedding":[') != TEXTS:
                answer.failure("embeddings are missing")
