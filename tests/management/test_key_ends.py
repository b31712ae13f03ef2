"""Keys that end, and are announced to; and files of the gateway's machine, which the operator alone names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rig import Rig
from test_management import ADMIN, KEYS, UPSTREAMS, made

from sluicegate.storage.database import now_ms

pytestmark = pytest.mark.asyncio

DAY = 86_400_000


async def test_a_key_ends_unless_it_is_told_not_to(rig: Rig) -> None:
    usual = (await made(rig, KEYS, {"name": "usual"})).json
    assert usual["expires_at"] - usual["created_at"] == 90 * DAY
    ever = (await made(rig, KEYS, {"name": "ever", "expires_at": None})).json
    assert ever["expires_at"] is None
    freed = await rig.call("PATCH", f"{KEYS}/{usual['id']}", {"expires_at": None}, key=ADMIN)
    assert freed.json["expires_at"] is None


async def test_the_end_of_a_key_is_announced(rig: Rig) -> None:
    now = now_ms()
    admin = {"kind": "admin", "role": "viewer"}
    far = (await made(rig, KEYS, {"name": "far", "expires_at": now + 15 * DAY, **admin})).json
    near = (await made(rig, KEYS, {"name": "near", "expires_at": now + 13 * DAY, **admin})).json
    assert "x-api-key-expires" not in (await rig.call("GET", "/me", key=far["secret"])).headers
    end = datetime.fromtimestamp(near["expires_at"] // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # With answers of every kind.
    for path in ("/me", f"{KEYS}/nothing"):
        assert (await rig.call("GET", path, key=near["secret"])).headers["x-api-key-expires"] == end
    # A secret that was replaced ends too, though its key does not.
    await rig.call("POST", f"{KEYS}/{far['id']}/rotate", {"grace_seconds": 3600}, key=ADMIN)
    assert "x-api-key-expires" in (await rig.call("GET", "/me", key=far["secret"])).headers


async def test_files_of_the_gateway_are_the_operators_to_name(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    body = {"name": "counted", "base_url": "https://u.example.com/v1"}
    named = {"tokenizers": {"m": "o200k_base"}}
    made_by_admin = (await made(rig, UPSTREAMS, {**body, **named})).json
    assert made_by_admin["tokenizers"] == {"m": "o200k_base"}
    one = f"{UPSTREAMS}/{made_by_admin['id']}"
    for name in (str(file), "/etc/passwd", "/nowhere/t.json"):
        refused = await rig.call("PATCH", one, {"tokenizers": {"m": name}}, key=ADMIN)
        assert (refused.status, refused.error["param"]) == (400, "tokenizers")
        # The same words whether there is such a file or not.
        assert refused.error["message"].endswith("give the name of an encoding.")
        again = {**body, "name": "other", "tokenizers": {"m": name}}
        assert (await rig.call("POST", UPSTREAMS, again, key=ADMIN)).status == 400
    absent = await rig.call("PATCH", one, {"tokenizers": {"m": "/nowhere/t.json"}}, key="platform_admin")
    assert "no such file" in absent.error["message"]
    by_operator = await rig.call("PATCH", one, {"tokenizers": {"m": str(file)}}, key="platform_admin")
    assert by_operator.json["tokenizers"] == {"m": str(file)}
    # What the operator has set may stay, under the same model only.
    kept = await rig.call("PATCH", one, {"weight": 3}, key=ADMIN)
    assert (kept.status, kept.json["tokenizers"]) == (200, {"m": str(file)})
    moved = await rig.call("PATCH", one, {"tokenizers": {"n": str(file)}}, key=ADMIN)
    assert moved.status == 400
    wrong = await rig.call("PATCH", one, {"tokenizers": {"m": "o300k_base"}}, key=ADMIN)
    assert "one of cl100k_base" in wrong.error["message"] or "o200k_base" in wrong.error["message"]
