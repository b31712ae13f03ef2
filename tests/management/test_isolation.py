"""The isolation matrix: roles by every route by where an id comes from by whose it is."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Rig, opened
from sqlalchemy import select
from verdicts import ALLOWED, BODIES, NOBODY, PUBLIC, ROLES
from world import DELETED, GUESSED, GUESSES, OTHER, OWN, World

from fakes.asgi import Answer
from sluicegate.http.guard import NARROWING, permissions_of
from sluicegate.http.guard import ROLES as GUARDED
from sluicegate.ids import PLATFORM
from sluicegate.management.app import OPERATIONS
from sluicegate.management.operation import Operation
from sluicegate.members.model import Role
from sluicegate.storage import schema
from sluicegate.storage.location import Location

WORKSPACES = (OWN, OTHER, DELETED, GUESSED, PLATFORM)
SOURCES = ("own", "other", "deleted", "guessed")
BY_ID = {operation.id: operation for operation in OPERATIONS}
HOMES = {"other_admin": OTHER}


def object_of(operation: Operation) -> str | None:
    """The last id of the path that is not the workspace."""
    names = [name for name in re.findall(r"{(\w+)}", operation.path) if name != "workspace"]
    return names[0] if names else None


def identifier(world: World, kind: str, workspace: str, source: str, home: str) -> str:
    """An id: of the workspace that is asked, of another one, deleted there, or of nobody."""
    there = world.tenants.get(workspace, world.tenants[home])
    away = world.tenants[OTHER if workspace != OTHER else OWN]
    return {
        "own": there.ids[kind],
        "other": away.ids[kind],
        "deleted": there.deleted[kind],
        "guessed": GUESSES[kind],
    }[source]


def expected(operation: Operation, role: str, workspace: str, source: str) -> int:
    """The status by the rules; who may what is in `verdicts.py`."""
    if role in NOBODY:
        return 401
    is_platform = role == "platform_admin"
    if operation.is_scoped and not is_platform and workspace != HOMES.get(role, OWN):
        return 404
    if role not in ALLOWED[operation.id]:
        return 403
    if operation.is_scoped and workspace in (DELETED, GUESSED):
        return 404
    if object_of(operation) is None or source == "own":
        return operation.status
    # People are the platform's: none of them is another workspace's, and only a guess is nobody.
    is_person = not operation.is_scoped and source != "guessed"
    return operation.status if is_person else 404


Cell = tuple[Operation, str, str, str]


def cells(operation: Operation) -> Iterator[Cell]:
    workspaces = WORKSPACES if operation.is_scoped else (OWN,)
    sources = SOURCES if object_of(operation) else ("own",)
    for role, workspace, source in itertools.product(ROLES, workspaces, sources):
        # The operator's own things are the operator's: only others have to be kept out.
        if (role, workspace) != ("platform_admin", PLATFORM):
            yield operation, role, workspace, source


async def ask(rig: Rig, cell: Cell) -> Answer:
    operation, role, workspace, source = cell
    kind = object_of(operation)
    path = operation.path.replace("{workspace}", workspace)
    if kind is not None:
        found = identifier(rig.world, kind, workspace, source, HOMES.get(role, OWN))
        path = path.replace(f"{{{kind}}}", found)
    return await rig.call(
        operation.method, path, BODIES.get(operation.id), key=None if role == "none" else role
    )


def require_no_leak(world: World, role: str, answer: Answer) -> None:
    """Nothing of a tenant stands anywhere in an answer to another one, nor a secret in any but the making."""
    whole = answer.body + repr(answer.messages[0]["headers"]).encode()
    if role != "platform_admin":
        foreign = (OWN, DELETED) if role == "other_admin" else (OTHER, DELETED)
        for name in foreign:
            for canary in world.tenants[name].canaries:
                assert canary.encode() not in whole, f"{canary} of {name} shown to {role}"
    for secret in world.secrets:
        assert secret.encode() not in whole


async def head_of(rig: Rig) -> int:
    async with rig.database.read() as view:
        found: int = (await view.execute(select(schema.audit_head.c.sequence))).scalar_one()
        return found


def test_every_route_has_its_row() -> None:
    assert {operation.id for operation in OPERATIONS} == {*ALLOWED, *PUBLIC}
    assert {operation.id for operation in OPERATIONS if operation.body is not None} == set(BODIES)
    assert {operation.id for operation in OPERATIONS if operation.permission is None} == set(PUBLIC)
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


def test_the_guard_knows_every_role() -> None:
    assert set(GUARDED) == {role.value for role in Role}
    ranked = [GUARDED[role.value] for role in Role]
    assert all(more > less for more, less in itertools.pairwise(ranked))


def test_the_matrix_is_large() -> None:
    count = sum(1 for operation in OPERATIONS if operation.id in ALLOWED for _ in cells(operation))
    assert count > 5000


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ALLOWED)
async def test_every_cell(shared: Rig, sqlite_world: tuple[Path, World], tmp_path: Path, name: str) -> None:
    operation = BY_ID[name]
    source_folder, world = sqlite_world
    before = await head_of(shared)
    refused: dict[str, set[bytes]] = {}
    changes = []
    for cell in cells(operation):
        wanted = expected(*cell)
        if wanted < 400 and operation.method != "GET":
            changes.append(cell)
            continue
        answer = await ask(shared, cell)
        assert answer.status == wanted, f"{cell[1:]}: {answer.body!r}"
        require_no_leak(world, cell[1], answer)
        if wanted == 404 and cell[1] != "platform_admin":
            whose = "workspace" if cell[2] != HOMES.get(cell[1], OWN) else "object"
            refused.setdefault(whose, set()).add(answer.body)
    # What is of another workspace, deleted or guessed cannot be told apart.
    assert all(len(bodies) == 1 for bodies in refused.values()), refused
    assert await head_of(shared) == before, "a refused call has changed something"
    assert changes or operation.method == "GET"
    for number, cell in enumerate(changes):
        folder = tmp_path / str(number)
        shutil.copytree(source_folder, folder)
        async with opened(Location(data_dir=folder), world) as rig:
            answer = await ask(rig, cell)
            assert answer.status == operation.status, f"{cell[1:]}: {answer.body!r}"
            require_no_leak(world, cell[1], answer)


@pytest.mark.asyncio
@pytest.mark.parametrize("role", ROLES)
async def test_unknown_paths_say_nothing_without_a_key(shared: Rig, role: str) -> None:
    for method, path in [
        ("GET", "/nothing"),
        ("DELETE", "/me"),
        ("GET", "/workspaces/acme/nothing"),
        ("GET", ""),
    ]:
        answer = await shared.call(method, path, key=None if role == "none" else role)
        wanted = 401 if role in NOBODY else 405 if path == "/me" else 404
        assert answer.status == wanted


@pytest.mark.asyncio
async def test_a_cursor_is_good_in_its_own_list_only(shared: Rig) -> None:
    mine = await shared.call("GET", "/workspaces/acme/keys", key="viewer", query="limit=1")
    theirs = await shared.call("GET", "/workspaces/zeta/keys", key="other_admin", query="limit=1")
    assert (mine.status, theirs.status) == (200, 200)
    for cursor, status in [(mine.json["next"], 200), (theirs.json["next"], 400), ("a2V5Xw", 400), ("é", 400)]:
        answer = await shared.call(
            "GET", "/workspaces/acme/keys", key="viewer", query=f"limit=1&cursor={cursor}"
        )
        assert answer.status == status, cursor
        require_no_leak(shared.world, "viewer", answer)
    # Nor in another list of the same workspace.
    query = f"cursor={mine.json['next']}"
    assert (await shared.call("GET", "/workspaces/acme/upstreams", key="viewer", query=query)).status == 400


@pytest.mark.asyncio
async def test_an_idempotency_key_is_its_owners(rig: Rig) -> None:
    headers = {"Idempotency-Key": "the-same"}
    body = {"name": "zeta-canary-fresh"}
    first = await rig.call("POST", "/workspaces/zeta/keys", body, key="other_admin", headers=headers)
    mine = await rig.call(
        "POST", "/workspaces/acme/keys", {"name": "x"}, key="workspace_admin", headers=headers
    )
    other = await rig.call("POST", "/workspaces/acme/keys", {"name": "y"}, key="key_manager", headers=headers)
    assert [first.status, mine.status, other.status] == [201, 201, 201]
    assert len({answer.json["secret"] for answer in (first, mine, other)}) == 3
    require_no_leak(rig.world, "workspace_admin", mine)


BODY_IDS = [
    # Names of another workspace's things are just names here.
    ("PATCH", "/workspaces/acme", {"settings": {"default_upstream": "zeta-canary-up"}}, 200),
    ("POST", "/workspaces/acme/assistants", {"name": "a", "spec": {"model": ["zeta-canary-up/m"]}}, 201),
    # An offer is the operator's to make: to nobody, whoever it is.
    (
        "POST",
        "/workspaces/acme/upstreams",
        {"name": "u", "base_url": "https://e.example/v1", "offered_to": ["zeta"]},
        400,
    ),
    (
        "POST",
        "/workspaces/acme/upstreams",
        {"name": "u", "base_url": "https://e.example/v1", "offered_to": ["nowhere"]},
        400,
    ),
    ("POST", "/workspaces/acme/members", {"login": "m@example.com", "role": "platform_admin"}, 403),
    ("POST", "/workspaces/acme/keys", {"name": "k", "kind": "admin", "role": "platform_admin"}, 403),
    ("POST", "/workspaces/acme/keys", {"name": "k", "workspace": "zeta"}, 400),
    ("POST", "/workspaces/acme/assistants/{assistant}/roll-back", {"version": 999}, 404),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("method", "path", "body", "status"), BODY_IDS)
async def test_ids_in_bodies(rig: Rig, method: str, path: str, body: object, status: int) -> None:
    path = path.replace("{assistant}", rig.world.tenants[OWN].ids["assistant"])
    answer = await rig.call(method, path, body, key="workspace_admin")
    assert answer.status == status, answer.body
    shown = answer.body.replace(b"zeta-canary-up", b"")
    for canary in rig.world.tenants[OTHER].canaries:
        assert canary.encode() not in shown


@pytest.mark.asyncio
@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_every_place_of_a_key_is_the_same_check(shared: Rig, header: str) -> None:
    def sent(name: str) -> dict[str, str]:
        text = shared.world.keys[name]
        return {header: f"Bearer {text}" if header == "authorization" else text}

    assert (await shared.call("GET", "/me", headers=sent("viewer"))).json["role"] == "viewer"
    for name in NOBODY[1:]:
        assert (await shared.call("GET", "/me", headers=sent(name))).status == 401, name
    two = {**sent("viewer"), "x-api-key": "other", "api-key": "another"}
    assert (await shared.call("GET", "/me", headers=two)).error["code"] == "conflicting_credentials"


NASTY = (
    "' OR 1=1 --",
    '"; DROP TABLE keys; --',
    "sk-sgadmin-",
    "sk-sgadmin-" + "0" * 62,
    "sk-sgadmin-' OR '1'='1",
    "%00",
    "\xff\xfe",
    "{{7*7}}",
    "${jndi:ldap://127.0.0.1}",
    "x" * 5000,
)


@pytest.mark.asyncio
async def test_no_text_in_the_place_of_a_key_opens_anything(shared: Rig) -> None:
    before = await head_of(shared)
    for text, header in itertools.product(NASTY, ("authorization", "x-api-key", "api-key")):
        for operation in OPERATIONS[::5]:
            if operation.permission is None:
                continue
            path = re.sub(r"{\w+}", OWN, operation.path)
            sent = {header: f"Bearer {text}" if header == "authorization" else text}
            answer = await shared.call(operation.method, path, BODIES.get(operation.id), headers=sent)
            assert answer.status == 401, (operation.id, header, text)
            assert text.encode("latin-1") not in answer.body
    assert await head_of(shared) == before


CHILDREN = [
    (role, scopes)
    for role in ("workspace_admin", "member", "viewer")
    for count in range(3)
    for scopes in itertools.combinations(sorted(NARROWING), count)
]


@pytest.mark.asyncio
async def test_a_child_never_exceeds_its_maker(shared: Rig) -> None:
    made = 0
    for maker in ("workspace_admin", "key_manager"):
        own = set((await shared.call("GET", "/me", key=maker)).json["permissions"])
        for number, (role, scopes) in enumerate(CHILDREN):
            body = {"name": f"{maker} {number}", "kind": "admin", "role": role, "scopes": scopes}
            answer = await shared.call("POST", "/workspaces/acme/keys", body, key=maker)
            wanted = permissions_of(role, scopes) <= own
            assert answer.status == (201 if wanted else 403), (maker, role, scopes)
            if wanted:
                made += 1
                child = await shared.call("GET", "/me", key=answer.json["secret"])
                assert set(child.json["permissions"]) == permissions_of(role, scopes) <= own
    assert len(CHILDREN) < made < 2 * len(CHILDREN)
