"""Who may do what in the management API: each role's permissions. What no table names is refused."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from msgspec import Struct

from sluicegate import errors
from sluicegate.ids import PLATFORM

Permission = Literal[
    "workspaces:read",
    "workspaces:manage",
    "keys:read",
    "keys:manage",
    "upstreams:read",
    "upstreams:manage",
    "assistants:read",
    "assistants:manage",
    "members:read",
    "members:manage",
    "usage:read",
    "bodies:read",
    "audit:read",
    # What people have said: not for everybody who may read the rest.
    "conversations:read",
    "conversations:manage",
    # What concerns more than one workspace: making and deleting them, people, the whole audit log.
    "platform:manage",
]

_VIEWER: frozenset[Permission] = frozenset(
    {"workspaces:read", "keys:read", "upstreams:read", "assistants:read", "members:read", "usage:read"}
)
_MEMBER: frozenset[Permission] = _VIEWER | {"assistants:manage"}
_ADMIN: frozenset[Permission] = _MEMBER | {
    "workspaces:manage",
    "keys:manage",
    "upstreams:manage",
    "members:manage",
    # What clients have written, where the workspace keeps it.
    "bodies:read",
    "audit:read",
    "conversations:read",
    "conversations:manage",
}
ROLES: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        "platform_admin": frozenset(get_args(Permission)),
        "workspace_admin": _ADMIN,
        "member": _MEMBER,
        "viewer": _VIEWER,
    }
)

# What an admin key can be narrowed to: these of its role's permissions, and what its role may read.
NARROWING: frozenset[str] = frozenset(_ADMIN - _VIEWER)


def permissions_of(role: str, scopes: Iterable[str]) -> frozenset[Permission]:
    """What an admin key of this role may do. Scopes of management narrow it; without any it has all."""
    of_role = ROLES.get(role, frozenset())
    narrowed = NARROWING.intersection(scopes)
    return frozenset(p for p in of_role if p in _VIEWER or p in narrowed) if narrowed else of_role


class Caller(Struct, frozen=True):
    """Who is calling the management API: one admin key. `id` names it in logs and in the audit log."""

    id: str
    name: str
    workspace: str
    role: str
    permissions: frozenset[Permission]

    @property
    def is_platform(self) -> bool:
        """Whether it belongs to the operator, and not to one workspace."""
        return self.workspace == PLATFORM

    def reaches(self, workspace: str) -> bool:
        """Whether anything of this workspace exists for the caller."""
        return self.is_platform or self.workspace == workspace

    def require(self, permission: Permission) -> None:
        """Raises 403 where the key lacks the permission."""
        if permission not in self.permissions:
            raise errors.missing_permission(permission, self.role)
