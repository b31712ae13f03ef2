"""/api/v1/bootstrap, /users and /workspaces/{workspace}/members: the first admin, people, roles."""

from typing import Annotated

from msgspec import Meta, Struct, structs

from sluicegate import errors
from sluicegate.http.guard import permissions_of
from sluicegate.ids import PLATFORM
from sluicegate.keys import store as keys
from sluicegate.keys.model import DEFAULT_LIFE_MS, Key, KeyDraft
from sluicegate.management.operation import Answer, Call, Filter, ListQuery, Operation
from sluicegate.members import store
from sluicegate.members.model import Login, Membership, Role, User, UserDraft
from sluicegate.storage.page import Page
from sluicegate.storage.transaction import Actor

_TOKEN = "sg-bootstrap-"  # noqa: S105 (how every token begins)
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]


class Bootstrap(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The token that the first start printed, and the name of the key that it becomes."""

    token: Annotated[str, Meta(max_length=200)]
    name: Name = "first admin"


class FirstKey(Key, Struct, frozen=True, kw_only=True):
    """The first admin key with its text, which is never shown again."""

    secret: str


class UserChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Shut a person out, or let them in again."""

    disabled: bool


class MemberCreate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A person by login, known or not, and their role here."""

    login: Login
    role: Role


class MemberChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Another role."""

    role: Role


class UserQuery(ListQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of the list of people."""

    login: Annotated[Filter, Meta(description="A part of the login, without case.")] = ""


async def _bootstrap(call: Call) -> Answer:
    """Opens its own views: nothing is written, and nobody waits, for a token that cannot be right."""
    given: Bootstrap = call.body
    database = call.parts.database
    if not call.is_local:
        raise errors.not_for_remote()
    async with database.read() as view:
        if not given.token.startswith(_TOKEN) or await store.has_admin(view):
            raise errors.bad_token()
    async with database.change(Actor("bootstrap", call.request_id)) as change:
        if await store.has_admin(change) or not await store.use_bootstrap_token(change, given.token):
            raise errors.bad_token()
        draft = KeyDraft(name=given.name, scopes=(), expires_at=change.now + DEFAULT_LIFE_MS)
        key, text = await keys.create(change, PLATFORM, draft, kind="admin", role="platform_admin")
    return Answer(FirstKey(**structs.asdict(key), secret=text))


async def _users(call: Call) -> Answer:
    return call.listed(await store.users(call.view, call.page(), login=call.query.login))


async def _create_user(call: Call) -> Answer:
    return _user(await store.create_user(call.change, call.body))


async def _get_user(call: Call) -> Answer:
    return _user(await store.get_user(call.view, call.path["user"]))


async def _change_user(call: Call) -> Answer:
    given: UserChange = call.body
    return _user(
        await store.set_disabled(call.change, call.path["user"], given.disabled, expected=call.expected)
    )


def _user(found: User) -> Answer:
    return Answer(found, found.version, f"/users/{found.id}")


async def _members(call: Call) -> Answer:
    return call.listed(await store.members(call.view, call.workspace, call.page()))


async def _add_member(call: Call) -> Answer:
    """By login, and not by id: an id could be guessed to learn the name of another workspace's person."""
    given: MemberCreate = call.body
    _require_reach(call, given.role)
    person = await store.find_user(call.change, given.login)
    if person is None:
        person = await store.create_user(call.change, UserDraft(login=given.login))
    return _member(await store.grant(call.change, call.workspace, person.id, given.role))


async def _get_member(call: Call) -> Answer:
    return _member(await store.member(call.view, call.workspace, call.path["user"]))


async def _change_member(call: Call) -> Answer:
    given: MemberChange = call.body
    # Who is no member here is not there, whoever they are elsewhere.
    before = await store.member(call.change, call.workspace, call.path["user"])
    _require_reach(call, given.role)
    return _member(await store.grant(call.change, call.workspace, before.user, given.role))


async def _withdraw(call: Call) -> Answer:
    before = await store.member(call.change, call.workspace, call.path["user"])
    await store.withdraw(call.change, call.workspace, before.user)
    return Answer()


def _member(found: Membership) -> Answer:
    return Answer(found, location=f"/workspaces/{found.workspace}/members/{found.user}")


def _require_reach(call: Call, role: Role) -> None:
    """Nobody gives away more than they have."""
    beyond = permissions_of(role.value, ()) - call.caller.permissions
    if beyond:
        raise errors.missing_permission(min(beyond), call.caller.role)


_MEMBERS = "/workspaces/{workspace}/members"
_MEMBER = _MEMBERS + "/{user}"

OPERATIONS = (
    Operation(
        method="POST",
        path="/bootstrap",
        id="bootstrap.create",
        summary="Turn the token of the first start into the first admin key, once, on the gateway's machine",
        # The token is the credential: there is no key yet.
        permission=None,
        mode="open",
        run=_bootstrap,
        body=Bootstrap,
        answer=FirstKey,
        status=201,
    ),
    Operation(
        method="GET",
        path="/users",
        id="users.list",
        summary="All people",
        permission="platform:manage",
        run=_users,
        query=UserQuery,
        answer=Page[User],
    ),
    Operation(
        method="POST",
        path="/users",
        id="users.create",
        summary="Add a person, without a role anywhere",
        permission="platform:manage",
        mode="change",
        run=_create_user,
        body=UserDraft,
        answer=User,
        status=201,
        creates=True,
        versioned=True,
    ),
    Operation(
        method="GET",
        path="/users/{user}",
        id="users.get",
        summary="One person",
        permission="platform:manage",
        run=_get_user,
        answer=User,
        versioned=True,
    ),
    Operation(
        method="PATCH",
        path="/users/{user}",
        id="users.update",
        summary="Shut a person out, or let them in again",
        permission="platform:manage",
        mode="change",
        run=_change_user,
        body=UserChange,
        answer=User,
        versioned=True,
        conflicts=True,
    ),
    Operation(
        method="GET",
        path=_MEMBERS,
        id="members.list",
        summary="Who has a role in a workspace",
        permission="members:read",
        run=_members,
        query=ListQuery,
        answer=Page[Membership],
    ),
    Operation(
        method="POST",
        path=_MEMBERS,
        id="members.create",
        summary="Give a person a role, by login; a new login becomes a person",
        permission="members:manage",
        mode="change",
        run=_add_member,
        body=MemberCreate,
        answer=Membership,
        status=201,
        creates=True,
    ),
    Operation(
        method="GET",
        path=_MEMBER,
        id="members.get",
        summary="One person's role",
        permission="members:read",
        run=_get_member,
        answer=Membership,
    ),
    Operation(
        method="PATCH",
        path=_MEMBER,
        id="members.update",
        summary="Another role",
        permission="members:manage",
        mode="change",
        run=_change_member,
        body=MemberChange,
        answer=Membership,
        conflicts=True,
    ),
    Operation(
        method="DELETE",
        path=_MEMBER,
        id="members.delete",
        summary="Take the role away",
        permission="members:manage",
        mode="change",
        run=_withdraw,
        status=204,
        conflicts=True,
    ),
)
