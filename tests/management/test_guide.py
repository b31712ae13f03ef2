"""Every command of docs/guides/management-api.md, in its order, against `sluicegate serve`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from processes import answers, free_port, running

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "management-api.md"

# What the guide uses of curl, for machines without it: prints status and body.
CURL = f"""#!{sys.executable}
import sys, urllib.error, urllib.request
arguments, method, headers, body, url = sys.argv[1:], None, {{}}, None, None
while arguments:
    word = arguments.pop(0)
    if word == "-X":
        method = arguments.pop(0)
    elif word == "-H":
        name, value = arguments.pop(0).split(": ", 1)
        headers[name] = value
    elif word == "-d":
        body = arguments.pop(0).encode()
    else:
        url = word
request = urllib.request.Request(url, body, headers, method=method)
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request, timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


def commands() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(120)
def test_every_command_of_the_guide(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "curl").write_text(CURL)
    (tools / "curl").chmod(0o755)
    port, data = free_port(), tmp_path / "data"
    arguments = ["sluicegate", "serve", "--port", str(port), "--workers", "2", "--data-dir", str(data)]
    with running(arguments, port, tmp_path / "log", ready=lambda p: answers(p, "/readyz")) as server:
        token = re.search(r"sg-bootstrap-[\w-]+", server.output())
        assert token, server.output()
        known = {"API": f"http://127.0.0.1:{port}/api/v1", "TOKEN": token[0], "ID": ""}
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
        secrets = []
        assert len(commands()) >= 14
        for command in commands():
            # Tests call nobody outside.
            here = command.replace("https://openrouter.ai/api/v1", "https://router.invalid/v1")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", here],
                env={**environment, **known},
                capture_output=True,
                text=True,
                timeout=40,
                check=False,
            )
            status, _, body = done.stdout.partition(" ")
            assert status in ("200", "201"), f"{command}\n{done.stdout}{done.stderr}"
            found = json.loads(body)
            # «$ID is the id of the answer before», of one that made something.
            if status == "201":
                known["ID"] = found["id"]
            if "secret" in found:
                secrets.append(found["secret"])
                known.setdefault("ADMIN", found["secret"])
        client = next(secret for secret in secrets if secret.startswith("sk-sg-"))
        assert refused(server.port, "/v1/models", known["ADMIN"]) == (403, "wrong_key_kind")
        assert refused(server.port, "/api/v1/me", client) == (401, "invalid_api_key")
        assert refused(server.port, "/api/v1/%6De", known["ADMIN"]) == (404, "unknown_url")
        said = server.output()
    assert not any(secret in said for secret in secrets)


def refused(port: int, path: str, key: str) -> tuple[int, str]:
    import httpx

    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, trust_env=False)
    return answer.status_code, answer.json()["error"]["code"]
