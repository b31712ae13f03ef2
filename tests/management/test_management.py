"""The management API as its users see it: answers, errors, versions, tries, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from rig import Rig

from fakes.asgi import Answer
from sluicegate.http.json_body import MAX_DEPTH
from sluicegate.management.app import MAX_BODY_BYTES

pytestmark = pytest.mark.asyncio

ADMIN = "workspace_admin"
KEYS = "/workspaces/acme/keys"
UPSTREAMS = "/workspaces/acme/upstreams"
ASSISTANTS = "/workspaces/acme/assistants"


async def made(rig: Rig, path: str, body: Any, key: str = ADMIN) -> Answer:
    answer = await rig.call("POST", path, body, key=key)
    assert answer.status == 201, answer.body
    location = answer.headers.get("location")
    if location is not None:
        found = await rig.call("GET", location.removeprefix("/api/v1"), key=key)
        assert found.status == 200
        assert found.headers.get("etag") == answer.headers.get("etag")
    return answer


async def test_a_key_from_its_making_to_its_end(rig: Rig) -> None:
    first = (await made(rig, KEYS, {"name": "app", "models": ["gpt*"]})).json
    assert first["secret"].startswith("sk-sg-")
    assert first["scopes"] == ["chat:write", "completions:write", "embeddings:write", "models:read"]
    one = f"{KEYS}/{first['id']}"
    assert "secret" not in (await rig.call("GET", one, key=ADMIN)).json
    renamed = await rig.call("PATCH", one, {"name": "app2", "models": None}, key=ADMIN)
    assert (renamed.json["name"], renamed.json["models"], renamed.headers["etag"]) == ("app2", None, '"2"')
    rotated = await rig.call("POST", f"{one}/rotate", {"grace_seconds": 3600}, key=ADMIN)
    assert rotated.json["secret"] not in (first["secret"], "")
    assert [s["not_after"] is None for s in rotated.json["secrets"]] == [False, True]
    revoked = await rig.call("POST", f"{one}/revoke", key=ADMIN)
    assert revoked.json["revoked_at"]
    again = await rig.call("POST", f"{one}/rotate", {}, key=ADMIN)
    assert (again.status, again.error["param"]) == (400, "key")
    listed = await rig.call("GET", KEYS, key=ADMIN, query="revoked=true&name=APP")
    assert [key["id"] for key in listed.json["items"]] == [first["id"]]
    assert (await rig.call("DELETE", one, key=ADMIN)).status == 204
    assert (await rig.call("GET", one, key=ADMIN)).status == 404


async def test_limits_of_keys_and_upstreams(rig: Rig) -> None:
    wanted = {"name": "app", "limits": {"requests_per_minute": 5}, "budget": {"usd_per_month": 50}}
    key = (await made(rig, KEYS, wanted)).json
    assert key["limits"]["requests_per_minute"] == 5
    assert key["budget"]["usd_per_month"] == 50
    one = f"{KEYS}/{key['id']}"
    # A change reaches into the table; null gives back the default.
    changed = await rig.call("PATCH", one, {"limits": {"concurrent_requests": 2}, "budget": None}, key=ADMIN)
    limits = changed.json["limits"]
    assert (limits["requests_per_minute"], limits["concurrent_requests"]) == (5, 2)
    assert changed.json["budget"]["usd_per_month"] is None
    wrong = await rig.call("PATCH", one, {"limits": {"requests_per_minute": 0}}, key=ADMIN)
    assert (wrong.status, wrong.error["param"]) == (400, "limits.requests_per_minute")
    admin = {"name": "boss", "kind": "admin", "role": "viewer", "limits": {"requests_per_minute": 5}}
    refused = await rig.call("POST", KEYS, admin, key=ADMIN)
    assert (refused.status, refused.error["param"]) == (400, "limits")


async def test_a_revoked_admin_key_ends_with_the_next_request(rig: Rig) -> None:
    admin = (await made(rig, KEYS, {"name": "helper", "kind": "admin", "role": "viewer"})).json
    assert (await rig.call("GET", "/me", key=admin["secret"])).json["role"] == "viewer"
    await rig.call("POST", f"{KEYS}/{admin['id']}/revoke", key=ADMIN)
    assert (await rig.call("GET", "/me", key=admin["secret"])).status == 401


async def test_nobody_gives_away_more_than_they_have(rig: Rig) -> None:
    manager = "key_manager"
    narrow = {"name": "n", "kind": "admin", "role": "workspace_admin", "scopes": ["keys:manage"]}
    made_by_manager = (await made(rig, KEYS, narrow, manager)).json
    wide = {**narrow, "name": "w", "scopes": ["keys:manage", "upstreams:manage"]}
    for body in (wide, {**narrow, "name": "w", "scopes": []}, {**narrow, "name": "w", "scopes": None}):
        assert (await rig.call("POST", KEYS, body, key=manager)).error["code"] == "permission_denied"
    one = f"{KEYS}/{made_by_manager['id']}"
    for scopes in ([], None, ["keys:manage", "audit:read"]):
        assert (await rig.call("PATCH", one, {"scopes": scopes}, key=manager)).status == 403
    # A new secret of a stronger key would be that key.
    strong = (await made(rig, KEYS, wide)).json
    for method, path, body in [("POST", "/rotate", {}), ("PATCH", "", {"name": "mine"})]:
        refused = await rig.call(method, f"{KEYS}/{strong['id']}{path}", body, key=manager)
        assert refused.error["code"] == "permission_denied"
    # It may still be stopped by whoever sees it leak.
    assert (await rig.call("POST", f"{KEYS}/{strong['id']}/revoke", key=manager)).status == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "k", "scopes": ["keys:manage"]}, "scopes"),
        ({"name": "k", "kind": "admin", "role": "viewer", "scopes": ["chat:write"]}, "scopes"),
        ({"name": "k", "kind": "admin"}, "role"),
        ({"name": "k", "role": "viewer"}, "role"),
        ({"name": "k", "scopes": ["nonsense"]}, "scopes[0]"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({}, "name"),
        ({"name": "k", "nam": 1}, "nam"),
        ({"name": "k", "secret": "with blanks in the text"}, "secret"),
        ({"name": "k", "expires_at": -1}, "expires_at"),
        ([], None),
    ],
)
async def test_errors_name_the_field(shared: Rig, body: Any, param: str | None) -> None:
    answer = await shared.call("POST", KEYS, body, key=ADMIN)
    assert (answer.status, answer.error["param"]) == (400, param), answer.body
    assert answer.headers["x-should-retry"] == "false"


async def test_patches_merge_settings_and_give_back_defaults(rig: Rig) -> None:
    path = "/workspaces/acme"
    first = await rig.call("PATCH", path, {"settings": {"context_window": "40%"}}, key=ADMIN)
    assert first.json["settings"]["context_window"] == "40%"
    assert first.json["settings"]["max_tokens"] == 100
    second = await rig.call("PATCH", path, {"settings": {"max_tokens": None}}, key=ADMIN)
    assert (second.json["settings"]["max_tokens"], second.json["settings"]["context_window"]) == (None, "40%")
    third = await rig.call("PATCH", path, {"settings": None}, key=ADMIN)
    assert third.json["settings"]["context_window"] is None
    nameless = await rig.call("PATCH", path, {"name": None}, key=ADMIN)
    assert nameless.error["code"] == "missing_required_parameter"
    deep = await rig.call("PATCH", path, {"settings": {"context_window": "0%"}}, key=ADMIN)
    assert deep.error["param"] == "settings.context_window"


async def test_lost_updates_are_refused(rig: Rig) -> None:
    made_ = await made(rig, ASSISTANTS, {"name": "a", "spec": {"model": ["u/m"], "locked": ["model"]}})
    one = f"{ASSISTANTS}/{made_.json['id']}"
    for method, body, path in [
        ("PATCH", {"spec": {"temperature": 1}}, one),
        ("DELETE", None, one),
        ("POST", {"version": 1}, f"{one}/roll-back"),
    ]:
        late = await rig.call(method, path, body, key=ADMIN, headers={"If-Match": '"7"'})
        assert (late.status, late.error["code"]) == (412, "version_conflict")
    first = await rig.call("PATCH", one, {"spec": {"seed": 1}}, key=ADMIN, headers={"If-Match": '"1"'})
    assert first.headers["etag"] == '"2"'
    both = await asyncio.gather(
        *(
            rig.call("PATCH", one, {"spec": {"seed": n}}, key=ADMIN, headers={"If-Match": '"2"'})
            for n in (2, 3)
        )
    )
    assert sorted(answer.status for answer in both) == [200, 412]
    for wrong in ("1", 'W/"1"', '"x"', '"99999999999"', ""):
        answer = await rig.call("PATCH", one, {}, key=ADMIN, headers={"If-Match": wrong})
        assert (answer.status, answer.error["param"]) == (400, "If-Match")
    assert (await rig.call("PATCH", one, {}, key=ADMIN, headers={"If-Match": "*"})).status == 200


async def test_versions_and_roll_back(rig: Rig) -> None:
    one = (
        f"{ASSISTANTS}/{(await made(rig, ASSISTANTS, {'name': 'a', 'spec': {'model': ['u/m']}})).json['id']}"
    )
    await rig.call("PATCH", one, {"spec": {"system_prompt": "new"}}, key="member")
    back = await rig.call("POST", f"{one}/roll-back", {"version": 1}, key=ADMIN)
    assert (back.json["version"], back.json["spec"]["system_prompt"]) == (3, None)
    first = await rig.call("GET", f"{one}/versions", key=ADMIN, query="limit=2")
    rest = await rig.call("GET", f"{one}/versions", key=ADMIN, query=f"limit=2&cursor={first.json['next']}")
    versions = [*first.json["items"], *rest.json["items"]]
    assert [(v["version"], v["restored_from"]) for v in versions] == [(3, 1), (2, None), (1, None)]
    assert rest.json["next"] is None
    assert versions[1]["by"].startswith("key:key_")


async def test_a_second_try_creates_nothing_twice(rig: Rig) -> None:
    headers = {"Idempotency-Key": "try-1"}
    answers = await asyncio.gather(
        *(rig.call("POST", KEYS, {"name": "once"}, key=ADMIN, headers=headers) for _ in range(4))
    )
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 3
    other = await rig.call("POST", KEYS, {"name": "other"}, key=ADMIN, headers=headers)
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")
    elsewhere = await rig.call(
        "POST", ASSISTANTS, {"name": "once", "spec": {"model": ["u/m"]}}, key=ADMIN, headers=headers
    )
    assert elsewhere.status == 422
    # A refused try is not an answer: it may be mended.
    headers = {"Idempotency-Key": "try-2"}
    assert (await rig.call("POST", KEYS, {"name": "once"}, key=ADMIN, headers=headers)).status == 409
    assert (await rig.call("POST", KEYS, {"name": "twice"}, key=ADMIN, headers=headers)).status == 201
    for wrong in ("", "x" * 256, "ü"):
        bad = await rig.call("POST", KEYS, {"name": "z"}, key=ADMIN, headers={"Idempotency-Key": wrong})
        assert (bad.status, bad.error["param"]) == (400, "Idempotency-Key")


async def test_an_upstreams_secrets_go_in_and_never_out(rig: Rig) -> None:
    body = {"name": "up", "base_url": "https://a.example.com/v1", "api_key": "sk-" + "s" * 30}
    first = await made(rig, UPSTREAMS, {**body, "headers": {"x-org": "hidden-value"}})
    one = f"{UPSTREAMS}/{first.json['id']}"
    assert first.json["has_key"] and first.json["key_last4"] == "ssss"
    assert first.json["header_names"] == ["x-org"]
    assert b"hidden-value" not in first.body and b"s" * 10 not in first.body
    kept = await rig.call("PATCH", one, {"base_url": "https://a.example.com/v2"}, key=ADMIN)
    assert (kept.json["has_key"], kept.json["header_names"]) == (True, ["x-org"])
    new_key = await rig.call("PATCH", one, {"api_key": "sk-" + "t" * 30, "enabled": False}, key=ADMIN)
    assert (new_key.json["key_last4"], new_key.json["header_names"]) == ("tttt", ["x-org"])
    no_headers = await rig.call("PATCH", one, {"headers": None}, key=ADMIN)
    assert (no_headers.json["has_key"], no_headers.json["header_names"]) == (True, [])
    moved = await rig.call(
        "PATCH", one, {"base_url": "https://b.example.com/v1", "headers": {"x-a": "1"}}, key=ADMIN
    )
    assert (moved.json["has_key"], moved.json["header_names"]) == (False, ["x-a"])
    wrong = await rig.call("PATCH", one, {"api_key": "with\nbreak"}, key=ADMIN)
    assert (wrong.status, wrong.error["param"]) == (400, "api_key")
    host = await rig.call("PATCH", one, {"headers": {"host": "x"}}, key=ADMIN)
    assert (host.status, host.error["param"]) == (400, "headers")


async def test_names_and_uses_stand_against_changes(rig: Rig) -> None:
    await made(rig, UPSTREAMS, {"name": "used", "base_url": "https://a.example.com/v1"})
    taken = await rig.call(
        "POST", UPSTREAMS, {"name": "used", "base_url": "https://b.example.com"}, key=ADMIN
    )
    assert (taken.status, taken.error["code"], taken.error["param"]) == (409, "name_taken", "name")
    await made(rig, ASSISTANTS, {"name": "a", "spec": {"model": ["used/m"]}})
    found = await rig.call("GET", UPSTREAMS, key=ADMIN, query="name=used")
    one = f"{UPSTREAMS}/{found.json['items'][0]['id']}"
    for method, body in [("DELETE", None), ("PATCH", {"name": "other"})]:
        refused = await rig.call(method, one, body, key=ADMIN)
        assert (refused.status, refused.error["code"]) == (409, "in_use")
        assert "«a»" in refused.error["message"]
    space = await rig.call("POST", "/workspaces", {"id": "acme", "name": "A"}, key="platform_admin")
    assert (space.status, space.error["param"]) == (409, "id")


async def test_pages_show_everything_once(rig: Rig) -> None:
    for number in range(7):
        await made(rig, ASSISTANTS, {"name": f"many {number}", "spec": {"model": ["u/m"]}})
    seen: list[str] = []
    query = "limit=3&name=MANY"
    while True:
        answer = await rig.call("GET", ASSISTANTS, key="viewer", query=query)
        seen += [item["name"] for item in answer.json["items"]]
        if answer.json["next"] is None:
            break
        query = f"limit=3&name=MANY&cursor={answer.json['next']}"
    assert seen == [f"many {number}" for number in range(7)]


async def test_the_platform_has_things_of_its_own(rig: Rig) -> None:
    root = "platform_admin"
    body = {"name": "shared", "base_url": "http://10.1.2.3/v1", "offered_to": ["acme"]}
    assert (await made(rig, "/workspaces/_platform/upstreams", body, root)).json["workspace"] == "_platform"
    admin = {"name": "second", "kind": "admin", "role": "platform_admin"}
    second = (await made(rig, "/workspaces/_platform/keys", admin, root)).json["secret"]
    assert (await rig.call("GET", "/me", key=second)).json["workspace"] == "_platform"
    space = (await made(rig, "/workspaces", {"id": "new", "name": "New"}, second)).json
    assert space["id"] == "new"
    assert (await rig.call("DELETE", "/workspaces/new", key=second)).status == 204
    gone = await rig.call("GET", "/workspaces/new/keys", key=second)
    assert gone.error["message"] == "There is no such workspace."
    verdict = await rig.call("POST", "/audit/verify", key=root)
    assert verdict.json["broken_at"] is None
    log = await rig.call("GET", "/audit", key=root, query="action=workspace.delete&limit=1")
    assert log.json["items"][0]["object"] == "new"


async def test_people_and_their_roles(rig: Rig) -> None:
    path = "/workspaces/acme/members"
    first = (await made(rig, path, {"login": "New@Example.com", "role": "member"})).json
    again = (await made(rig, path, {"login": "new@example.com", "role": "viewer"})).json
    assert (again["user"], again["role"]) == (first["user"], "viewer")
    other = await rig.call("PATCH", f"{path}/{first['user']}", {"role": "workspace_admin"}, key=ADMIN)
    assert other.json["role"] == "workspace_admin"
    assert (await rig.call("DELETE", f"{path}/{first['user']}", key=ADMIN)).status == 204
    assert (await rig.call("GET", f"{path}/{first['user']}", key=ADMIN)).status == 404
    users = await rig.call("GET", "/users", key="platform_admin", query="login=NEW@")
    assert [user["id"] for user in users.json["items"]] == [first["user"]]


def nested(depth: int) -> bytes:
    return b'{"name":"x","spec":' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"name":"x"}}', 400, "invalid_json"),
        (b'{"name":"\\ud800"}', 400, "invalid_json"),
        (b'{"name":NaN}', 400, "invalid_json"),
        (b'{"name":1e999}', 400, "invalid_json"),
        (b'{"name":' + b"9" * 5000 + b"}", 400, "invalid_json"),
        (b'{"name":"\xff"}', 400, "invalid_utf8"),
        (b'{"name":"a","name":"b"}', 400, "duplicate_key"),
        (b'{"name":"a","n\\u0061me":"b"}', 400, "duplicate_key"),
        (nested(MAX_DEPTH), 400, "json_too_deep"),
        (nested(500_000), 400, "json_too_deep"),
        (b"[" * 1_000_000, 400, "json_too_deep"),
        (b'{"a":"' + b'\\"' * 500_000, 400, "invalid_json"),
        (nested(MAX_DEPTH - 1), 400, "invalid_value"),
        (b'{"name":"' + b"x" * MAX_BODY_BYTES + b'"}', 413, "request_too_large"),
    ],
    ids=range(16),
)
async def test_bodies_are_bounded_before_they_are_read(
    shared: Rig, body: bytes, status: int, code: str
) -> None:
    answer = await shared.call("POST", ASSISTANTS, body, key=ADMIN, patience=5)
    assert (answer.status, answer.error["code"]) == (status, code), answer.error


async def test_bodies_have_to_be_json(shared: Rig) -> None:
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ):
        answer = await shared.call("POST", KEYS, b"{}", key=ADMIN, headers=headers)
        assert answer.status == 415


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("nonsense=1", "nonsense"),
        ("name=%00", "name"),
        ("name=%ff", None),
        ("name=a&name=b", None),
        ("revoked=maybe", "revoked"),
        ("&".join(f"a{n}=1" for n in range(30)), None),
    ],
)
async def test_parameters_are_checked(shared: Rig, query: str, param: str | None) -> None:
    answer = await shared.call("GET", KEYS, key=ADMIN, query=query)
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_headers_stand_there_once(shared: Rig) -> None:
    from rig import request

    key = (b"authorization", b"Bearer " + shared.world.keys[ADMIN].encode())
    headers = [key, (b"if-match", b'"1"'), (b"if-match", b'"2"'), (b"content-type", b"application/json")]
    answer = await request(shared.app, "PATCH", "/api/v1/workspaces/acme", b"{}", headers)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "duplicate_header")


async def test_a_database_that_is_down_is_a_503(rig: Rig) -> None:
    assert (await rig.call("GET", "/me", key=ADMIN)).status == 200
    async with rig.database.change(_actor()):
        # Nobody else can write while this is open.
        answer = await rig.call("POST", KEYS, {"name": "late"}, key=ADMIN)
    assert (answer.status, answer.error["code"]) == (503, "database_unavailable")
    assert answer.headers["retry-after"] == "1"


def _actor() -> Any:
    from sluicegate.storage.transaction import Actor

    return Actor("cli:root")
