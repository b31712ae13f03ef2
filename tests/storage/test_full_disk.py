"""A disk that takes no usage records: what the policy says, nothing lost, and on without a restart."""

from __future__ import annotations

import json
import resource
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from test_usage_serving import KEY, Gateway, demo, workers_of

from processes import Server

__all__ = ["demo"]


@pytest.mark.parametrize("policy", ["strict", "spool"])
def test_a_full_disk(demo: Server, tmp_path: Path, policy: str) -> None:
    gateway = Gateway(demo, tmp_path, "requests_per_day = 1000")
    gateway.file.write_text(f'[server]\nrecords = "{policy}"\n' + gateway.file.read_text())
    with gateway.running() as server:
        answered = []
        status, id, _ = asked(server)
        answered.append(id)
        assert status == 200
        # To each worker every file is now as long as it may be: what a full disk does.
        before = grow(server, 0)
        found = [asked(server) for _ in range(30)]
        answered += [id for status, id, _ in found if status == 200]
        statuses = [status for status, _, _ in found]
        if policy == "strict":
            # The first record that a worker cannot write is one of a request that it had admitted.
            assert statuses[-1] == 503
            assert {code for status, _, code in found if status == 503} == {"usage_unavailable"}
            assert statuses.count(200) <= 2 * len(workers_of(server.process.pid))
        else:
            assert set(statuses) == {200}
        grow(server, before)
        deadline = time.monotonic() + 20
        while (last := asked(server))[0] != 200:
            assert time.monotonic() < deadline
        answered.append(last[1])
        while not {record.id for record in gateway.records()} >= set(answered):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def grow(server: Server, most: int) -> int:
    """How long files of the workers may become; how long they might before."""
    before = resource.RLIM_INFINITY
    for pid in workers_of(server.process.pid):
        before, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, hard))
    return before


def asked(server: Server) -> tuple[int, str, str]:
    """The status of a request, its id, and the code of an error."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = json.dumps({"model": "demo-fast", "messages": [{"role": "user", "content": "Hello"}]})
    head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", body, head)
        answer = connection.getresponse()
        values = json.loads(answer.read())
        return answer.status, answer.headers["x-request-id"], values.get("error", {}).get("code", "")
    finally:
        connection.close()
