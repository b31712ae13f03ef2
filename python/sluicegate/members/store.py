"""People and memberships in the database, and the token for the first admin."""

import hashlib
import hmac
import secrets
from typing import Any

from sqlalchemy import Row, delete, exists, func, insert, select, update

from sluicegate.audit.store import record
from sluicegate.ids import PLATFORM, IdSource
from sluicegate.members.model import Membership, Role, User, UserDraft
from sluicegate.storage import schema
from sluicegate.storage.codec import checked
from sluicegate.storage.errors import InUseError, InvalidError, NameTakenError, NotFoundError
from sluicegate.storage.page import FIRST, Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains, require_version, require_workspace
from sluicegate.storage.transaction import Change, View

_KIND = "user"
BOOTSTRAP_MINUTES = 15
_MINUTE_MS = 60_000

_users = schema.users
_memberships = schema.memberships
_tokens = schema.bootstrap_tokens
_ids = IdSource("usr_")


async def create_user(change: Change, draft: UserDraft) -> User:
    """A new person, without a role anywhere. Raises NameTakenError, InvalidError."""
    draft = checked(draft)
    folded = draft.login.casefold()
    if (await change.execute(select(exists().where(_users.c.folded == folded)))).scalar():
        raise NameTakenError(_KIND, draft.login)
    user = _ids.next()
    row = {"id": user, "login": draft.login, "folded": folded, "name": draft.name, "disabled": False}
    row |= {"version": 1, "created_at": change.now, "updated_at": change.now}
    await change.execute(insert(_users).values(row))
    record(change, PLATFORM, "user.create", user, {"login": draft.login})
    return await get_user(change, user)


async def get_user(view: View, user: str) -> User:
    """One person. Raises NotFoundError."""
    row = (await view.execute(select(_users).where(_users.c.id == user))).first()
    if row is None:
        raise NotFoundError(_KIND, user)
    return _user(row)


async def find_user(view: View, login: str) -> User | None:
    """One person by login, compared without case."""
    row = (await view.execute(select(_users).where(_users.c.folded == login.casefold()))).first()
    return None if row is None else _user(row)


async def users(view: View, page: PageQuery = FIRST, *, login: str = "") -> Page[User]:
    """All people, for the platform's admins; `login`: a part of it, without case."""
    query = select(_users)
    if login:
        query = query.where(contains(_users.c.login, login))
    rows = (await view.execute(paged(query, _users.c.id, page))).all()
    return page_of([_user(row) for row in rows], [row.id for row in rows], page)


async def set_disabled(change: Change, user: str, disabled: bool, *, expected: int | None = None) -> User:
    """Shut a person out, or let them in again.

    Raises NotFoundError, ConflictError, InUseError (the last admin).
    """
    before = await get_user(change, user)
    require_version(_KIND, expected, before.version)
    if before.disabled == disabled:
        return before
    if disabled:
        await _require_other_admin(change, user)
    values = {"disabled": disabled, "version": before.version + 1, "updated_at": change.now}
    await change.execute(update(_users).where(_users.c.id == user).values(values))
    record(change, PLATFORM, "user.disable" if disabled else "user.enable", user, {"login": before.login})
    for workspace in await roles_of(change, user):
        change.touch(workspace)
    return await get_user(change, user)


async def set_password_hash(change: Change, user: str, encoded: str | None) -> None:
    """Store what a slow hash (argon2id) made of a password; None takes it away. Raises NotFoundError."""
    before = await get_user(change, user)
    values = {"password": encoded, "version": before.version + 1, "updated_at": change.now}
    await change.execute(update(_users).where(_users.c.id == user).values(values))
    record(change, PLATFORM, "user.password", user, {"set": encoded is not None})


async def password_hash(view: View, user: str) -> str | None:
    """What `set_password_hash` stored."""
    found: str | None = (await view.execute(select(_users.c.password).where(_users.c.id == user))).scalar()
    return found


async def grant(change: Change, workspace: str, user: str, role: Role) -> Membership:
    """Give a person a role in a workspace, in place of the one they had.

    Raises NotFoundError, InvalidError (`platform_admin` is for the platform's own workspace, and its only
    role).
    """
    await require_workspace(change, workspace)
    person = await get_user(change, user)
    if (workspace == PLATFORM) != (role is Role.PLATFORM_ADMIN):
        raise InvalidError("role", "platform_admin is the role in the platform's workspace, and its only one")
    mine = (_memberships.c.workspace == workspace) & (_memberships.c.user == user)
    values = {"role": role.value, "created_at": change.now}
    changed = await change.execute(update(_memberships).where(mine).values(values))
    if not changed.rowcount:
        row = {"workspace": workspace, "user": user} | values
        await change.execute(insert(_memberships).values(row))
    record(change, workspace, "member.grant", user, {"login": person.login, "role": role.value})
    return Membership(workspace=workspace, user=user, login=person.login, role=role, created_at=change.now)


async def withdraw(change: Change, workspace: str, user: str) -> None:
    """Take a person's role in a workspace away.

    Raises NotFoundError, InUseError (the last platform admin).
    """
    mine = (_memberships.c.workspace == workspace) & (_memberships.c.user == user)
    if (await change.execute(select(_memberships).where(mine))).first() is None:
        raise NotFoundError("member", user)
    if workspace == PLATFORM:
        await _require_other_admin(change, user)
    await change.execute(delete(_memberships).where(mine))
    record(change, workspace, "member.withdraw", user, {})


async def members(view: View, workspace: str, page: PageQuery = FIRST) -> Page[Membership]:
    """Who has a role in a workspace."""
    query = select(_memberships, _users.c.login).join(_users, _users.c.id == _memberships.c.user)
    query = query.where(_memberships.c.workspace == workspace)
    rows = (await view.execute(paged(query, _memberships.c.user, page))).all()
    return page_of([_membership(row) for row in rows], [row.user for row in rows], page)


async def member(view: View, workspace: str, user: str) -> Membership:
    """One person's role in a workspace. Raises NotFoundError."""
    query = select(_memberships, _users.c.login).join(_users, _users.c.id == _memberships.c.user)
    query = query.where(_memberships.c.workspace == workspace, _memberships.c.user == user)
    row = (await view.execute(query)).first()
    if row is None:
        raise NotFoundError("member", user)
    return _membership(row)


async def roles_of(view: View, user: str) -> dict[str, Role]:
    """Workspace → role of a person who is not disabled; deleted workspaces are left out."""
    spaces = schema.workspaces
    query = (
        select(_memberships.c.workspace, _memberships.c.role)
        .join(_users, _users.c.id == _memberships.c.user)
        .join(spaces, spaces.c.id == _memberships.c.workspace)
        .where(_memberships.c.user == user, _users.c.disabled.is_(False), spaces.c.deleted_at.is_(None))
    )
    return {row.workspace: Role(row.role) for row in (await view.execute(query)).all()}


async def has_admin(view: View) -> bool:
    """Whether anybody may manage the platform: a person or an admin key.

    Until then only loopback is served.
    """
    people = (
        select(_memberships.c.user)
        .join(_users, _users.c.id == _memberships.c.user)
        .where(_memberships.c.workspace == PLATFORM, _users.c.disabled.is_(False))
    )
    keys = schema.keys
    tokens = select(keys.c.id).where(
        keys.c.workspace == PLATFORM,
        keys.c.kind == "admin",
        keys.c.revoked_at.is_(None),
        keys.c.deleted_at.is_(None),
    )
    for query in (people, tokens):
        if (await view.execute(query.limit(1))).first() is not None:
            return True
    return False


async def make_bootstrap_token(change: Change) -> str:
    """A token for the first admin, valid once and for 15 minutes; the ones before end now.

    Raises InvalidError when there is an admin already.
    """
    if await has_admin(change):
        raise InvalidError("", "there is an administrator already; they can make further keys and members")
    await change.execute(delete(_tokens))
    token = f"sg-bootstrap-{secrets.token_urlsafe(32)}"
    row = {"digest": _digest(token), "created_at": change.now}
    row |= {"expires_at": change.now + BOOTSTRAP_MINUTES * _MINUTE_MS}
    await change.execute(insert(_tokens).values(row))
    record(change, PLATFORM, "bootstrap.offer", "bootstrap", {})
    return token


async def use_bootstrap_token(change: Change, token: str) -> bool:
    """Whether the token is good; from then on it is used up.

    The caller makes the admin in the same change.
    """
    given = _digest(token)
    for row in (await change.execute(select(_tokens).where(_tokens.c.used_at.is_(None)))).all():
        if hmac.compare_digest(row.digest, given) and change.now <= row.expires_at:
            await change.execute(update(_tokens).where(_tokens.c.digest == given).values(used_at=change.now))
            record(change, PLATFORM, "bootstrap.use", "bootstrap", {})
            return True
    return False


async def _require_other_admin(change: Change, user: str) -> None:
    """A platform without an administrator could only be mended on the machine itself."""
    query = (
        select(func.count())
        .select_from(_memberships)
        .join(_users, _users.c.id == _memberships.c.user)
        .where(_memberships.c.workspace == PLATFORM, _users.c.disabled.is_(False), _users.c.id != user)
    )
    mine = exists().where(_memberships.c.workspace == PLATFORM, _memberships.c.user == user)
    is_admin = (await change.execute(select(mine))).scalar()
    if is_admin and not (await change.execute(query)).scalar():
        raise InUseError(_KIND, ("the platform: it is its last administrator",))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _membership(row: Row[Any]) -> Membership:
    return Membership(
        workspace=row.workspace,
        user=row.user,
        login=row.login,
        role=Role(row.role),
        created_at=row.created_at,
    )


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        login=row.login,
        name=row.name,
        disabled=row.disabled,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
