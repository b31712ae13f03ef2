"""Who may manage what: roles, people and their memberships."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct


class Role(StrEnum):
    """From the most to the least: each may do what those below it may."""

    PLATFORM_ADMIN = "platform_admin"
    WORKSPACE_ADMIN = "workspace_admin"
    MEMBER = "member"
    VIEWER = "viewer"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do all that `other` may; nobody gives away more than they have."""
        return _RANK[self] >= _RANK[other]


_RANK = {Role.VIEWER: 0, Role.MEMBER: 1, Role.WORKSPACE_ADMIN: 2, Role.PLATFORM_ADMIN: 3}

Login = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]+\Z")]


class UserDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A person as written. `login` is unique, compared without case."""

    login: Login
    name: Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")] = ""


class User(Struct, frozen=True, kw_only=True):
    """A stored person. Times are milliseconds since 1970."""

    id: str
    login: str
    name: str
    disabled: bool
    version: int
    created_at: int
    updated_at: int


class Membership(Struct, frozen=True, kw_only=True):
    """A person's role in a workspace; in the platform's own one it can only be `platform_admin`."""

    workspace: str
    user: str
    login: str
    role: Role
    created_at: int
