"""Canary secrets: what goes in through the API is in no answer, no log and no file of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rig import Rig
from sqlalchemy import text

from fakes.asgi import Answer
from sluicegate.storage import schema

ADMIN = "workspace_admin"
UPSTREAMS = "/workspaces/acme/upstreams"
KEYS = "/workspaces/acme/keys"
CANARY = "sk-CANARY-secret-0123456789-abcdef"
OWN = "own-CANARY-secret-0123456789"
OTHER = "sk-CANARY-moved-9876543210-fedcba"
HEADER = "CANARY-header-5555"
ALL = (CANARY, OWN, OTHER, HEADER)


async def exercise(rig: Rig) -> list[Answer]:
    """Secrets in their fields, and where they do not belong."""
    good = {
        "name": "up",
        "base_url": "http://nowhere.invalid/v1",
        "api_key": CANARY,
        "headers": {"x-t": HEADER},
    }
    tries: list[tuple[str, str, Any, str]] = [
        ("POST", UPSTREAMS, good, "platform_admin"),
        ("POST", UPSTREAMS, good, "platform_admin"),
        ("POST", UPSTREAMS, {**good, "name": "bad\n"}, ADMIN),
        ("POST", UPSTREAMS, {**good, "base_url": "http://10.0.0.1/v1"}, ADMIN),
        ("POST", UPSTREAMS, {**good, "base_url": "ftp://x"}, ADMIN),
        ("POST", UPSTREAMS, {**good, "api_key": [CANARY]}, ADMIN),
        ("POST", UPSTREAMS, {**good, "api_key": f"{CANARY}\n"}, ADMIN),
        ("POST", UPSTREAMS, {**good, "headers": {"host": HEADER}}, ADMIN),
        ("POST", UPSTREAMS, {**good, "headers": {"x": f"{HEADER}\r\nx: y"}}, ADMIN),
        ("POST", UPSTREAMS, {**good, "kind": CANARY}, ADMIN),
        ("POST", UPSTREAMS, {**good, "weight": CANARY}, ADMIN),
        ("POST", UPSTREAMS, good, "viewer"),
        ("POST", UPSTREAMS, f'{{"api_key": "{CANARY}", "api_key": "{CANARY}"}}'.encode(), ADMIN),
        ("POST", UPSTREAMS, f'{{"api_key": "{CANARY}"'.encode(), ADMIN),
        ("POST", KEYS, {"name": "own", "secret": OWN}, ADMIN),
        ("POST", KEYS, {"name": "again", "secret": OWN}, ADMIN),
        ("POST", KEYS, {"name": "role", "secret": OWN, "role": OWN}, ADMIN),
        ("GET", f"{KEYS}/{CANARY}", None, ADMIN),
        ("POST", "/bootstrap", {"token": CANARY}, ADMIN),
        ("GET", "/me", None, CANARY),
    ]
    answers = [await rig.call(method, path, body, key=key) for method, path, body, key in tries]
    one = f"{UPSTREAMS}/{answers[0].json['id']}"
    rest: list[tuple[str, str, Any]] = [
        ("POST", f"{one}/test", None),
        ("POST", f"{one}/discover", None),
        ("PATCH", one, {"api_key": OTHER}),
        ("PATCH", one, {"api_key": OTHER, "weight": -1}),
        *(("GET", path, None) for path in (UPSTREAMS, one, KEYS, "/workspaces/acme/audit")),
    ]
    return answers + [await rig.call(method, path, body, key=ADMIN) for method, path, body in rest]


async def stored(rig: Rig) -> bytes:
    """Every row of every table, and every file of the data directory."""
    found = b""
    async with rig.database.read() as view:
        for table in schema.metadata.sorted_tables:
            for row in (await view.execute(text(f'SELECT * FROM "{table.name}"'))).all():
                for value in row:
                    found += bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
    return found + files(rig.database.location.data_dir)


def files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.asyncio
async def test_secrets_stay_inside(rig: Rig) -> None:
    answers = await exercise(rig)
    assert [answers[0].status, answers[14].status] == [201, 201]
    assert max(answer.status for answer in answers) < 500
    shown = [answer for number, answer in enumerate(answers) if number != 14]
    rig.log.close()
    lines = rig.output.getvalue()
    assert '"refused"' in lines
    kept = await stored(rig)
    assert b"acme-canary-prompt" in kept
    for secret in (*ALL, *rig.world.secrets):
        for answer in shown:
            assert secret.encode() not in answer.body + repr(answer.messages[0]).encode()
        assert secret not in lines
        assert secret.encode() not in kept


@pytest.mark.asyncio
async def test_the_text_of_a_key_is_shown_by_its_making_only(rig: Rig) -> None:
    headers = {"Idempotency-Key": "once"}
    made = await rig.call("POST", KEYS, {"name": "fresh"}, key=ADMIN, headers=headers)
    secret = made.json["secret"].encode()
    # Who lost the answer gets it again, from a sealed copy.
    again = await rig.call("POST", KEYS, {"name": "fresh"}, key=ADMIN, headers=headers)
    assert again.body == made.body
    assert secret not in await stored(rig)
    for path in (KEYS, f"{KEYS}/{made.json['id']}", "/workspaces/acme/audit"):
        assert secret not in (await rig.call("GET", path, key=ADMIN)).body
